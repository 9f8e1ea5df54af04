"""Listeners: accepting, TLS, caps on connections, deadlines, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.exchange import UNNAMED
from gateway.ports import Ports
from gateway.pure.bind import address_block
from gateway.pure.errors import PROBLEM_TYPE, Reason, problem
from gateway.pure.http import response_head
from gateway.pure.ids import REQUEST_ID_BYTES, request_id
from gateway.pure.metrics import Metric
from gateway.server.acceptor import Acceptor, Network
from gateway.server.connection import Connection
from gateway.server.edge import Edge, Exchanges, Limits
from gateway.server.handshakes import Handshakes

_SWEEP_SECONDS = 0.5
_LATE_AT_ONCE = 8
"""Connections that one turn of the event loop ends: each is answered, and whoever is honest waits meanwhile."""


class Listener:
    """One bind address and its connections. The address may have several sockets, and their queues several workers.

    `identity` is the principal that a local listener without TLS declares for its callers; `balancers` are the networks
    from which connections begin with a header of the PROXY protocol.
    """

    def __init__(
        self,
        name: str,
        exchanges: Exchanges,
        ports: Ports,
        limits: Limits | None = None,
        *,
        identity: str | None = None,
        balancers: Sequence[Network] = (),
    ) -> None:
        self.name = name
        self._balancers = balancers
        self._edge = Edge(name, exchanges, ports, limits or Limits(), identity)
        self._acceptor: Acceptor
        self._sweeper: asyncio.TimerHandle | None = None
        self._connections: _Connections

    def open(
        self, sockets: Sequence[socket.socket], context: ssl.SSLContext | None = None, accept: Iterable[int] = (0,)
    ) -> None:
        """Accept connections from those of the bound sockets whose numbers `accept` gives. Raises OSError."""
        self._edge.scheme = "http" if context is None else "https"
        self._connections = _Connections(self._edge, asyncio.get_running_loop())
        self._acceptor = Acceptor(self._connections, sockets, context, Handshakes(self._edge), self._balancers)
        self.accept(accept)
        self._sweep_later()

    @property
    def port(self) -> int:
        """The bound TCP port."""
        return int(self._acceptor.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """That are open."""
        return self._edge.connections

    @property
    def in_flight(self) -> int:
        """Exchanges under way, also those whose client has gone."""
        return self._edge.in_flight

    def accept(self, numbers: Iterable[int]) -> None:
        """Accept from these sockets from now on, and from no others. Raises OSError."""
        self._acceptor.accept(numbers)

    def renew(self, context: ssl.SSLContext) -> None:
        """New connections use this TLS context; those that exist stay as they are, and none is refused meanwhile."""
        if self._acceptor.context is None:
            raise ValueError(f"listener {self.name} was opened without TLS")
        self._acceptor.context = context

    def sweep(self) -> None:
        """Act on deadlines that have passed, and wipe what was read. Runs twice a second by itself."""
        self._edge.wipe()
        now = self._edge.now()
        self._end_late([connection for connection in self._connections.all if connection.due <= now], now)

    def _end_late(self, late: list[Connection], now: float) -> None:
        """Some of them in this turn of the event loop, the others in those that follow."""
        for connection in late[:_LATE_AT_ONCE]:
            if connection.due <= now:
                connection.expire()
        if len(late) > _LATE_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._end_late, late[_LATE_AT_ONCE:], now)

    def retire(self) -> None:
        """Go on accepting, but end each connection after its next answer."""
        self._edge.draining = True

    async def drain(self, seconds: float, grace: float = 0.0) -> int:
        """Accept what the kernel has connected already and close the sockets; close what stays idle for `grace`
        seconds, then give what is in flight its time, and cut the rest.

        Returns how many exchanges were still in flight. Their tasks go on: an exchange is settled, not cancelled.
        """
        self.retire()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drain(grace), grace + seconds)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._connections.all:
            connection.abort()
        return self._edge.in_flight

    async def _drain(self, grace: float) -> None:
        await self._acceptor.close()
        await asyncio.sleep(0)  # what has arrived is read first
        for connection in self._connections.all:
            connection.retire(grace)
        if self._edge.in_flight or self._edge.connections:
            await self._edge.empty.wait()

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep_and_again)

    def _sweep_and_again(self) -> None:
        self.sweep()
        self._sweep_later()


class _Connections:
    """Makes the protocol object of each connection, knows those that are open, and holds the caps."""

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        self._edge = edge
        self._loop = loop
        self._by_address: Counter[str] = Counter()
        self._open: set[Connection] = set()

    @property
    def all(self) -> list[Connection]:
        return list(self._open)

    def __call__(self, told: str | None = None) -> Connection:
        return Connection(self._edge, self, self._loop, told)

    def opened(self, connection: Connection) -> None:
        edge, block = self._edge, address_block(connection.peer.address)
        self._open.add(connection)
        edge.opened()
        self._by_address[block] += 1
        edge.ports.telemetry.set(Metric.CONNECTIONS, len(self._open), edge.listener)
        crowded = self._by_address[block] > edge.limits.connections_per_address
        if (crowded and connection.peer.address != UNNAMED) or len(self._open) > edge.limits.connections:
            self._turn_away(connection)

    def closed(self, connection: Connection) -> None:
        block = address_block(connection.peer.address)
        self._open.discard(connection)
        self._edge.closed()
        self._by_address[block] -= 1
        if not self._by_address[block]:
            del self._by_address[block]
        self._edge.ports.telemetry.set(Metric.CONNECTIONS, len(self._open), self._edge.listener)

    def _turn_away(self, connection: Connection) -> None:
        edge, reason = self._edge, Reason.TOO_MANY_CONNECTIONS
        ports = edge.ports
        answered = request_id(ports.clock.now(), ports.entropy(REQUEST_ID_BYTES))
        ports.telemetry.count(Metric.BLOCKED, "", "listener", reason.label, "enforce")
        ports.telemetry.log(
            "connection_refused", level="warning", id=answered, listener=edge.listener, reason=reason.label
        )
        body = problem(reason, "Close connections that are not used.", request_id=answered)
        headers = (
            (b"Content-Type", PROBLEM_TYPE),
            (b"Retry-After", b"1"),
            (b"X-Request-Id", answered.encode()),
        )
        connection.dismiss(response_head(reason.status, headers, length=len(body), close=True) + body)
