"""A merchant's name is kept in clear: no card number may be in it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.merchants import LONGEST, holds_card_number, merchant_name


@pytest.mark.parametrize(
    ("value", "name"),
    [("shop-17", "shop-17"), (17, "17"), ("Ä & Söhne", "Ä & Söhne"), ("a" * LONGEST, "a" * LONGEST)],
)
def test_a_merchant_is_a_short_text_or_a_whole_number(value: Any, name: str) -> None:
    assert merchant_name(value) == name


@pytest.mark.parametrize("value", ["", "a" * (LONGEST + 1), "a\0", "a\n", True, None, 1.5, ["a"], {"a": 1}])
def test_anything_else_is_no_name(value: Any) -> None:
    assert merchant_name(value) is None


@pytest.mark.parametrize(
    "name",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "5555-5555-5555-4444",
        "378282246310005",
        "3782 822463 10005",
        "shop 4111111111111111",
        "order/4111.1111.1111.1111",
        "%34242424242424242",
        "NDI0MjQyNDI0MjQyNDI0Mg==",
        "6759649826438453",
    ],
)
def test_a_card_number_is_found_wherever_it_is_in_a_name(name: str) -> None:
    assert holds_card_number(name)


@pytest.mark.parametrize(
    "name",
    ["shop-17", "4242424242424241", "000123456789012", "b0e42424-2424-4242-8242-424242424242", "2027-01-15", "\ud800"],
)
def test_other_names_hold_none(name: str) -> None:
    assert not holds_card_number(name)
