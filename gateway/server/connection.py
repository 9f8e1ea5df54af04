"""One client connection: bytes to requests, answers to bytes, and a deadline on every wait.

Requests are read one at a time (`gateway.pure.request_reader`, `gateway.pure.framing`); what a client sends ahead stays
unread until its turn. Nothing here is cancelled when the client hangs up: an exchange runs to its end in the
connection's own task.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import cast

from gateway.exchange import UNNAMED, Peer
from gateway.ports import Response
from gateway.pure.errors import Reason, Refused
from gateway.pure.http import chunk, has_no_body, response_head
from gateway.pure.request_reader import check_unfinished, read_head
from gateway.server.edge import Arrival, Connections, Edge
from gateway.server.request_body import HIGH_WATER, RequestBody

_FIRST_REQUEST = 1.0
"""Seconds that a connection without a request so far is kept by a listener that drains."""
_RESET = struct.pack("ii", 1, 0)
_END_OF_HEAD = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODY_LATE = Reason.REQUEST_TIMEOUT, "Send the whole body of a request without pausing."


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one connection. It is in one of three states:

    reading a head (`_exchanging` False); serving a request whose body is still arriving; serving one that is whole.
    """

    __slots__ = (
        "_arrived", "_body", "_broken", "_drained", "_edge", "_ending", "_exchanging", "_half_closed", "_late",
        "_loop", "_lost", "_others", "_pending", "_read_paused", "_told", "_waiter", "_wire", "due", "failures",
        "listener", "peer", "scheme",
    )  # fmt: skip

    def __init__(
        self, edge: Edge, others: Connections, loop: asyncio.AbstractEventLoop, told: str | None = None
    ) -> None:
        """`told` is the client's address if a balancer told it."""
        self._edge = edge
        self._told = told
        self._others = others
        self._loop = loop
        self._wire: asyncio.Transport
        self.peer: Peer
        self.listener, self.scheme, self.failures = edge.listener, edge.scheme, edge.failures
        self.due = math.inf
        """When the client is late, by the monotonic clock."""
        self._late: Callable[[Connection], None] = Connection.hang_up
        """Not bound: that would tie the connection to itself, and leave its TLS state to the cycle collector."""
        self._arrived: Arrival | Refused | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._pending = bytearray()
        """The beginning of a head; during an exchange, what was sent ahead."""
        self._body: RequestBody | None = None
        self._exchanging = False
        self._broken = False
        """What was received is no proper HTTP: nothing that follows is trusted."""
        self._ending = False
        """No further request is read."""
        self._half_closed = False
        self._lost = False
        self._read_paused = False

    # --- life -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self._wire.set_write_buffer_limits(high=1, low=0)  # 0 would pause a TLS transport that has nothing to write
        tls = transport.get_extra_info("ssl_object")
        peername = transport.get_extra_info("peername")
        self.peer = Peer(
            address=self._told or (peername[0] if isinstance(peername, tuple) else UNNAMED),
            certificate=tls.getpeercert(binary_form=True) if tls is not None else None,
            identity=self._edge.identity,
            server_name=tls.server_name and tls.server_name.lower() if tls is not None else None,
        )
        self._expect(self._edge.limits.header, Connection._head_late)
        self._loop.create_task(self._serve())
        self._others.opened(self)

    async def _serve(self) -> None:
        edge = self._edge
        while (arrival := await self._next()) is not None:
            edge.began()
            try:
                await edge.exchanges.serve(self, arrival)
            finally:
                edge.ended()
            if self._ending:
                break
            self._exchanging = False
        self._leave()

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002
        self._lost = self._ending = True
        self.due = math.inf
        if self._body is not None:
            self._body.break_off()
            self._body = None  # it refers to this connection
        self._wake()
        self.resume_writing()
        self._others.closed(self)

    def eof_received(self) -> bool:
        """A client that only stopped sending still gets its answer (TLS has no half-closed state)."""
        self._half_closed = True
        if self._body is not None:
            self._body.break_off()
        return self._exchanging and not self._ending and self.scheme == "http"

    def retire(self, grace: float = 0.0) -> None:
        """Close after the answer that is under way; if there is none, when no request has come for `grace` seconds.

        A new connection was made to ask something: it has a moment in any case.
        """
        if self._exchanging:
            return
        if self._late is Connection._head_late:
            grace = max(grace, _FIRST_REQUEST)
        if grace:
            self.due = min(self.due, self._edge.now() + grace)
        else:
            self.hang_up()

    # --- deadlines ------------------------------------------------------------------------------------------------

    def _expect(self, seconds: float, late: Callable[[Connection], None]) -> None:
        self.due = self._edge.now() + seconds
        self._late = late

    def expire(self) -> None:
        """Called by the listener once `due` has passed."""
        self.due = math.inf
        self._late(self)

    def _head_late(self) -> None:
        if self._pending:
            self._refuse(Refused(Reason.REQUEST_TIMEOUT, "Send the whole head of a request without pausing."))
        else:
            self.hang_up()

    def _body_late(self) -> None:
        assert self._body is not None
        self._broken = True
        self._body.break_off(_BODY_LATE)

    def dismiss(self, answer: bytes) -> None:
        """Answer before anything was asked, and close."""
        self._wire.write(answer)
        self.hang_up()

    def hang_up(self) -> None:
        """Close once what was written has reached the client."""
        self._ending = True
        self._wake()
        self._wire.close()
        if not self._lost:
            self._expect(self._edge.limits.write_stall, Connection.abort)

    def abort(self) -> None:
        """Cut the connection by a reset: what was sent so far must not look like a clean end."""
        self._ending = True
        self._wake()
        if not self._wire.is_closing():
            self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._wire.abort()

    def _leave(self) -> None:
        """Close, but let the answer reach a client that is still sending: a reset would overtake it."""
        self._ending = True
        if self._lost or self._wire.is_closing():
            return
        if self._half_closed or (not self._broken and self._is_whole()):
            self.hang_up()
            return
        if self._wire.can_write_eof():
            self._wire.write_eof()
        self._let_in()
        self._expect(self._edge.limits.linger, Connection.hang_up)

    # --- reading --------------------------------------------------------------------------------------------------

    async def _next(self) -> Arrival | Refused | None:
        """The next request, what is wrong with it, or None when there is none to come."""
        if self._pending and self._arrived is None:  # one may have arrived before this task began
            pending, self._pending = bytes(self._pending), bytearray()
            self._read_head(pending)
        if len(self._pending) <= self._edge.limits.head.total:
            self._let_in()
        if self._arrived is None and not self._ending:
            self._waiter = self._loop.create_future()
            await self._waiter
        arrived, self._arrived = self._arrived, None
        return None if self._ending else arrived

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._edge.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._edge.buffer[:nbytes]))

    def _received(self, data: bytes) -> None:
        if self._ending or self._broken:
            return
        if not self._exchanging:
            self._read_head(data)
        elif self._is_whole():
            self._hold(data)
        else:
            self._read_body(data)

    def _read_head(self, data: bytes) -> None:
        pending = self._pending
        if pending:
            seen = len(pending)
            pending += data
            end = pending.find(_END_OF_HEAD, max(0, seen - 3))
        else:
            seen, end = 0, data.find(_END_OF_HEAD)
        if end < 0:
            self._await_rest_of_head(data, seen)
            return
        if seen:
            data, self._pending = bytes(pending), bytearray()
        limits = self._edge.limits
        try:
            head = read_head(data[: end + 2], limits.head)
        except Refused as refused:
            self._refuse(refused)
            return
        self._body = None if head.length == 0 else RequestBody(self, head, limits, self._edge.now)
        self._deliver(Arrival(head, self._body))
        if len(data) > end + 4:
            self._received(data[end + 4 :])

    def _await_rest_of_head(self, data: bytes, seen: int) -> None:
        limits = self._edge.limits
        if not seen:
            self._pending += data
            self._expect(limits.header, Connection._head_late)
        try:
            check_unfinished(self._pending, seen, limits.head)
        except Refused as refused:
            self._refuse(refused)

    def _read_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        try:
            taken = body.take(data)
        except Refused as refused:
            self._broken = True
            body.break_off((refused.reason, refused.detail))
            return
        if body.buffered > HIGH_WATER:
            self._hold_back()
        if taken < len(data):
            self._hold(data[taken:])

    def _hold(self, data: bytes) -> None:
        """Keep what was sent ahead of its turn; no more than a head of it."""
        self._pending += data
        if len(self._pending) > self._edge.limits.head.total:
            self._hold_back()

    def _refuse(self, refused: Refused) -> None:
        self._broken = True
        self._pending.clear()
        self._deliver(refused)

    def _deliver(self, arrived: Arrival | Refused) -> None:
        """Hand over to the task."""
        self.due = math.inf
        self._exchanging = True
        self._arrived = arrived
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_whole(self) -> bool:
        """Has the request that is being served arrived to its end?"""
        return self._body is None or self._body.is_whole

    def _hold_back(self) -> None:
        if not self._read_paused and not self._wire.is_closing():
            self._read_paused = True
            self._wire.pause_reading()

    def _let_in(self) -> None:
        if self._read_paused and not self._wire.is_closing():
            self._read_paused = False
            self._wire.resume_reading()

    # --- what the body asks for (`request_body.Sender`)

    def ask_for_body(self) -> None:
        if not self._wire.is_closing():
            self._wire.write(_CONTINUE)

    def await_body(self, seconds: float) -> None:
        self._expect(seconds, Connection._body_late)

    def body_came(self) -> None:
        self.due = math.inf

    def resume_reading(self) -> None:
        if not self._pending:
            self._let_in()

    # --- answering ------------------------------------------------------------------------------------------------

    async def send(self, method: str, response: Response, *, close: bool, legacy: bool = False) -> bool:
        """Write the answer; False if not all of it was taken over by the transport. Reads and closes its stream."""
        stream = response.stream
        close = close or self._broken or self._half_closed or self._edge.draining or not self._is_whole()
        if has_no_body(method, response.status):
            length = (len(response.body) or None) if method == "HEAD" and stream is None else None
            sent = self._write(response_head(response.status, response.headers, length=length, close=close))
            if stream is not None:
                await stream.aclose()
        elif stream is None:
            head = response_head(response.status, response.headers, length=len(response.body), close=close)
            sent = self._write(head + response.body)
        else:
            close = close or legacy
            sent = await self._stream(response, close=close, legacy=legacy)
        if self._drained is not None:
            sent = await self._flushed()
        self._ending = self._ending or close or not sent
        if not self._ending:
            self._expect(self._edge.limits.idle, Connection.hang_up)
        return sent

    async def _stream(self, response: Response, *, close: bool, legacy: bool) -> bool:
        stream = response.stream
        assert stream is not None
        length = None if response.body else stream.length
        chunked = length is None and not legacy
        head = response_head(response.status, response.headers, length=length, chunked=chunked, close=close)
        whole = False
        try:
            taken = await self._pass_on(head + (chunk(response.body) if chunked else response.body))
            left = length
            async for piece in stream:
                left = None if left is None else left - len(piece)
                if not taken or (left is not None and left < 0):
                    break
                taken = await self._pass_on(chunk(piece) if chunked else piece)
            else:
                whole = taken and not left
            if whole and chunked:
                whole = await self._pass_on(b"0\r\n\r\n")
        except Exception:  # noqa: BLE001 - the head is gone; a broken stream can only be shown by cutting the connection
            whole = False
        finally:
            await stream.aclose()
            if not whole:
                self.abort()
        return whole

    def _write(self, data: bytes) -> bool:
        if self._lost or self._wire.is_closing():
            return False
        self._wire.write(data)
        return True

    async def _flushed(self) -> bool:
        """Wait until the client has read on; False if it has gone instead."""
        if self._drained is not None:
            self._expect(self._edge.limits.write_stall, Connection.abort)
            await self._drained
            self.due = math.inf
        return not self._lost

    async def _pass_on(self, data: bytes) -> bool:
        return self._write(data) and await self._flushed()

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
