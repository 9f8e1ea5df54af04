"""One client connection: bytes to requests, answers to bytes, and a deadline on every wait.

aiohttp's parser reads the requests; where a request ends is found a second time beside it (`gateway.pure.framing`),
and a connection on which the two differ is closed. Requests that a client sends ahead stay unparsed until their turn.
Nothing here is cancelled when the client hangs up: an exchange runs to its end in the connection's own task.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from gateway.exchange import Peer
from gateway.ports import Response
from gateway.pure.errors import Reason, Refused
from gateway.pure.framing import Chunked, Framing, Sized
from gateway.pure.http import HeadLimits, admit, has_no_body, response_head
from gateway.server.edge import Arrival, Edge
from gateway.server.request_body import RequestBody

_READ_BUFFER = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
_END_OF_HEAD = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BROKE_OFF = Refused(Reason.MALFORMED_REQUEST, "Send the body to its end, as it was declared.")


class Connection(web.RequestHandler):
    """The protocol object of one connection. Relies on internals of aiohttp 3.14 that its tests pin."""

    __slots__ = (
        "_arrived",
        "_broken",
        "_edge",
        "_framing",
        "_half_closed",
        "_head_bytes",
        "_head_tail",
        "_in_head",
        "_late",
        "_payload",
        "_pending",
        "_wire",
        "due",
        "peer",
    )

    def __init__(self, server: web.Server, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        limits = edge.limits.head
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=0,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=limits.target,
            max_field_size=limits.field,
            max_headers=limits.fields,
            read_bufsize=_READ_BUFFER,
            auto_decompress=False,
        )
        self._edge = edge
        self._wire: asyncio.Transport
        self.peer: Peer
        self.due = math.inf
        self._late: Callable[[Connection], None] = Connection.hang_up
        """Not bound: that would tie the connection to itself, and leave its TLS state to the cycle collector."""
        self._arrived: Arrival | Refused | None = None
        self._pending = b""
        self._in_head = True
        self._head_bytes = 0
        self._head_tail = b""
        self._framing: Framing = Sized(0)
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._broken = False
        self._half_closed = False

    @property
    def listener(self) -> str:
        return self._edge.listener

    @property
    def scheme(self) -> str:
        return self._edge.scheme

    # --- life -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        peername = transport.get_extra_info("peername")
        self.peer = Peer(
            address=peername[0] if isinstance(peername, tuple) else "unknown",
            certificate=tls.getpeercert(binary_form=True) if tls is not None else None,
            identity=self._edge.identity,
        )
        self._expect(self._edge.limits.header, Connection._head_late)
        super().connection_made(transport)

    async def start(self) -> None:
        edge = self._edge
        while (arrival := await self._next()) is not None:
            edge.began()
            try:
                await edge.exchanges.serve(self, arrival)
            finally:
                edge.ended()
            if self._close or self._force_close:
                break
        self._leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._break_body()
        self.due = math.inf
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that only stopped sending still gets its answer (TLS has no half-closed state)."""
        self._half_closed = True
        self._break_body()
        return not (self._in_head or self._close) and self._edge.scheme == "http"

    def retire(self) -> None:
        """Close now if no request has arrived; else after the answer that is under way."""
        if self._in_head:
            self.hang_up()

    # --- deadlines ------------------------------------------------------------------------------------------------

    def _expect(self, seconds: float, late: Callable[[Connection], None]) -> None:
        self.due = self.now() + seconds
        self._late = late

    def expire(self) -> None:
        """Called by the listener once `due` has passed."""
        self.due = math.inf
        self._late(self)

    def _head_late(self) -> None:
        if self._head_bytes:
            self._deliver(Refused(Reason.REQUEST_TIMEOUT, "Send the whole head of a request without pausing."))
        else:
            self.hang_up()

    def _body_late(self) -> None:
        self._break_body(Refused(Reason.REQUEST_TIMEOUT, "Send the whole body of a request without pausing."))

    def hang_up(self) -> None:
        """Close once what was written has reached the client."""
        self.force_close()
        self._expect(self._edge.limits.write_stall, Connection.abort)

    def abort(self) -> None:
        """Cut the connection by a reset: what was sent so far must not look like a clean end."""
        if not self._wire.is_closing():
            self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.force_close()
        self._wire.abort()

    def _leave(self) -> None:
        """Close, but let the answer reach a client that is still sending: a reset would overtake it."""
        if self._force_close or self._wire.is_closing():
            return
        self._close = True
        if self._half_closed or (not self._broken and self.body_is_whole()):
            self.hang_up()
            return
        if self._wire.can_write_eof():
            self._wire.write_eof()
        self._resume_transport_reading()
        self._expect(self._edge.limits.linger, Connection.hang_up)

    # --- reading --------------------------------------------------------------------------------------------------

    async def _next(self) -> Arrival | Refused | None:
        """The next request, what is wrong with it, or None when there is none to come."""
        self._in_head, self._head_bytes, self._head_tail = True, 0, b""
        pending, self._pending = self._pending, b""
        if pending:
            self._read_head(pending)
            if self._buffer_paused:
                self._resume_reading_for_buffer()
        if self._arrived is None and not self._force_close:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                if not self._force_close:
                    raise
            finally:
                self._waiter = None
        arrived, self._arrived = self._arrived, None
        return None if self._force_close else arrived

    def data_received(self, data: bytes) -> None:
        if self._close or self._force_close or self._broken:
            return
        if not data:
            self._parse(data)
        elif self._in_head:
            self._read_head(data)
        elif not self._framing.done:
            self._read_body(data)
        else:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep what was sent ahead of its turn; no more than a head of it."""
        self._pending += data
        if len(self._pending) > self._edge.limits.head.total and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _read_head(self, data: bytes) -> None:
        limits = self._edge.limits
        if not self._head_bytes:
            self._expect(limits.header, Connection._head_late)
        window = self._head_tail + data
        found = window.find(_END_OF_HEAD)
        cut = len(data) if found < 0 else found + 4 - len(self._head_tail)
        self._head_tail = window[-3:]
        self._head_bytes += cut
        if self._head_bytes > limits.head.total + limits.head.target:
            self._deliver(Refused(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.head.total} bytes of fields."))
            return
        messages = self._parse(data[:cut])
        if messages is None:
            return
        if (found >= 0) != (len(messages) == 1):
            self._deliver(Refused(Reason.MALFORMED_REQUEST, "Send one request head, ended by an empty line."))
        elif messages:
            self._admit(*messages[0])
            if cut < len(data) and not self._broken:
                self.data_received(data[cut:])

    def _parse(self, data: bytes) -> list[tuple[RawRequestMessage, StreamReader]] | None:
        """What the parser finds; None if the request is refused."""
        if self._parser is None:
            return None
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - whatever the parser raises, what it read is no request
            self._deliver(_parser_refusal(error, self._edge.limits.head))
            return None
        return list(messages)

    def _admit(self, message: RawRequestMessage, payload: StreamReader) -> None:
        limits = self._edge.limits
        try:
            head = admit(message.method, message.path, message.version, message.raw_headers, limits.head)
        except Refused as refused:
            self._deliver(refused)
            return
        self._payload = payload
        self._framing = Chunked() if head.length is None else Sized(head.length)
        body = RequestBody(self, payload, head, limits) if head.has_body else None
        self._deliver(Arrival(message, head, body))

    def _read_body(self, data: bytes) -> None:
        try:
            cut = self._framing.take(data)
        except Refused as refused:
            self._break_body(refused)
            return
        messages = self._parse(data[:cut])
        parser_goes_on = self._framing.done and not self._payload.is_eof() and not self._reading_paused
        if messages or parser_goes_on:
            self._break_body(_BROKE_OFF)
        if cut < len(data) and not self._broken:
            self._hold(data[cut:])

    def _deliver(self, arrived: Arrival | Refused) -> None:
        """Hand over to the task. Once something was refused, nothing that follows is trusted."""
        self.due = math.inf
        if isinstance(arrived, Refused):
            self._broken = True
            if not self._in_head:
                self._break_body(arrived)
                return
        self._in_head = False
        self._arrived = arrived
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break_body(self, refused: Refused | None = None) -> None:
        if self._in_head or (refused is None and self.body_is_whole()):
            return
        self._broken = True
        if self._payload is not EMPTY_PAYLOAD and not self._payload.is_eof():
            self._payload.set_exception(refused or _BROKE_OFF)

    def ask_for_body(self) -> None:
        if not self._payload.total_bytes and not self._wire.is_closing():
            self._wire.write(_CONTINUE)

    def await_body(self, seconds: float) -> None:
        self._expect(seconds, Connection._body_late)

    def body_came(self) -> None:
        self.due = math.inf

    def body_is_whole(self) -> bool:
        """Do both readers say so, of the same number of bytes?"""
        framing, payload = self._framing, self._payload
        return framing.done and payload.is_eof() and framing.total == payload.total_bytes

    def now(self) -> float:
        return self._edge.ports.clock.monotonic()

    # --- answering ------------------------------------------------------------------------------------------------

    async def send(self, method: str, response: Response, *, close: bool, http_1_0: bool = False) -> bool:
        """Write the answer; False if not all of it was taken over by the transport. Reads and closes its stream."""
        stream = response.stream
        close = close or self._broken or self._half_closed or self._edge.draining or not self.body_is_whole()
        if has_no_body(method, response.status):
            length = (len(response.body) or None) if method == "HEAD" and stream is None else None
            sent = await self._write(response_head(response.status, response.headers, length=length, close=close))
            if stream is not None:
                await stream.aclose()
        elif stream is None:
            head = response_head(response.status, response.headers, length=len(response.body), close=close)
            sent = await self._write(head + response.body)
        else:
            close = close or http_1_0
            sent = await self._stream(response, close=close, http_1_0=http_1_0)
        self._close = self._close or close or not sent
        if not self._close:
            self._expect(self._edge.limits.idle, Connection.hang_up)
        return sent

    async def _stream(self, response: Response, *, close: bool, http_1_0: bool) -> bool:
        stream = response.stream
        assert stream is not None
        length = None if response.body else stream.length
        chunked = length is None and not http_1_0
        head = response_head(response.status, response.headers, length=length, chunked=chunked, close=close)
        whole = False
        try:
            taken = await self._write(head + (_chunk(response.body) if chunked else response.body))
            left = length
            async for piece in stream:
                left = None if left is None else left - len(piece)
                if not taken or (left is not None and left < 0):
                    break
                taken = await self._write(_chunk(piece) if chunked else piece)
            else:
                whole = taken and not left
            if whole and chunked:
                whole = await self._write(b"0\r\n\r\n")
        except Exception:  # noqa: BLE001 - the head is gone; a broken stream can only be shown by cutting the connection
            whole = False
        finally:
            await stream.aclose()
            if not whole:
                self.abort()
        return whole

    async def _write(self, data: bytes) -> bool:
        if self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(data)
        if not self._paused:
            return True
        self._expect(self._edge.limits.write_stall, Connection.abort)
        try:
            await self._drain_helper()
        except ConnectionError:
            return False
        self.due = math.inf
        return self.transport is not None


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _parser_refusal(error: Exception, limits: HeadLimits) -> Refused:
    """The parser's own words quote the request, so they are dropped."""
    if isinstance(error, LineTooLong):
        if error.args[1] == limits.target:
            return Refused(Reason.TARGET_TOO_LONG, f"Send a target of at most {limits.target} bytes.")
        return Refused(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.field} bytes in one header field.")
    if isinstance(error, InvalidURLError):
        return Refused(Reason.TARGET_NOT_CANONICAL, "Send the target in origin form (RFC 9112 section 3.2.1).")
    said = str(getattr(error, "message", ""))
    if said.startswith("Too many headers"):
        return Refused(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.fields} header fields.")
    if said.startswith(("Missing 'Host'", "Duplicate 'Host'")):
        return Refused(Reason.HOST_INVALID, "Send exactly one Host field.")
    return Refused(Reason.MALFORMED_REQUEST, "Send well-formed HTTP/1.1 (RFC 9112).")
