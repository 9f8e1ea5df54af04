"""Stores for tests that open, break off and open again as often as they like."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.adapters.postgres import PostgresStore
from gateway.adapters.postgres_connections import Address
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.ports import Clock, Store
from tests.conftest import Recorder
from tests.postgres import connect, empty, open_store

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class Engine(Protocol):
    """One store at a time. What it is given to run, it runs on a loop of its own."""

    store: Any
    leases_end: bool
    """Does a process that opens the store void the leases of events?"""

    def run(self, asked: Coroutine[Any, Any, T]) -> T: ...
    def open(self, clock: Clock) -> Store: ...

    def restart(self, clock: Clock) -> Store:
        """Close the store and open it again."""
        ...

    def crash(self, clock: Clock) -> Store:
        """Open it again without having closed it."""
        ...

    def rows(self, query: str) -> Rows: ...
    def end(self) -> None: ...


class SqliteEngine:
    """A file; a crash goes on with a copy of the files as they are."""

    leases_end = True
    store: SqliteStore

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "0" / "pangate.db"
        self._runner = asyncio.Runner()

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asked)

    def open(self, clock: Clock) -> Store:
        self.store = open_sqlite(str(self._path), clock=clock, telemetry=Recorder())
        return self.store

    def restart(self, clock: Clock) -> Store:
        self.run(self.store.close())
        return self.open(clock)

    def crash(self, clock: Clock) -> Store:
        left = shutil.copytree(self._path.parent, self._path.parent.with_name(f"{int(self._path.parent.name) + 1}"))
        self.run(self.store.close())
        self._path = left / self._path.name
        return self.open(clock)

    def rows(self, query: str) -> Rows:
        return self.store._db.execute(query).fetchall()  # type: ignore[return-value]

    def end(self) -> None:
        self.run(self.store.close())
        self._runner.close()
        self._folder.cleanup()


class PostgresEngine:
    """A gateway of one name; a crash leaves the store before to its fate."""

    leases_end = False
    store: PostgresStore

    def __init__(self, address: Address) -> None:
        self._address = address
        self._left: list[PostgresStore] = []
        self._runner = asyncio.Runner()
        self.run(empty(address))

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asked)

    def open(self, clock: Clock) -> Store:
        self.store = self.run(open_store(self._address, clock, Recorder(), node="one"))
        return self.store

    def restart(self, clock: Clock) -> Store:
        self.run(self.store.close())
        return self.open(clock)

    def crash(self, clock: Clock) -> Store:
        self._left.append(self.store)
        return self.open(clock)

    def rows(self, query: str) -> Rows:
        async def ask() -> Rows:
            connection = await connect(self._address)
            try:
                return [tuple(row) for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return self.run(ask())

    def end(self) -> None:
        for store in (*self._left, self.store):
            self.run(store.close())
        self.run(empty(self._address))
        self._runner.close()
