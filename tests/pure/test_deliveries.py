from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.deliveries import (
    MAX_RETRY_AFTER,
    RETRY_DELAYS,
    Envelope,
    next_attempt,
    original_fields,
    pack,
    retry_after,
    signed_fields,
    unpack,
)

NOW = 1_800_000_000.0


@given(st.lists(st.tuples(st.binary(), st.binary())), st.binary(), st.sampled_from(["full", "none"]))
def test_a_delivery_is_unpacked_as_it_was_packed(
    headers: list[tuple[bytes, bytes]], body: bytes, coverage: str
) -> None:
    unpacked = unpack(pack(Envelope(coverage, headers, body)))

    assert (list(unpacked.headers), unpacked.body, unpacked.coverage) == (headers, body, coverage)


def test_nothing_of_a_delivery_shows_in_its_repr() -> None:
    assert "4242" not in repr(Envelope("full", [(b"authorization", b"4242")], b"4242424242424242"))


def test_the_plain_names_are_ours_and_the_providers_are_renamed() -> None:
    theirs = [(b"Webhook-ID", b"msg_1"), (b"webhook-signature", b"v1,x"), (b"Content-Type", b"a/b"), (b"svix-id", b"m")]

    assert original_fields(theirs) == [
        (b"Pangate-Original-Webhook-Id", b"msg_1"),
        (b"Pangate-Original-Webhook-Signature", b"v1,x"),
    ]


def test_the_time_of_the_signature_is_whole_seconds() -> None:
    fields = dict(signed_fields("dlv_1", "stripe", Envelope("full", [], b""), NOW + 0.9, b"k" * 32))

    assert fields[b"webhook-timestamp"] == b"1800000000"


@given(st.integers(1, len(RETRY_DELAYS)), st.floats(0, 1, exclude_max=True))
def test_each_wait_is_the_planned_one_give_or_take_a_fifth(attempts: int, jitter: float) -> None:
    planned = RETRY_DELAYS[attempts - 1]

    at = next_attempt(attempts, NOW, jitter)

    assert at is not None
    assert 0.8 * planned - 1e-3 <= at - NOW <= 1.2 * planned + 1e-3


def test_waits_grow_and_end_after_about_three_days() -> None:
    assert list(RETRY_DELAYS) == sorted(RETRY_DELAYS)
    assert 2.5 * 86400 < sum(RETRY_DELAYS) < 3.5 * 86400
    assert next_attempt(len(RETRY_DELAYS) + 1, NOW, 0.5) is None


def test_a_backend_can_ask_for_more_time_but_not_for_ever_and_not_for_less() -> None:
    assert next_attempt(1, NOW, 0.5, 90) == NOW + 90
    assert next_attempt(1, NOW, 0.5, 1e9) == NOW + MAX_RETRY_AFTER
    assert next_attempt(5, NOW, 0.5, 1) == NOW + RETRY_DELAYS[4]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        (b"", 0),
        (b"120", 120),
        (b" 7 ", 7),
        (b"-5", 0),
        (b"1.5", 0),
        (b"1" * 40, 0),
        (b"Fri, 15 Jan 2027 08:01:00 GMT", 60),
        (b"Fri, 15 Jan 2027 07:00:00 GMT", 0),
        (b"Fri, 99 Jan 2027 08:01:00 GMT", 0),
        (b"soon", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: bytes | None, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.binary())
def test_no_retry_after_raises(value: bytes) -> None:
    assert retry_after(value, NOW) >= 0
