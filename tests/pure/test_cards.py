"""What a card number and a security code look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.cards import expiry, luhn_valid, mask, pan_digits

TEST_CARDS = [
    "4242424242424242",
    "4111111111111111",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "3566002020360505",
    "4222222222222",
    "6205500000000000004",
]


@pytest.mark.parametrize("number", TEST_CARDS)
def test_published_test_cards_are_card_numbers(number: str) -> None:
    assert pan_digits(number) == number
    assert luhn_valid(number)


@given(digits=st.from_regex(r"[0-9]{12,19}", fullmatch=True), at=st.integers(0, 11), by=st.integers(1, 9))
def test_luhn_sees_every_change_of_one_digit(digits: str, at: int, by: int) -> None:
    changed = digits[:at] + str((int(digits[at]) + by) % 10) + digits[at + 1 :]
    assert not (luhn_valid(digits) and luhn_valid(changed))


@given(digits=st.from_regex(r"[0-9]{11,18}", fullmatch=True))
def test_exactly_one_check_digit_fits(digits: str) -> None:
    assert sum(luhn_valid(digits + str(check)) for check in range(10)) == 1


@pytest.mark.parametrize("text", ["4242 4242 4242 4242", "4242-4242-4242-4242", "4 2424242424242 42-4"])
def test_single_separators_between_groups_are_left_out(text: str) -> None:
    assert pan_digits(text) == "".join(filter(str.isdigit, text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42424242424",
        "42424242424242424242",
        " 4242424242424242",
        "4242424242424242 ",
        "4242  4242 4242 4242",
        "4242 -4242 4242 4242",
        "4242.4242.4242.4242",
        "4242\u200b424242424242",
        "4242\u00a04242 4242 4242",
        "4242424242424242\n",
        "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
        "４２４２４２４２４２４２４２４２",
        "4242424242424242.0",
        "-4242424242424242",
        "4.242424242424242e15",
    ],
)
def test_other_texts_are_no_card_numbers(text: str) -> None:
    assert pan_digits(text) is None


def test_a_mask_shows_first_six_and_last_four() -> None:
    assert mask("4242424242424242") == "424242******4242"
    assert mask("378282246310005") == "378282*****0005"


@given(st.integers(1, 12), st.integers(0, 99))
def test_an_expiry_is_the_same_in_every_spelling(month: int, year: int) -> None:
    spelled = [f"{month:02}/{year:02}", f"{month:02} / {year:02}", f"{month:02}{year:02}"]
    spelled += [f"{month:02}/20{year:02}", f"20{year:02}-{month:02}"]
    apart = [(str(month), f"20{year:02}"), (f"{month:02}", f"{year:02}")]
    assert {expiry(*texts) for texts in [*zip(spelled, strict=True), *apart]} == {f"20{year:02}-{month:02}"}


@pytest.mark.parametrize(
    "text", ["", "00/30", "13/30", "1/30", "130", "12/1999", "2030-13", "12-30", "12/30 ", "1\n30\n"]
)
def test_what_is_no_expiry_is_none(text: str) -> None:
    assert expiry(text) is None
