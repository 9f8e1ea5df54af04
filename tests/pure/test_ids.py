from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.ids import BASE58, PAYMENT_ID_BYTES, REQUEST_ID_BYTES, base58, payment_id, request_id


@given(st.integers(0, 58**22 - 1))
def test_base58_is_read_back_digit_by_digit(number: int) -> None:
    read = 0
    for digit in base58(number, 22):
        read = read * 58 + BASE58.index(digit)
    assert read == number


def test_a_payment_has_a_name_that_no_digit_of_its_randomness_is_lost_in() -> None:
    first, second = bytes(PAYMENT_ID_BYTES), bytes(PAYMENT_ID_BYTES - 1) + b"\1"
    assert re.fullmatch(r"pay_[1-9A-HJ-NP-Za-km-z]{22}", payment_id(1.8e9, b"\xff" * PAYMENT_ID_BYTES))
    assert payment_id(1.8e9, first) != payment_id(1.8e9, second)


@given(st.integers(0, 2**47), st.integers(1, 2**40))
def test_names_of_payments_sort_by_their_time(milliseconds: int, later: int) -> None:
    early = payment_id(milliseconds / 1000, b"\xff" * PAYMENT_ID_BYTES)
    assert early < payment_id((milliseconds + later + 1) / 1000, bytes(PAYMENT_ID_BYTES))


def test_a_request_has_32_hex_digits_that_sort_by_its_time() -> None:
    early = request_id(1.8e9, b"\xff" * REQUEST_ID_BYTES)
    later = request_id(1.8e9 + 0.001, bytes(REQUEST_ID_BYTES))
    assert re.fullmatch("[0-9a-f]{32}", early)
    assert early < later
