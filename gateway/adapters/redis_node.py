"""One Redis server: a bounded pool of connections to it, and round trips that end in time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Command = tuple[str | int | bytes, ...]


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Tls:
    """The context by which connections are made. Those that another made are made anew before their next use."""

    context: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Access:
    """How the servers of one deployment are entered: as which user, and by TLS or (None) in clear."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    database: int = 0


class _Connection(Connection):
    """TLS by a context of ours: redis-py's own trusts the system's authorities beside the one that it is given."""

    def __init__(self, *, tls: Tls | None, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls
        self._made_by: ssl.SSLContext | None = None

    async def connect(self) -> None:
        if self._tls is not None and self._made_by is not self._tls.context:
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        self._made_by = None if self._tls is None else self._tls.context
        return {**super()._connection_arguments(), "ssl": self._made_by}

    async def disconnect(self, *args: Any, **options: Any) -> None:
        if self._writer is not None:
            self._writer.transport.abort()  # whoever is silent would not take leave either
        await super().disconnect(*args, **options)


class Node:
    """Connects when first asked, and again when a connection broke. Nothing is ever sent twice.

    `suspect`: it failed, and has not answered since. `lost`: it failed when it was asked again, too.
    """

    def __init__(self, address: Address, access: Access, connections: int) -> None:
        self.address = address
        self.suspect = False
        self.lost = False
        self._client = Redis.from_pool(_pool(address, access, connections))
        self._busy = 0
        self._retired = False

    async def ask(self, commands: Sequence[Command], until: float) -> list[Any]:
        """The replies in order, by one round trip; what the server refused has an exception for its reply.

        `until` (time of the event loop) bounds all of it, waiting for a connection included. Raises RedisError and
        OSError; TimeoutError is one.
        """
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        self._busy += 1
        try:
            async with asyncio.timeout_at(until):
                return await pipeline.execute(raise_on_error=False)
        finally:
            self._busy -= 1
            if self._retired and not self._busy:
                await self.close()

    async def retire(self) -> None:
        """Close it as soon as nobody waits for an answer."""
        self._retired = True
        if not self._busy:
            await self.close()

    async def close(self) -> None:
        await self._client.aclose()


def _pool(address: Address, access: Access, connections: int) -> BlockingConnectionPool:
    """Without time limits of its own: the caller's is for all of a round trip."""
    return BlockingConnectionPool(
        connection_class=_Connection,
        tls=access.tls,
        host=address.host,
        port=address.port,
        db=access.database,
        username=access.username,
        password=access.password,
        max_connections=connections,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="pangate",
    )
