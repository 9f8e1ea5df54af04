from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.currencies import AMOUNT_MAX, EXPONENTS, BadAmount, Unit, parse_amount, parse_currency


@pytest.mark.parametrize(("code", "exponent"), [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0), ("MGA", 2)])
def test_exponents_are_those_of_the_standard(code: str, exponent: int) -> None:
    assert EXPONENTS[code] == exponent


def test_codes_are_three_capitals_and_each_stands_once() -> None:
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in EXPONENTS)
    assert len(EXPONENTS) == 17 + 145 + 7 + 2


@pytest.mark.parametrize(
    ("value", "code"),
    [("EUR", "EUR"), ("eur", "EUR"), ("EURO", None), ("XXX", None), ("", None), (978, None), (None, None), ("ﬀ", None)],
)
def test_a_currency_is_a_code_of_the_standard(value: object, code: str | None) -> None:
    assert parse_currency(value) == (code or BadAmount.CURRENCY_UNKNOWN)


@pytest.mark.parametrize(
    ("value", "currency", "unit", "amount"),
    [
        (1050, "EUR", "minor", 1050),
        ("1050", "EUR", "minor", 1050),
        (0, "EUR", "minor", 0),
        (AMOUNT_MAX, "EUR", "minor", AMOUNT_MAX),
        ("10.5", "EUR", "major", 1050),
        ("10.500", "EUR", "major", 1050),
        ("10", "EUR", "major", 1000),
        (10, "EUR", "major", 1000),
        ("10", "JPY", "major", 10),
        ("10.0", "JPY", "major", 10),
        ("0.001", "KWD", "major", 1),
        ("0.07", "EUR", "major", 7),
    ],
)
def test_an_amount_is_read_exactly(value: object, currency: str, unit: Unit, amount: int) -> None:
    assert parse_amount(value, currency, unit) == amount


@pytest.mark.parametrize(
    ("value", "currency", "unit", "bad"),
    [
        (None, "EUR", "minor", BadAmount.MISSING),
        (-1, "EUR", "minor", BadAmount.NEGATIVE),
        ("-1", "EUR", "minor", BadAmount.NEGATIVE),
        ("-0.5", "EUR", "major", BadAmount.NEGATIVE),
        (10.0, "EUR", "minor", BadAmount.FRACTIONAL),
        (10.5, "EUR", "major", BadAmount.FRACTIONAL),
        (float("nan"), "EUR", "minor", BadAmount.FRACTIONAL),
        ("10.5", "EUR", "minor", BadAmount.FRACTIONAL),
        ("10.0", "EUR", "minor", BadAmount.FRACTIONAL),
        ("10.505", "EUR", "major", BadAmount.FRACTIONAL),
        ("10.5", "JPY", "major", BadAmount.FRACTIONAL),
        (AMOUNT_MAX + 1, "EUR", "minor", BadAmount.TOO_LARGE),
        (AMOUNT_MAX, "EUR", "major", BadAmount.TOO_LARGE),
        ("9" * 31, "EUR", "minor", BadAmount.TOO_LARGE),
        ("9" * 5000, "EUR", "minor", BadAmount.NOT_A_NUMBER),
        (True, "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("1e3", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        (" 10", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("10\n", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("+10", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("010", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("1,000", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ("\N{ARABIC-INDIC DIGIT ONE}", "EUR", "minor", BadAmount.NOT_A_NUMBER),
        ([10], "EUR", "minor", BadAmount.NOT_A_NUMBER),
        (10, "EURO", "minor", BadAmount.CURRENCY_UNKNOWN),
    ],
)
def test_what_is_no_amount_is_told_why(value: object, currency: str, unit: Unit, bad: BadAmount) -> None:
    assert parse_amount(value, currency, unit) is bad


@given(st.integers(0, AMOUNT_MAX), st.sampled_from(sorted(EXPONENTS)))
def test_an_amount_in_major_units_comes_back_as_it_was(amount: int, currency: str) -> None:
    text = f"{Decimal(amount).scaleb(-EXPONENTS[currency]):f}"
    assert parse_amount(text, currency, "major") == amount
