"""Bodies of requests: where they end, and what is in them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.framing import Chunked, Framing, Sized

LIMIT = 1 << 20


def feed(framing: Framing, *pieces: bytes) -> tuple[bytes, int]:
    """The content of the pieces, and how many of their bytes belong to the body."""
    content, total = b"", 0
    for piece in pieces:
        found, taken = framing.take(piece)
        content += found
        total += taken
        if taken < len(piece):
            assert framing.done
            break
    return content, total


def test_a_sized_body_takes_its_length_and_no_more() -> None:
    framing = Sized(5)
    assert feed(framing, b"hel", b"loGET / HTTP/1.1") == (b"hello", 5)
    assert framing.done
    assert Sized(0).done


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=30), max_size=8),
    rest=st.binary(max_size=10),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_a_chunked_body_ends_at_the_same_byte_however_it_is_cut(
    chunks: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    body = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    wire = body + rest
    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    framing = Chunked(LIMIT)
    pieces = [wire[a:b] for a, b in pairwise(places)]
    assert feed(framing, *pieces) == (b"".join(chunks), len(body))
    assert framing.done


def test_leading_zeros_of_a_size_are_zeros() -> None:
    framing = Chunked(LIMIT)
    assert framing.take(b"00002\r\n{}\r\n0\r\n\r\n") == (b"{}", 16)
    assert framing.done


@pytest.mark.parametrize(
    "wire",
    [
        b"2;a=b\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b" 2\r\n{}",
        b"0x2\r\n{}",
        b"-2\r\n{}",
        b"+2\r\n{}",
        b"2\n{}\n0\n\n",
        b"2\r{}\r\n",
        b"\r\n{}",
        b"000000002\r\n{}",
        b"2\r\n{}0\r\n\r\n",
        b"2\r\n{}\n0\r\n\r\n",
        b"0\r\nHost: evil\r\n\r\n",
        b"0\r\n\n",
        b"0\r\nX: y\r\n\r\n",
        b"2\r\n{}x\r\n0\r\n\r\n",
        b"g\r\n",
        b"aaaaaaaaaaaaaaaa",
    ],
)
def test_what_other_readers_may_read_otherwise_is_refused(wire: bytes) -> None:
    with pytest.raises(Refused):
        Chunked(LIMIT).take(wire)
    with pytest.raises(Refused):
        feed(Chunked(LIMIT), *(bytes([byte]) for byte in wire))


def test_a_body_in_very_small_chunks_is_refused_before_it_costs_much() -> None:
    with pytest.raises(Refused):
        Chunked(LIMIT).take(b"1\r\nx\r\n" * 2000)
    Chunked(LIMIT).take(b"40\r\n" + b"x" * 64 + b"\r\n")


@pytest.mark.parametrize("wire", [b"100001\r\n", b"ffffffff\r\n", b"80000\r\n" + b"x" * 0x80000 + b"\r\n80001\r\n"])
def test_a_chunk_too_large_is_refused_by_its_size_before_any_of_it_came(wire: bytes) -> None:
    with pytest.raises(Refused) as raised:
        Chunked(LIMIT).take(wire)
    assert raised.value.reason is Reason.BODY_TOO_LARGE
