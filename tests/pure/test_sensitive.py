"""What sensitive authentication data looks like."""

from __future__ import annotations

import pytest

from gateway.pure.sensitive import is_sensitive, looks_like


@pytest.mark.parametrize(
    ("token_class", "text", "fits"),
    [
        ("cvc", "123", True),
        ("cvc", "0000", True),
        ("cvc", "12", False),
        ("cvc", "12345", False),
        ("cvc", "", False),
        ("cvc", "１２３", False),
        ("track", "%B4242424242424242^DOE/JANE^30121011000000123000000?", True),
        ("track", "B4242424242424242^DOE/JANE^30121011000000123000000", True),
        ("track", ";4242424242424242=30121011234567890?", True),
        ("track", ";4242424242424242=30121011234567890?5", True),
        ("track", "4242424242424242D30121011234567890F", True),
        ("track", "4242424242424242", False),
        ("track", "%B42^DOE/JANE^3012101?", False),
        ("track", "", False),
        ("pin", "1234", True),
        ("pin", "123456789012", True),
        ("pin", "0412AC89ABCDEF67", True),
        ("pin", "ab" * 16, True),
        ("pin", "123", False),
        ("pin", "12345678901G3456", False),
        ("pin", "1234 ", False),
    ],
)
def test_a_value_is_told_by_its_form(token_class: str, text: str, fits: bool) -> None:
    assert looks_like(token_class, text) is fits
    assert not looks_like(token_class, text + "\n\n")


def test_a_card_number_is_none_of_them() -> None:
    assert [name for name in ("pan", "cvc", "track", "pin") if is_sensitive(name)] == ["cvc", "track", "pin"]
