"""A content coding is taken off whole and within bounds, or not at all."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.content_coding import decode

CODERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@given(coding=st.sampled_from(sorted(CODERS)), content=st.binary(max_size=2000))
def test_what_was_encoded_comes_back(coding: str, content: bytes) -> None:
    assert decode(coding, CODERS[coding](content), 2000) == content


@pytest.mark.parametrize("coding", CODERS)
def test_no_more_is_made_than_may_be(coding: str) -> None:
    bomb = CODERS[coding](bytes(10_000_000))
    with pytest.raises(ValueError, match="too large"):
        decode(coding, bomb, 1000)
    assert decode(coding, CODERS[coding](bytes(1000)), 1000) == bytes(1000)


def test_identity_is_no_coding() -> None:
    assert decode("identity", b"a", 0) == b"a"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "", "GZIP"])
def test_another_coding_is_none(coding: str) -> None:
    with pytest.raises(ValueError, match="not known"):
        decode(coding, gzip.compress(b"a"), 10)


@pytest.mark.parametrize("coding", CODERS)
def test_what_breaks_off_or_goes_on_is_refused(coding: str) -> None:
    whole = CODERS[coding](b"content that is there")
    other = CODERS["gzip" if coding == "deflate" else "deflate"](b"a")
    raw = zlib.compressobj(wbits=-15)
    for body in (whole[:-1], whole + b"\0", whole + whole, other, b"{}", raw.compress(b"a") + raw.flush()):
        with pytest.raises(ValueError):
            decode(coding, body, 1000)
