"""What the connections of one listener share: bounds, state, and who answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.ports import IncomingBody, Ports
from gateway.pure.errors import Refused
from gateway.pure.failures import FailedCredentials
from gateway.pure.request_reader import Head, HeadLimits

if TYPE_CHECKING:
    from gateway.server.connection import Connection


READ_BYTES = 64 * 1024
_ZEROS = bytes(READ_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a listener: times in seconds, sizes in bytes. No setting turns one off."""

    head: HeadLimits = field(default_factory=HeadLimits)
    body: int = 16 * 1024 * 1024
    """The largest body that is let through at all; rules that read a body have a smaller limit."""
    connections: int = 10_000
    connections_per_address: int = 512
    failed_credentials_per_address: int = 100
    """In a minute."""
    handshake: float = 5.0
    header: float = 10.0
    """For a whole head, from its first byte; and for the first byte of a new connection."""
    idle: float = 75.0
    body_stall: float = 10.0
    """Without a byte of the body."""
    body_time: float = 30.0
    """For the whole body, plus a second for every `body_rate` bytes that came."""
    body_rate: int = 1024
    write_stall: float = 30.0
    linger: float = 2.0
    """How long input is thrown away after an answer that ends the connection before the request did."""


@dataclass(slots=True)
class Arrival:
    """A request whose head was let in."""

    head: Head
    body: IncomingBody | None


class Connections(Protocol):
    """The connections of a listener, as each of them sees it."""

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Exchanges(Protocol):
    """What is done with requests."""

    async def serve(self, caller: Connection, arrival: Arrival | Refused) -> None:
        """Answer by `caller.send`, exactly once. Raises nothing."""
        ...


@dataclass(slots=True, eq=False)
class Edge:
    """The state of a listener. `in_flight` counts exchanges, also those whose client has gone."""

    listener: str
    exchanges: Exchanges
    ports: Ports
    limits: Limits
    identity: str | None = None
    scheme: str = "http"
    draining: bool = False
    connections: int = 0
    in_flight: int = 0
    failures: FailedCredentials = field(init=False)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BYTES)), repr=False)
    """What any of the connections reads is in here until it was taken out, in the same turn of the loop."""
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last exchange has ended and the last connection has closed."""

    def __post_init__(self) -> None:
        self.failures = FailedCredentials(self.limits.failed_credentials_per_address)

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return self.ports.clock.monotonic()

    def opened(self) -> None:
        self.connections += 1
        self.empty.clear()

    def closed(self) -> None:
        self.connections -= 1
        self._signal()

    def wipe(self) -> None:
        """Nothing is in the buffer between two turns of the loop that anybody needs, and card data may have been."""
        self.buffer[:] = _ZEROS

    def began(self) -> None:
        self.in_flight += 1
        self.empty.clear()

    def ended(self) -> None:
        self.in_flight -= 1
        self._signal()

    def _signal(self) -> None:
        if not self.in_flight and not self.connections:
            self.empty.set()
