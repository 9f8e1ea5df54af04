from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.deliveries import MAX_RETRY_AFTER
from gateway.pure.relaying import (
    LONGEST_DELAY,
    LONGEST_PAUSE,
    TAKEN,
    Again,
    Receipt,
    Taking,
    again,
    judge,
    pause,
    verdict,
)

NOW = 1_800_000_000.0
JITTER = st.floats(0, 1, exclude_max=True)
MIDDLE = 0.5


@pytest.mark.parametrize(
    ("status", "taking"),
    [
        (200, Taking.TAKEN), (202, Taking.TAKEN), (204, Taking.TAKEN), (299, Taking.TAKEN),
        (301, Taking.REFUSED), (307, Taking.REFUSED), (400, Taking.REFUSED), (401, Taking.REFUSED),
        (404, Taking.REFUSED), (410, Taking.GONE), (429, Taking.AWAY), (500, Taking.REFUSED), (503, Taking.REFUSED),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, taking: Taking) -> None:
    assert judge(status, 0).taking is taking


def test_what_a_receiver_asks_for_is_kept_but_no_byte_of_its_answer() -> None:
    assert judge(429, 7) == Receipt(Taking.AWAY, "status 429", 7)
    assert judge(503, 9) == Receipt(Taking.REFUSED, "status 503", 9)


@pytest.mark.parametrize(
    ("takings", "decides"),
    [
        ((Taking.TAKEN, Taking.TAKEN), Taking.TAKEN),
        ((Taking.TAKEN, Taking.AWAY), Taking.AWAY),
        ((Taking.REFUSED, Taking.AWAY), Taking.REFUSED),
        ((Taking.REFUSED, Taking.GONE, Taking.TAKEN), Taking.GONE),
    ],
)
def test_an_event_is_sent_only_when_all_receivers_took_it(takings: tuple[Taking, ...], decides: Taking) -> None:
    assert verdict([Receipt(taking) for taking in takings]).taking is decides


def test_delays_double_from_a_second_to_six_hours() -> None:
    delays = [again(Receipt(Taking.REFUSED), n, 99, 0, MIDDLE).next_at for n in range(20)]

    assert delays[:4] == [1, 2, 4, 8]
    assert delays[14:] == [16384, *[LONGEST_DELAY] * 5]


def test_the_attempts_that_are_the_default_take_about_three_days() -> None:
    delays = [again(Receipt(Taking.REFUSED), n, 25, 0, MIDDLE).next_at for n in range(25)]

    assert delays[-1] is None
    assert 2.5 * 86400 < sum(delay or 0 for delay in delays) < 3.5 * 86400


def test_an_event_is_parked_when_so_many_attempts_were_refused() -> None:
    assert again(Receipt(Taking.REFUSED), 3, 5, NOW, 0).next_at is not None
    assert again(Receipt(Taking.REFUSED), 4, 5, NOW, 0) == Again(None, 5)


def test_an_event_whose_receiver_is_gone_is_parked_at_once() -> None:
    assert again(Receipt(Taking.GONE), 0, 99, NOW, 0) == Again(None, 1)


@given(attempts=st.integers(0, 1000), wait=st.floats(0, 1e9), jitter=JITTER)
def test_no_event_is_parked_or_blamed_for_a_receiver_that_is_away(attempts: int, wait: float, jitter: float) -> None:
    plan = again(Receipt(Taking.AWAY, wait=wait), attempts, 1, NOW, jitter)

    assert plan.attempts == attempts
    assert plan.next_at is not None
    assert plan.next_at - NOW >= min(wait, MAX_RETRY_AFTER) - 0.001


@given(attempts=st.integers(0, 10_000), wait=st.floats(0, 1e9), jitter=JITTER)
def test_a_delay_is_bounded_and_never_shorter_than_asked_for(attempts: int, wait: float, jitter: float) -> None:
    plan = again(Receipt(Taking.REFUSED, wait=wait), attempts, 20_000, NOW, jitter)

    assert plan.next_at is not None
    assert max(min(wait, MAX_RETRY_AFTER), 0.8) - 0.001 <= plan.next_at - NOW <= 1.2 * LONGEST_DELAY
    assert plan.attempts == attempts + 1


def test_pauses_grow_to_half_a_minute_and_end_with_the_first_success() -> None:
    assert pause(0, MIDDLE) == 0
    assert [pause(n, MIDDLE) for n in (1, 2, 3, 8, 1000)] == [0.25, 0.5, 1, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_receipt_that_says_taken_asks_for_nothing() -> None:
    assert Receipt(Taking.TAKEN, "", 0) == TAKEN
