"""One HTTP/1.1 connection to an upstream: it carries one exchange at a time, and says whether it may carry another.

The connection keeps a single time, `due`, at which it is past one of its deadlines; its pool looks at the times of all
connections with one timer, so that a request starts and cancels none.
"""

from __future__ import annotations

import asyncio
import math
import select
from dataclasses import dataclass
from typing import Protocol, cast

from gateway.adapters.upstream_stream import HIGH_WATER, ResponseStream
from gateway.ports import BodyStream, Clock, Outcome, Response, UpstreamError
from gateway.pure.errors import Reason, Refused
from gateway.pure.response_reader import MalformedResponse, ResponseReader

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_UNSENT = "The upstream hung up before anything was sent; try again."
_IN_DOUBT = "it may have acted. Find out before you repeat the request."


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. `pending` bounds waiting for a connection, `connect` making one (TLS included); `first_byte` runs from
    the request's end to the response's head; `idle` while a body does not move for the upstream's sake; `total` from
    the request's start to the response's end. A connection idle for less than `reuse_within` may carry an unsafe
    request; one idle for `keep_alive` is closed.
    """

    pending: float = 1.0
    connect: float = 1.0
    first_byte: float = 10.0
    idle: float = 10.0
    total: float = 30.0
    reuse_within: float = 2.0
    keep_alive: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Connections at once, callers that wait for one, bytes and fields of a response's head."""

    max_connections: int = 256
    max_waiting: int = 256
    max_head: int = 32 * 1024
    max_fields: int = 128


class Owner(Protocol):
    """The pool, as its connections see it."""

    @property
    def buffer(self) -> memoryview:
        """Where each of them reads into, and takes out of in the same turn of the loop."""
        ...

    def made(self, wire: Wire) -> None: ...

    def ended(self, wire: Wire) -> None:
        """The exchange is over; the connection is closing, or ready for another."""
        ...

    def lost(self, wire: Wire) -> None: ...

    def watch(self, due: float) -> None:
        """Call `expire` of connections whose `due` has come, not much later than at `due`."""
        ...


class Wire(asyncio.BufferedProtocol):
    """A connection. Between two exchanges it expects silence: data or EOF closes it at once.

    Also what the kernel has and the event loop has not read yet: it would be taken for the answer to the next request.
    """

    __slots__ = (
        "_answer",
        "_arrived",
        "_clock",
        "_deadline",
        "_drained",
        "_limits",
        "_loop",
        "_owner",
        "_paused",
        "_reader",
        "_sending",
        "_stream",
        "_timeouts",
        "_transport",
        "address",
        "closed",
        "due",
        "exchanges",
        "heard",
        "idle_since",
        "leased",
        "moved_at",
    )

    def __init__(self, owner: Owner, clock: Clock, timeouts: Timeouts, limits: Limits) -> None:
        self._owner = owner
        self._clock = clock
        self._timeouts = timeouts
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport
        self._arrived = select.poll()
        self._reader: ResponseReader | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._stream: ResponseStream | None = None
        self._drained: asyncio.Future[None] | None = None
        self._sending = False
        self._paused = False
        self._deadline = math.inf
        self.due = math.inf
        self.idle_since = clock.monotonic()
        self.address = ""
        """The IP address of the other end."""
        self.leased = False
        """Taken by an exchange; the pool's to change."""
        self.closed = False
        self.moved_at = math.inf
        """When its client last took a part of the answer, or sent a part of the body; says nothing in between."""
        self.exchanges = 0
        """Exchanges begun."""
        self.heard = False
        """A byte of the current exchange's response has arrived."""

    # --- the exchange

    async def exchange(self, method: str, head: bytes, body: bytes | BodyStream, deadline: float) -> Response:
        """Send a request, return its response (see `ports.Connection.send`). Raises `UpstreamError`, `Refused`."""
        if not self.closed and self.exchanges and self._arrived.poll(0):
            self.abort()
        if self.closed:
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, _UNSENT)
        answer = self._begin(method, deadline)
        try:
            if isinstance(body, bytes):
                self._transport.write(_whole_request(method, head, body))
                self._expect_within(self._timeouts.first_byte)
                return await answer
            return await self._exchange_stream(answer, head, body)
        except BaseException:
            if self._answer is answer:
                self.abort()
            raise

    def _begin(self, method: str, deadline: float) -> asyncio.Future[Response]:
        self._reader = ResponseReader(method, max_head=self._limits.max_head, max_fields=self._limits.max_fields)
        self._answer = answer = self._loop.create_future()
        self._deadline = deadline
        self.exchanges += 1
        self.heard = False
        return answer

    async def _exchange_stream(self, answer: asyncio.Future[Response], head: bytes, body: BodyStream) -> Response:
        """Send and listen at once: an upstream that answers early is not sent the rest."""
        self._sending = True
        self.moved_at = self._clock.monotonic()
        self._expect_within(math.inf)
        sender = asyncio.get_running_loop().create_task(self._send_stream(head, body))
        try:
            await asyncio.wait((sender, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await sender
            return await answer
        finally:
            sender.cancel()
            await asyncio.wait((sender,))
            if not sender.cancelled():
                sender.exception()

    async def _send_stream(self, head: bytes, body: BodyStream) -> None:
        """The head leaves with the first piece: a caller that breaks off before it has sent nothing."""
        pending = head + _framing(body.length)
        sent = 0
        async for piece in body:
            if not piece:
                continue
            sent += len(piece)
            if body.length is not None and sent > body.length:
                raise Refused(Reason.MALFORMED_REQUEST, "Send as many bytes as Content-Length says; there were more.")
            await self._write(pending + (piece if body.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)))
            pending = b""
            self.moved_at = self._clock.monotonic()
        if body.length is not None and sent < body.length:
            raise Refused(Reason.MALFORMED_REQUEST, "Send as many bytes as Content-Length says; there were fewer.")
        await self._write(pending + (b"" if body.length is not None else b"0\r\n\r\n"))
        self._sending = False
        if self._stream is None:
            self._expect_within(self._timeouts.first_byte)

    async def _write(self, data: bytes) -> None:
        if self.closed:
            return
        self._transport.write(data)
        if self._drained is not None:
            self._expect_within(self._timeouts.idle)
            await self._drained
            self._expect_within(math.inf)

    def _expect_within(self, seconds: float) -> None:
        self.due = min(self._clock.monotonic() + seconds, self._deadline)
        self._owner.watch(self.due)

    @property
    def awaits_client(self) -> bool:
        """Is it the client who has to move next: to take more of the answer, or to send more of the body?"""
        return self._paused or (self._sending and self._drained is None)

    # --- the ways it ends

    def expire(self) -> None:
        """`due` has come."""
        if self._reader is None:
            self.abort()
        else:
            self._fail(
                Reason.UPSTREAM_TIMEOUT, f"The upstream did not answer in time; {_IN_DOUBT}", ours=self.awaits_client
            )

    def abort(self) -> None:
        """Close at once, whatever is under way: what the upstream did not read by now it will not get."""
        if self._reader is not None:
            self._fail(Reason.UPSTREAM_FAILED, f"The connection was given up; {_IN_DOUBT}", ours=True)
        elif not self.closed:
            self.closed = True
            self._transport.abort()
            self._owner.ended(self)

    def _fail(self, reason: Reason, detail: str, *, ours: bool = False) -> None:
        """`ours`: it was not the upstream that took too long, or broke it off."""
        error = UpstreamError(Outcome.UNKNOWN, reason, detail)
        error.blameless = ours
        answer, stream = self._answer, self._stream
        self._forget()
        if stream is not None:
            stream.finish(error, failed=not ours)
        elif answer is not None and not answer.done():
            answer.set_exception(error)
            answer.exception()
        self.abort()

    def _succeed(self, reusable: bool) -> None:
        reusable = reusable and not self._sending and not self._transport.get_write_buffer_size()
        if self._stream is not None:
            self._stream.finish()
        self._forget()
        if not reusable:
            self.abort()
            return
        self.idle_since = self._clock.monotonic()
        self._owner.ended(self)

    def _forget(self) -> None:
        self._reader = self._answer = self._stream = None
        self._sending = False
        self.due = math.inf

    # --- what the response's reader asks for

    def resume_reading(self) -> None:
        """There is room again for more of the response."""
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()
            self._expect_within(self._timeouts.idle)

    def _take(self, piece: bytes) -> None:
        """A part of the response has arrived, its head with it if there was none before."""
        assert self._reader is not None
        head, stream = self._reader.head, self._stream
        if head is None:
            return
        if stream is not None:
            stream.push(piece)
        elif self._answer is not None and not self._answer.done():
            if self._reader.complete:
                self._answer.set_result(Response(head.status, head.headers, piece))
                return
            self._stream = stream = ResponseStream(self, head.length)
            stream.push(piece)
            self._answer.set_result(Response(head.status, head.headers, b"", stream))
        if stream is None or self._reader.complete:
            return
        if stream.buffered > HIGH_WATER and not self._paused:
            self._paused = True
            self.moved_at = self._clock.monotonic()
            self._transport.pause_reading()
        self._expect_within(math.inf if self._paused else self._timeouts.idle)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", transport)
        self._arrived.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        self._owner.made(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._owner.buffer[:nbytes])
        reader = self._reader
        if reader is None:
            self.abort()
            return
        self.heard = True
        try:
            piece = reader.feed(data)
        except MalformedResponse as malformed:
            self._fail(Reason.UPSTREAM_INVALID, f"The upstream's answer is not well-formed ({malformed}); {_IN_DOUBT}")
            return
        self._take(piece)
        if reader.complete:
            self._succeed(reader.reusable)

    def eof_received(self) -> None:
        self._hang_up(broken=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up(broken=exc is not None)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._owner.lost(self)

    def _hang_up(self, *, broken: bool) -> None:
        reader = self._reader
        if reader is None:
            self.abort()
        elif not broken and reader.end():
            self._succeed(reusable=False)
        else:
            self._fail(Reason.UPSTREAM_FAILED, f"The upstream broke off; {_IN_DOUBT}")

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


def _framing(length: int | None) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length


def _whole_request(method: str, head: bytes, body: bytes) -> bytes:
    """Head, framing and body in one piece: one write, one TLS record for a small request."""
    if not body and method in _BODILESS:
        return head + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
