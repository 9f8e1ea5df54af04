"""The body of a request as it arrives from a client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gateway.pure.errors import Reason, Refused
from gateway.pure.framing import Chunked, Framing, Sized
from gateway.pure.pieces import keep
from gateway.pure.request_reader import Head
from gateway.server.edge import Limits

HIGH_WATER = 128 * 1024
"""Bytes that wait to be read, from which on the client is not read any further."""
_LOW_WATER = 32 * 1024
_BROKE_OFF = Reason.MALFORMED_REQUEST, "Send the body to its end, as it was declared."


class Sender(Protocol):
    """The client's side of a body."""

    def ask_for_body(self) -> None:
        """Tell a client that waits for it to go on (100 Continue)."""
        ...

    def await_body(self, seconds: float) -> None:
        """From now on the client is late after so many seconds: the body is broken off then."""
        ...

    def body_came(self) -> None: ...
    def resume_reading(self) -> None: ...


class RequestBody:
    """An `IncomingBody`. The first read asks the client for it; only time spent waiting for the client counts."""

    __slots__ = (
        "_asks",
        "_broken_off",
        "_framing",
        "_limits",
        "_now",
        "_pieces",
        "_received",
        "_sender",
        "_waited",
        "_waiter",
        "buffered",
        "length",
    )

    def __init__(self, sender: Sender, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        self.length = head.length
        self.buffered = 0
        """Bytes that have arrived and wait to be read."""
        self._framing: Framing = Chunked(limits.body) if head.length is None else Sized(head.length)
        self._sender = sender
        self._limits = limits
        self._now = now
        self._asks = head.expects_continue
        self._pieces: deque[bytes] = deque()
        self._received = 0
        self._broken_off: tuple[Reason, str] | None = None
        """Why. Not an exception: one that is kept keeps the frames it was raised in, and with them this request."""
        self._waiter: asyncio.Future[None] | None = None
        self._waited = 0.0

    # --- what the connection does

    def take(self, data: bytes) -> int:
        """Take what belongs to the body; how many bytes that are. Raises `Refused`."""
        content, taken = self._framing.take(data)
        if content:
            keep(self._pieces, content)
            self.buffered += len(content)
            self._asks = False
        if content or self._framing.done:
            self._wake()
        return taken

    def break_off(self, why: tuple[Reason, str] = _BROKE_OFF) -> None:
        """No more of it will come: who reads on gets a `Refused` of that. A body that is whole stays whole."""
        if not self._framing.done and self._broken_off is None:
            self._broken_off = why
            self._wake()

    @property
    def is_whole(self) -> bool:
        """Has all of it arrived, read or not?"""
        return self._framing.done

    @property
    def is_awaited(self) -> bool:
        """Does somebody wait for the client to send more?"""
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._sender.body_came()
            self._waiter.set_result(None)

    # --- what the exchange does

    def ready(self) -> bytes | None:
        if not self._framing.done or self._received:
            return None
        pieces = self._pieces
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        self._received = len(whole)
        self._bound(self._received)
        return whole

    async def gather(self) -> None:
        self._begin()
        await self._wait(HIGH_WATER + 1)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._begin()
        if not self._pieces and not self._framing.done:
            await self._wait(1)
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        self.buffered -= len(piece)
        self._received += len(piece)
        self._bound(self._received)
        if self.buffered <= _LOW_WATER:
            self._sender.resume_reading()
        return piece

    async def aclose(self) -> None:
        """What was not read is thrown away with the connection."""

    def _begin(self) -> None:
        self._bound(self.length or 0)
        if self._asks:
            self._asks = False
            self._sender.ask_for_body()

    def _bound(self, size: int) -> None:
        if size > self._limits.body:
            raise Refused(Reason.BODY_TOO_LARGE, f"Send at most {self._limits.body} bytes.")

    async def _wait(self, enough: int) -> None:
        """Until so many bytes wait to be read, or all have come."""
        sender, limits = self._sender, self._limits
        try:
            while self.buffered < enough and not self._framing.done:
                if self._broken_off is not None:
                    raise Refused(*self._broken_off)
                began = self._now()
                patience = limits.body_time + (self._received + self.buffered) / limits.body_rate - self._waited
                sender.await_body(min(patience, limits.body_stall))
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
                self._waited += self._now() - began
        finally:
            self._waiter = None
            sender.body_came()
