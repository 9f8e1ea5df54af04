from __future__ import annotations

import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.pieces import keep


@pytest.mark.parametrize("size", [2, 3, 100, 5000])
def test_pieces_take_about_as_much_room_as_their_bytes(size: int) -> None:
    pieces: deque[bytes] = deque()
    for _ in range(128 * 1024 // size):
        keep(pieces, b"x" * size)
    assert sys.getsizeof(pieces) + sum(map(sys.getsizeof, pieces)) < 1.1 * 128 * 1024


@given(st.lists(st.binary(min_size=1, max_size=6000), max_size=8))
def test_nothing_is_lost_and_nothing_changes_places(pieces: list[bytes]) -> None:
    kept: deque[bytes] = deque()
    for piece in pieces:
        keep(kept, piece)
    assert b"".join(kept) == b"".join(pieces)
