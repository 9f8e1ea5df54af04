"""Connections to PostgreSQL: as many as are allowed, each made when it is needed and kept while it works."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg

CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 10.0
"""A statement that takes longer is broken off, there and here."""
LOCK_SECONDS = 5.0
"""Nobody holds a payment for longer than a transaction takes; who waits so long begins again."""
IDLE_SECONDS = 5.0
"""A gateway that stands still within a transaction loses it, and with it what it holds."""

_SESSION = {
    "application_name": "pangate",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS:.0f}s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",  # every statement has its index, also while a table is still small and not analyzed
    "jit": "off",
}
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server has said something that nobody asked for: that it goes away
    OSError,
)
"""What ends a connection, if there was one. A TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is and who asks; `most` connections at a time."""

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    most: int = 8


class FencedError(Exception):
    """Others took this gateway for dead, and what it had in flight is theirs: no transaction of it is begun."""


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """Knows whether it is committing: if it is lost then, nobody knows what became of the transaction."""

    __slots__ = ("beginning", "committing")

    beginning: str
    committing: bool

    async def begin(self) -> None:
        """Begin a transaction, and hold the life in which it is begun. Raises `FencedError` when that is over."""
        try:
            await self.execute(self.beginning)
        except asyncpg.DivisionByZeroError as error:
            raise FencedError from error

    async def commit(self) -> None:
        """End the transaction that is under way."""
        self.committing = True
        await self.execute("COMMIT")
        self.committing = False


class Connections:
    """A bounded pool. Its connections are reset by nobody: each ends its transaction, or is closed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._holder = ""
        self._beginning = "BEGIN"
        self._room = asyncio.Semaphore(address.most)
        self._idle: list[Connection] = []

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction. Raises what `asyncpg.connect` raises."""
        async with self._room:
            connection = await self._open()
            connection.committing = False
            try:
                yield connection
            except LOST:
                connection.terminate()
                raise
            finally:
                await self._give_back(connection)

    async def _open(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self.connect()

    async def connect(self) -> Connection:
        """A connection besides those of the pool, to be closed by whoever asked for it."""
        address = self.address
        connection: Connection = await asyncpg.connect(
            host=address.host,
            port=address.port,
            database=address.database,
            user=address.user,
            password=address.password,
            ssl=address.tls or False,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + 1,
            server_settings={**_SESSION, "pangate.holder": self._holder},
            connection_class=Connection,
        )
        connection.beginning = self._beginning
        return connection

    def hold_as(self, holder: str, alive: str) -> None:
        """What is written from now on is this holder's. `alive` is a query that has a row, and holds it, as long as the
        holder was taken for dead by nobody.
        """
        self._holder = holder
        self._beginning = f"BEGIN; SELECT 1 / count(*) FROM ({alive}) AS held"  # noqa: S608 - of our own making
        self._forget()

    async def _give_back(self, connection: Connection) -> None:
        if connection.is_closed():
            self._forget()
            return
        try:
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - whatever it was: this one is of no use any more
            connection.terminate()
            self._forget()
        else:
            self._idle.append(connection)

    def _forget(self) -> None:
        """Where one connection was lost the others are as well, though they may not know it yet."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    async def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            with contextlib.suppress(Exception):
                await connection.close(timeout=CONNECT_SECONDS)
        self._idle.clear()
