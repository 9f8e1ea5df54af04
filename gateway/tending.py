"""Looking after a database that gateways share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from gateway.adapters.postgres_connections import Connection, Connections
from gateway.adapters.postgres_schema import migrate, read_schema
from gateway.config.store import Store
from gateway.storing import address_of

T = TypeVar("T")


async def asking(store: Store, read_secret: Callable[[str], bytes], ask: Callable[[Connection], Awaitable[T]]) -> T:
    """What the database answers, over one connection. Raises ValueError with a sentence for the operator."""
    if store.place is None:
        raise ValueError("the store is a file of SQLite: it is brought up to date whenever it is opened")
    connections = Connections(address_of(store, read_secret), "")
    try:
        async with connections.taken() as connection:
            return await ask(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        told = str(error) if isinstance(error, asyncpg.PostgresError) else type(error).__name__
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
