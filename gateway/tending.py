"""Looking after a store: its schema, what it promises, and moving it to PostgreSQL."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import apsw
import asyncpg

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres_connections import LOST, Connection, Connections
from gateway.adapters.postgres_doctor import examine
from gateway.adapters.postgres_schema import migrate, read_schema
from gateway.adapters.process_memory import promise
from gateway.adapters.sqlite import configure, open_sqlite
from gateway.adapters.sqlite_doctor import examine_file
from gateway.adapters.store_copy import copy_store
from gateway.config.inert import NoTelemetry
from gateway.config.store import Store
from gateway.pure.findings import Finding, judge_memory
from gateway.storing import address_of

T = TypeVar("T")


def versions() -> list[str]:
    """What runs here, a line each."""
    names = ("pangate", "aiohttp", "apsw", "asyncpg", "cryptography")
    return [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names)]


async def asking(store: Store, read_secret: Callable[[str], bytes], ask: Callable[[Connection], Awaitable[T]]) -> T:
    """What the database answers, over one connection. Raises ValueError with a sentence for the operator."""
    if store.place is None:
        raise ValueError("the store is a file of SQLite: it is brought up to date whenever it is opened")
    connections = Connections(address_of(store, read_secret))
    try:
        async with connections.taken() as connection:
            return await ask(connection)
    except (asyncpg.PostgresError, *LOST) as error:
        told = getattr(error, "message", None) or type(error).__name__  # not its detail: that quotes rows
        raise ValueError(f"PostgreSQL at {store.place.host} cannot be used: {told}") from error
    finally:
        await connections.close()


async def migrate_store(store: Store, read_secret: Callable[[str], bytes], *, apply: bool) -> list[str]:
    """Apply the migrations that are missing, or only look; a line for each. Raises ValueError, as `asking` does, and if
    a gateway of this version must not use the database as it is then.
    """

    async def ask(connection: Connection) -> list[str]:
        done = await migrate(connection) if apply else ()
        schema = await read_schema(connection)
        complaint = schema.complaint()
        if complaint:
            raise ValueError(complaint)
        lines = [f"{found.number:04}_{found.name}: applied" for found in done]
        return lines or [f"nothing to do: all {len(schema.applied)} are applied"]

    return await asking(store, read_secret, ask)


async def diagnose(store: Store, read_secret: Callable[[str], bytes]) -> list[Finding]:
    """What the store promises. Raises ValueError with a sentence for the operator."""
    if store.place is None:
        return examine_file(Path(store.path))
    return await asking(
        store, read_secret, lambda connection: examine(connection, store.connections, SystemClock().now())
    )


def examine_memory() -> list[Finding]:
    """What a gateway that this user starts here can promise of its memory."""
    return list(judge_memory(promise()))


def _require(source: Path) -> None:
    if not source.is_file():
        raise ValueError(f"{source} is not there")


async def copy_into(store: Store, read_secret: Callable[[str], bytes], *, source: Path) -> list[str]:
    """Copy a file of SQLite into the PostgreSQL that the configuration names; a line for each table.

    The file is opened as a gateway would: what was in flight in it is in doubt. Raises ValueError with a sentence.
    """
    _require(source)
    await open_sqlite(str(source), clock=SystemClock(), telemetry=NoTelemetry()).close()

    async def ask(connection: Connection) -> list[str]:
        complaint = (await read_schema(connection)).complaint()
        if complaint:
            raise ValueError(complaint)
        with contextlib.closing(apsw.Connection(str(source))) as db:
            configure(db, str(source))
            return [
                f"{copied.table}: {copied.rows} rows are the same, {copied.written} of them new"
                async for copied in copy_store(db, connection)
            ]

    return await asking(store, read_secret, ask)
