from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.redaction import redact

CARDS = ["4242424242424242", "4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("frame", ["{}", "card {} declined", "a{}b", "number={};", "é{}é", "1 {}", "{} 12/34"])
def test_a_card_number_is_hidden_wherever_it_stands(card: str, frame: str) -> None:
    assert redact(frame.format(card)) == frame.format("*" * len(card))


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "3782 822463 10005",
        "4242.4242.4242.4242",
        "4242 - 4242+4242  4242",
    ],
)
def test_a_card_number_in_groups_is_hidden(text: str) -> None:
    assert not any(character.isdigit() for character in redact(f"card {text}!"))


@pytest.mark.parametrize(
    "text", ["%34242424242424242", "4242%204242%204242%204242", "\\u0034242424242424242", "&#52;242424242424242"]
)
def test_a_text_with_an_escaped_card_number_is_left_out(text: str) -> None:
    assert redact(f"GET /{text}") == "[left out: it may hold a card number]"
    assert redact(f"{text} 4111111111111111") == "[left out: it may hold a card number]"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "x", "user:"])
def test_a_text_with_a_card_number_in_base64_is_left_out(encode: Callable[[bytes], bytes], before: str) -> None:
    credential = encode(f"{before}4242424242424242".encode()).decode()
    assert redact(f"Basic {credential}") == "[left out: it may hold a card number]"


@pytest.mark.parametrize(
    "text", ["\ud800 sub-17", "\ud800 3f2a9c1e-77aa-4b1c-9d2e-0123456789ab", "a1b2c3d4e5f6a7b8c9d0e1f2"]
)
def test_what_is_looked_at_twice_is_as_it_was(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", ["/caf%C3%A9/order%2017", "100 % of 1763920576124", "\\u00e9\\u00e9 pay_17"])
def test_escapes_alone_hide_nothing(text: str) -> None:
    assert redact(text) == text


def test_numbers_beside_a_card_number_do_not_shield_it() -> None:
    assert redact("2027-01-15 4242424242424242 200") == "2027-01-15 **************** 200"
    assert redact("4242424242424242 5555555555554444") == "**************** ****************"


@pytest.mark.parametrize(
    "text",
    ["", "200", "4242424242424243", "2027-01-15T08:00:00Z", "127.0.0.1:8443", "42424242424", "4" * 30, "status 402"],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(alphabet="0123456789 -x"))
def test_only_digits_are_touched_and_none_moves(text: str) -> None:
    redacted = redact(text)

    assert len(redacted) == len(text)
    assert all(new == old or (new == "*" and old.isdigit()) for old, new in zip(text, redacted, strict=True))


@given(st.text(alphabet="ab =", max_size=9), st.sampled_from(CARDS), st.text(alphabet="ab =", max_size=9))
def test_a_card_number_among_letters_is_always_hidden(before: str, card: str, after: str) -> None:
    assert card not in redact(before + card + after)


def test_a_long_text_takes_no_more_than_its_share_of_time() -> None:
    assert redact("1 " * 20_000) == "1 " * 20_000
