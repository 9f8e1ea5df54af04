"""Where a request's body ends, and what is in it.

This reader takes less than RFC 9112 allows: what two readers could understand differently is what request smuggling
is made of.
"""

from __future__ import annotations

import re
from typing import NoReturn, Protocol

from gateway.pure.errors import Reason, Refused

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_LINE_MAX = 10
_FREE_CHUNKS = 1024
_CHUNK_BYTES_MIN = 64


class Framing(Protocol):
    """The body of one request as it arrives."""

    done: bool

    def take(self, data: bytes) -> tuple[bytes, int]:
        """The content in `data`, and how many of its bytes belong to the body. Raises `Refused`."""
        ...


class Sized:
    """A body of `length` bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes) -> tuple[bytes, int]:
        left, size = self._left, len(data)
        if size < left:
            self._left = left - size
            return data, size
        self._left = 0
        self.done = True
        return (data if size == left else data[:left]), left


class Chunked:
    """A chunked body (RFC 9112 section 7.1) without extensions and without trailers, in chunks of sensible size.

    A chunk that would take it beyond `limit` bytes is refused by its size, before any of it came.
    """

    __slots__ = ("_chunks", "_expects", "_left", "_limit", "_line", "_total", "done")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._expects = "size"
        self._line = b""
        self._left = 0
        self._chunks = 0
        self._total = 0
        self.done = False

    def take(self, data: bytes) -> tuple[bytes, int]:
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
            else:
                at = self._read_line(data, at, end)
        return b"".join(pieces), at

    def _read_line(self, data: bytes, at: int, end: int) -> int:
        found = data.find(b"\n", at, at + _LINE_MAX)
        stop = found + 1 if found >= 0 else min(end, at + _LINE_MAX)
        self._line += data[at:stop]
        if len(self._line) > _LINE_MAX or (found < 0 and len(self._line) == _LINE_MAX):
            _malformed()
        if found >= 0:
            if not self._line.endswith(b"\r\n"):
                _malformed()
            self._end_line(self._line[:-2])
            self._line = b""
        return stop

    def _end_line(self, line: bytes) -> None:
        if self._expects != "size":
            if line:
                _malformed()
            self.done = self._expects == "end"
            self._expects = "size"
            return
        if _SIZE.fullmatch(line) is None:
            _malformed()
        self._left = int(line, 16)
        self._expects = "separator" if self._left else "end"
        self._chunks += 1
        self._total += self._left
        if self._total > self._limit:
            raise Refused(Reason.BODY_TOO_LARGE, f"Send at most {self._limit} bytes.")
        if self._chunks > _FREE_CHUNKS + self._total // _CHUNK_BYTES_MIN:
            raise Refused(Reason.MALFORMED_REQUEST, f"Send chunks of at least {_CHUNK_BYTES_MIN} bytes.")


def _malformed() -> NoReturn:
    raise Refused(Reason.MALFORMED_REQUEST, "Send chunks by their size alone, without extensions and trailers.")
