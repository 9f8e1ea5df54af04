"""Bytes that wait, as they came: what holds them takes about as much room as they do, however small the pieces were."""

from __future__ import annotations

from collections import deque
from typing import Final

_SMALL: Final = 4096


def keep(pieces: deque[bytes], piece: bytes) -> None:
    """Append a piece, to the last one while that is small: an object for every few bytes takes many times their room.

    No piece is empty.
    """
    if pieces and len(pieces[-1]) < _SMALL:
        pieces[-1] += piece
    else:
        pieces.append(piece)
