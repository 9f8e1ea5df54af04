"""A keyed hash that is set up once is the HMAC that everybody else computes."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.macs import Mac


@given(key=st.binary(max_size=200), messages=st.lists(st.binary(max_size=200), min_size=1))
def test_each_message_has_the_hmac_of_rfc_2104(key: bytes, messages: list[bytes]) -> None:
    mac = Mac(key)
    assert [mac.digest(message) for message in messages] == [hmac.digest(key, each, "sha256") for each in messages]


def test_it_is_that_of_rfc_4231() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert Mac(b"Jefe").digest(b"what do ya want for nothing?").hex() == expected


def test_no_key_is_shown() -> None:
    assert b"secret of thirty-two bytes, all" not in repr(Mac(b"secret of thirty-two bytes, all")).encode()
