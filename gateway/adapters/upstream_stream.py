"""The body of an upstream's response, as far as it is not read: with back-pressure, and a word on how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gateway.ports import UpstreamError
from gateway.pure.pieces import keep

HIGH_WATER = 64 * 1024
"""Bytes that wait to be read, beyond which no more is read from the connection."""
LOW_WATER = 16 * 1024


class Source(Protocol):
    """The connection that a body comes from."""

    def resume_reading(self) -> None:
        """There is room again for more of the response."""
        ...

    def abort(self) -> None: ...


class ResponseStream:
    """Implements `ports.BodyStream`. Its connection reads on only while little of it waits here."""

    __slots__ = ("_error", "_failed", "_on_end", "_pieces", "_reader", "_source", "buffered", "length")

    def __init__(self, source: Source, length: int | None) -> None:
        self.length = length
        self.buffered = 0
        self._pieces: deque[bytes] = deque()
        self._source: Source | None = source
        self._reader: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._failed = False
        self._on_end: Callable[[bool], None] | None = None

    def watch(self, on_end: Callable[[bool], None]) -> None:
        """Have it called once, when the body has ended: with True if it broke off by the upstream's fault."""
        if self._source is None:
            on_end(self._failed)
        else:
            self._on_end = on_end

    def push(self, piece: bytes) -> None:
        if piece:
            keep(self._pieces, piece)
            self.buffered += len(piece)
            self._wake()

    def finish(self, error: UpstreamError | None = None, *, failed: bool = False) -> None:
        """No more will come: the body is complete, or broke off with `error`; `failed` if the upstream is to blame.

        What a client did not take in time it does not get: nothing is kept for it.
        """
        self._source = None
        self._error = error
        if error is not None and not failed:
            self._pieces.clear()
            self.buffered = 0
        self._failed = failed
        if self._on_end is not None:
            self._on_end(failed)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise self._error.anew()
            if self._source is None:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        piece = self._pieces.popleft()
        self.buffered -= len(piece)
        if self._source is not None and self.buffered <= LOW_WATER:
            self._source.resume_reading()
        return piece

    async def aclose(self) -> None:
        self._pieces.clear()
        if self._source is not None:
            self._source.abort()
