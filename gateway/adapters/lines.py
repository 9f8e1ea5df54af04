"""A file to which several processes write lines, none of them torn apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from select import PIPE_BUF


class WholeLines:
    """Writes whole lines, as many at once as the kernel keeps together in a pipe (PIPE_BUF, pipe(7)).

    A single line that is longer may be mixed with others.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, /) -> None:
        """Raises OSError."""
        for piece in pieces(data, PIPE_BUF):
            rest = piece
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        """Nothing is held back."""


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The lines of `data`, in pieces of at most `size` bytes, or of one line."""
    start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= size else data.rfind(b"\n", start, start + size) + 1
        if end == 0:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
