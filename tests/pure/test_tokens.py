"""Tokens have exactly their format, and our own are known again."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.macs import Mac
from gateway.pure.tokens import (
    OPAQUE_BYTES,
    TokenClass,
    associated_data,
    class_of,
    fingerprint,
    opaque,
    opaque_class,
)

MAC = Mac(b"k" * 32)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

entropies = st.binary(min_size=OPAQUE_BYTES, max_size=OPAQUE_BYTES)
classes = st.sampled_from(["pan", "cvc", "track", "pin"])
environments = st.from_regex(r"[a-z0-9]{1,16}", fullmatch=True)


@given(token_class=classes, environment=environments, entropy=entropies)
def test_an_opaque_token_has_its_format_and_is_known_again(
    token_class: TokenClass, environment: str, entropy: bytes
) -> None:
    token = opaque(token_class, environment, entropy, MAC)
    prefix = {"pan": "tok", "cvc": "cvc", "track": "trk", "pin": "pin"}[token_class]
    assert re.fullmatch(rf"{prefix}_{environment}_[{BASE58}]{{26}}", token)
    assert opaque_class(token, MAC) == class_of(token) == token_class
    assert opaque_class(token, Mac(b"another tenant's key")) is None


@given(entropy=entropies, at=st.integers(0, 34), letter=st.sampled_from(BASE58 + "_"))
def test_a_mistyped_token_is_not_known(entropy: bytes, at: int, letter: str) -> None:
    token = opaque("pan", "live", entropy, MAC)
    changed = token[:at] + letter + token[at + 1 :]
    assert (opaque_class(changed, MAC) is None) == (changed != token)


def test_the_class_is_under_the_checksum() -> None:
    token = opaque("pan", "live", bytes(16), MAC)
    assert opaque_class("cvc" + token[3:], MAC) is None


@given(first=entropies, second=entropies)
def test_all_128_bits_are_in_an_opaque_token(first: bytes, second: bytes) -> None:
    assert (opaque("pan", "t", first, MAC) == opaque("pan", "t", second, MAC)) == (first == second)


@given(entropy=entropies)
def test_the_random_digits_are_base58_of_the_random_bytes(entropy: bytes) -> None:
    digits = opaque("pan", "live", entropy, MAC)[9:31]
    assert sum(BASE58.index(digit) * 58**place for place, digit in enumerate(reversed(digits))) == int.from_bytes(
        entropy
    )


@given(text=st.text(max_size=40))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert opaque_class(text, MAC) is None


def test_a_fingerprint_needs_the_key_and_the_whole_number() -> None:
    prints = {fingerprint(pan, mac) for pan in ("4242424242424242", "4111111111111111") for mac in (MAC, Mac(b"other"))}
    assert len(prints) == 4
    assert all(len(each) == 32 for each in prints)


@given(a=st.tuples(st.text(), st.text(), classes), b=st.tuples(st.text(), st.text(), classes))
def test_associated_data_differs_wherever_a_part_differs(
    a: tuple[str, str, TokenClass], b: tuple[str, str, TokenClass]
) -> None:
    assert (associated_data(*a) == associated_data(*b)) == (a == b)


def test_associated_data_keeps_its_parts_apart() -> None:
    assert associated_data("a", "bc", "pan") != associated_data("ab", "c", "pan")
