"""Listeners: sockets, TLS, caps on connections, deadlines, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import stat
from collections import Counter
from pathlib import Path

from gateway.exchange import UNNAMED
from gateway.ports import Ports
from gateway.pure.bind import Tcp, Unix, address_block, parse_bind
from gateway.pure.errors import PROBLEM_TYPE, Reason, problem
from gateway.pure.http import response_head
from gateway.pure.metrics import Metric
from gateway.server.connection import Connection
from gateway.server.edge import Edge, Exchanges, Limits
from gateway.server.tls import Replaceable

_BACKLOG = 1024
_SWEEP_SECONDS = 0.5


class Listener:
    """One bind address and its connections.

    `identity` is the principal that a local listener without TLS declares for its callers.
    """

    def __init__(
        self,
        name: str,
        exchanges: Exchanges,
        ports: Ports,
        limits: Limits | None = None,
        *,
        identity: str | None = None,
    ) -> None:
        self.name = name
        self._edge = Edge(name, exchanges, ports, limits or Limits(), identity)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tls: Replaceable | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._connections: _Connections

    async def open(
        self, bind: str, context: ssl.SSLContext | None = None, *, reuse_port: bool = False, mode: int = 0o600
    ) -> None:
        """Bind and accept. `mode` is that of a Unix socket. Raises ValueError (`bind`) and OSError."""
        place = parse_bind(bind)
        self._socket = _unix(place, mode) if isinstance(place, Unix) else _tcp(place, reuse_port)
        self._edge.scheme = "http" if context is None else "https"
        self._connections = _Connections(self._edge, asyncio.get_running_loop())
        self._tls = None if context is None else Replaceable.of(context)
        self._server = await self._accept()
        self._sweep_later()

    @property
    def port(self) -> int:
        """The bound TCP port."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    @property
    def in_flight(self) -> int:
        """Exchanges under way, also those whose client has gone."""
        return self._edge.in_flight

    def renew(self, context: ssl.SSLContext) -> None:
        """New connections use this TLS context; those that exist stay as they are, and none is refused meanwhile."""
        if self._tls is None:
            raise ValueError(f"listener {self.name} was opened without TLS")
        self._tls.current = context

    def sweep(self) -> None:
        """Act on deadlines that have passed. Runs twice a second by itself."""
        now = self._edge.ports.clock.monotonic()
        for connection in self._connections.all:
            if connection.due <= now:
                connection.expire()

    def retire(self) -> None:
        """Go on accepting, but end each connection after its next answer."""
        self._edge.draining = True

    async def drain(self, seconds: float) -> int:
        """Stop accepting, close what is idle, give what is in flight its time; then cut the rest.

        Returns how many exchanges were still in flight. Their tasks go on: an exchange is settled, not cancelled.
        """
        self.retire()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._close_socket()
        for connection in self._connections.all:
            connection.retire()
        if self._edge.in_flight or self._edge.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._edge.empty.wait(), seconds)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._connections.all:
            connection.abort()
        return self._edge.in_flight

    def _close_socket(self) -> None:
        if self._socket is None:
            return
        if self._socket.family == socket.AF_UNIX:
            Path(self._socket.getsockname()).unlink(missing_ok=True)
        self._socket.close()
        self._socket = None

    async def _accept(self) -> asyncio.Server:
        """A server of its own file descriptor."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        timeout = self._edge.limits.handshake if self._tls is not None else None
        make = loop.create_unix_server if self._socket.family == socket.AF_UNIX else loop.create_server
        return await make(
            self._connections, sock=self._socket.dup(), ssl=self._tls, backlog=_BACKLOG, ssl_handshake_timeout=timeout
        )

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

    def __call__(self) -> Connection:
        return Connection(self._edge, self, self._loop)

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
        edge.ports.telemetry.count(Metric.BLOCKED, "", "listener", reason.label, "enforce")
        body = problem(reason, "Close connections that are not used.", request_id="")
        headers = ((b"Content-Type", PROBLEM_TYPE), (b"Retry-After", b"1"))
        connection.dismiss(response_head(reason.status, headers, length=len(body), close=True) + body)


def _tcp(place: Tcp, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    return socket.create_server((place.host, place.port), family=family, backlog=_BACKLOG, reuse_port=reuse_port)


def _unix(place: Unix, mode: int) -> socket.socket:
    """Bind privately, open up afterwards: nobody connects in between."""
    path = Path(place.path)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_stale(path: Path) -> None:
    """A socket that a dead process left behind; one that answers is in use."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
