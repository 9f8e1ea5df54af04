"""A listener on loopback with a small route table, seen through raw sockets, in front of an upstream that is scripted.

The upstream stands in at its port: nothing that is decided in these tests is decided there.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Header, Ports, Response
from gateway.pure.routing import Pattern, RouteTable
from gateway.server.acceptor import Network
from gateway.server.edge import Edge, Limits
from gateway.server.handshakes import Handshakes
from gateway.server.listener import Listener
from gateway.server.proxy import Inboxes, Proxy, Running
from gateway.server.sockets import bound
from gateway.snapshot import Route, Snapshot
from tests.conftest import CountingEntropy, HandClock, Recorder

HOST = b"Host: api.example\r\n"
GET = b"GET /v1/payments HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body: bytes, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in (*fields, b"Content-Length: %d" % len(body)))
    return b"POST /v1/payments HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body


@dataclass
class Seen:
    """A request as the upstream got it."""

    method: str
    head: bytes
    body: bytes


class Pieces:
    """A body that arrives piece by piece; an exception among the pieces breaks it off."""

    def __init__(self, *pieces: bytes | Exception | asyncio.Event, length: int | None = None) -> None:
        self.pieces = pieces
        self.length = length
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                yield piece

    async def aclose(self) -> None:
        self.closed = True


Answering = Callable[[Seen], Awaitable[Response]]


class UpstreamInTest:
    """An Upstream whose answers come from a function; always its own one connection."""

    name = "backend"
    authority = b"backend.internal"

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.acquired = 0
        self.answer: Answering = _ok

    async def acquire(self, *, safe: bool) -> UpstreamInTest:
        self.acquired += 1
        return self

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        whole = body if isinstance(body, bytes) else b"".join([piece async for piece in body])
        self.seen.append(Seen(method, head, whole))
        return await self.answer(self.seen[-1])

    def release(self) -> None:
        pass


async def _ok(seen: Seen) -> Response:
    return Response(200, [(b"Content-Type", b"text/plain")], b"ok")


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, bodiless: bool = False) -> Answered:
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        headers = [(n.lower(), v) for n, _, v in (line.partition(b": ") for line in lines[1:])]
        answered = Answered(int(lines[0].split(b" ")[1]), headers)
        length, coding = answered.header(b"content-length"), answered.header(b"transfer-encoding")
        if bodiless or answered.status in {100, 204, 304}:
            return answered
        if length is not None:
            answered.body = await self.reader.readexactly(int(length))
        elif coding == b"chunked":
            answered.body = await self._chunks()
        else:
            answered.body = await self.reader.read()
        return answered

    async def ask(self, data: bytes, *, bodiless: bool = False) -> Answered:
        await self.send(data)
        return await self.answer(bodiless=bodiless)

    async def ask_in_vain(self, data: bytes) -> None:
        await self.send(data)
        assert not (await self.rest()).startswith(b"HTTP/1.1 2")

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        pieces = []
        with suppress(ConnectionError, ssl.SSLError):
            while piece := await self.reader.read(65536):
                pieces.append(piece)
        return b"".join(pieces)

    def reset(self) -> None:
        """Vanish without a proper end."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return body


@dataclass
class Answered:
    status: int
    headers: list[Header]
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def reason(self) -> str:
        found = re.search(rb'"urn:pangate:problem:([a-z_]+)"', self.body)
        return found[1].decode() if found else ""


class World:
    """What a test drives: clock, upstream, telemetry, the listener, and clients of it."""

    def __init__(self, limits: Limits, placed: Sequence[Placed], inboxes: Inboxes | None, routes: Any) -> None:
        self.clock = HandClock()
        self.telemetry = Recorder()
        self.upstream = UpstreamInTest()
        self.store = MemoryStore()
        nothing: Any = None
        self.ports = Ports(
            clock=self.clock,
            entropy=CountingEntropy(),
            store=self.store,
            shared=nothing,
            sad=nothing,
            keys=nothing,
            key_sets=nothing,
            telemetry=self.telemetry,
            files=nothing,
        )
        pipeline = Pipeline(placed, self.upstream, self.ports, BodyLimits())
        self.running = Running(snapshot(routes(pipeline) if routes else _routes(pipeline)))
        self.proxy = Proxy(self.ports, self.running, inboxes)
        self.limits = limits
        self.listener: Listener
        self._clients: list[Client] = []

    async def open(
        self, bind: str, context: ssl.SSLContext | None, identity: str | None, balancers: Sequence[Network]
    ) -> None:
        self.listener = Listener("edge", self.proxy, self.ports, self.limits, identity=identity, balancers=balancers)
        self.listener.open([bound(bind)], context)

    async def client(self, context: ssl.SSLContext | None = None) -> Client:
        name = None if context is None else "localhost"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.listener.port, ssl=context, server_hostname=name
        )
        self._clients.append(Client(reader, writer))
        return self._clients[-1]

    async def ask(self, data: bytes) -> Answered:
        return await (await self.client()).ask(data)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.listener.drain(1)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.listener.sweep()

    async def taken(self, count: int) -> None:
        """Until the one connection there is has taken so many bytes of a head, or of a body, and waits for more."""

        def waits() -> bool:
            connection = next(iter(self.listener._connections.all), None)
            if connection is None:
                return False
            body = connection._body
            if not connection._exchanging:
                return len(connection._pending) == count
            return body is not None and body.is_awaited and body._received + body.buffered == count

        await turns(waits)

    async def blocked(self) -> None:
        """Until the one connection there is cannot write any more."""
        await turns(lambda: any(connection._drained is not None for connection in self.listener._connections.all))

    def lines(self) -> list[dict[str, object]]:
        return [line for line in self.telemetry.lines if line["event"] == "request"]


class MemoryStore:
    """Counts commits. For exchanges whose operations are of no interest here."""

    def __init__(self) -> None:
        self.units: list[Sequence[Any]] = []

    async def commit(self, unit: Sequence[Any]) -> Any:
        from gateway.operations import Row, Rows

        rows = Rows(unit)
        rows.answered = [Row() for _ in unit]
        self.units.append(unit)
        return rows

    async def close(self) -> None: ...


def _routes(pipeline: Pipeline) -> list[tuple[Pattern, Route]]:
    route = Route(name="payments", tenant="default", pipeline=pipeline)
    methods = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
    return [
        (Pattern("/v1/payments", methods, "api.example"), route),
        (Pattern("/v1/sweeps", methods, "api.example"), replace(route, allow_body=True)),
        (Pattern("/v1/payments/**", methods, "api.example"), route),
        (Pattern("/v1/reports", methods, "api.example"), replace(route, repeat={"state"}, media_types={"text/csv"})),
    ]


def snapshot(routes: list[tuple[Pattern, Route]]) -> Snapshot:
    return Snapshot(digest="test", tables={"edge": RouteTable(routes)}, inboxes={})


@asynccontextmanager
async def world(
    limits: Limits | None = None,
    placed: Sequence[Placed] = (),
    *,
    bind: str = "127.0.0.1:0",
    context: ssl.SSLContext | None = None,
    identity: str | None = None,
    balancers: Sequence[Network] = (),
    inboxes: Inboxes | None = None,
    routes: Any = None,
) -> AsyncIterator[World]:
    it = World(limits or Limits(), placed, inboxes, routes)
    await it.open(bind, context, identity, balancers)
    try:
        yield it
    finally:
        await it.close()


def handshakes(limits: Limits | None = None) -> Handshakes:
    """Those of a listener that serves nobody."""
    it = World(limits or Limits(), (), None, None)
    return Handshakes(Edge("edge", it.proxy, it.ports, it.limits))


async def turns(until: Callable[[], bool]) -> None:
    """Give the loop turns until it has come so far."""
    async with asyncio.timeout(60):
        while not until():  # noqa: ASYNC110 - any state may be awaited, no code signals it
            await asyncio.sleep(0)
