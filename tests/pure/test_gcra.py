"""Limits: exact counts, true waiting times, and a clock that may misbehave."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ports import Hit
from gateway.pure.gcra import SECOND, STRATEGIES, Limit, Ruling, State, decide

START = 1_800_000_000 * SECOND


def a_hit(strategy: str, amount: int = 3, period: float = 10, burst: int = 5, enforced: bool = True) -> Hit:
    return Hit("key", strategy, Limit(amount, round(period * SECOND), burst), enforced)


class Counter:
    """One limit, asked again and again."""

    def __init__(self, hit: Hit) -> None:
        self.hit = hit
        self.state: State = ()

    def ask(self, now: int) -> Ruling:
        (ruling,) = decide([self.hit], [self.state], now)
        self.state = self.state if ruling.state is None else ruling.state
        return ruling

    def look(self, now: int) -> Ruling:
        """What an `ask` would answer before it counts."""
        closed = Hit("other", "fixed_window", Limit(0, 1, 0), enforced=True)
        return decide([self.hit, closed], [self.state, ()], now)[0]

    @property
    def capacity(self) -> int:
        return self.hit.limit.burst if self.hit.strategy == "gcra" else self.hit.limit.amount


every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
hits = st.builds(
    a_hit,
    st.sampled_from(sorted(STRATEGIES)),
    amount=st.sampled_from([1, 2, 3, 7, 40]),
    period=st.sampled_from([0.001, 1, 7, 60, 86400]),
    burst=st.sampled_from([1, 2, 3, 7, 40]),
)
gaps = st.lists(st.one_of(st.integers(0, 50), st.integers(0, 20 * SECOND), st.just(7 * SECOND)), max_size=80)


@every_strategy
def test_exactly_the_limit_passes_at_once(strategy: str) -> None:
    counter = Counter(a_hit(strategy, amount=20, period=1, burst=40))
    answers = [counter.ask(START) for _ in range(100)]
    assert [a.allowed for a in answers] == [True] * counter.capacity + [False] * (100 - counter.capacity)
    assert [a.room.remaining for a in answers[: counter.capacity]] == list(reversed(range(counter.capacity)))


@given(amount=st.integers(1, 50), period=st.integers(1, 10**8), burst=st.integers(1, 50), steps=gaps)
def test_gcra_agrees_with_virtual_scheduling_in_exact_fractions(
    amount: int, period: int, burst: int, steps: list[int]
) -> None:
    counter = Counter(a_hit("gcra", amount, period / SECOND, burst))
    interval, arrival, now = Fraction(period, amount), Fraction(START), START
    for step in steps:
        now += step
        expected = max(arrival, now) + interval - now <= burst * interval
        if expected:
            arrival = max(arrival, now) + interval
        assert counter.ask(now).allowed == expected


@given(amount=st.integers(1, 10), steps=gaps)
def test_a_moving_window_never_holds_more_than_the_limit(amount: int, steps: list[int]) -> None:
    counter, now, passed = Counter(a_hit("moving_window", amount, 7)), START, []
    for step in steps:
        now += step
        recent = [time for time in passed if now - time < 7 * SECOND]
        allowed = counter.ask(now).allowed
        assert allowed == (len(recent) < amount)
        passed = [*recent, now] if allowed else recent


@given(amount=st.integers(1, 10), steps=gaps)
def test_a_fixed_window_begins_with_its_first_request(amount: int, steps: list[int]) -> None:
    counter, now = Counter(a_hit("fixed_window", amount, 7)), START
    start, count = START, 0
    for step in steps:
        now += step
        if count == 0 or now - start >= 7 * SECOND:
            start, count = now, 0
        assert counter.ask(now).allowed == (count < amount)
        count = min(amount, count + 1)


def test_a_sliding_window_weighs_the_previous_one_by_what_of_it_still_counts() -> None:
    counter = Counter(a_hit("sliding_window_counter", amount=10, period=10))
    for _ in range(8):
        counter.ask(START)
    halfway = START + 15 * SECOND
    assert counter.look(halfway).room.remaining == 10 - 4
    assert [counter.ask(halfway).allowed for _ in range(7)] == [True] * 6 + [False]
    assert counter.look(START + 20 * SECOND).room.remaining == 10 - 6
    assert counter.look(START + 30 * SECOND).room.remaining == 10


@given(hits, gaps)
def test_waiting_as_long_as_told_is_enough_and_one_microsecond_less_is_not(hit: Hit, steps: list[int]) -> None:
    counter, now = Counter(hit), START
    for step in steps:
        now += step
        room = counter.ask(now).room
        if room.remaining:
            assert room.retry_after == 0
        else:
            assert not counter.look(now + room.retry_after - 1).allowed
            assert counter.look(now + room.retry_after).allowed


@given(hits, gaps)
def test_a_limit_is_whole_when_told_and_not_before_unless_it_rounds_up(hit: Hit, steps: list[int]) -> None:
    counter, now = Counter(hit), START
    for step in steps:
        now += step
        room = counter.ask(now).room
        assert counter.look(now + room.reset_after).room.remaining == counter.capacity
        if hit.strategy != "sliding_window_counter":
            assert counter.look(now + room.reset_after - 1).room.remaining < counter.capacity


@given(hits, gaps, st.integers(0, 3600 * SECOND))
def test_a_clock_that_steps_back_refills_nothing_and_locks_nobody_out(hit: Hit, steps: list[int], back: int) -> None:
    counter, now = Counter(hit), START
    for step in steps:
        now += step
        counter.ask(now)
    assert counter.look(now - back).room.remaining <= counter.look(now).room.remaining
    assert counter.look(now - back).room.retry_after <= 2 * hit.limit.period
    passed = sum(counter.ask(now - back).allowed for _ in range(counter.capacity + 1))
    assert passed <= counter.capacity
    assert not counter.look(now - back).allowed


@every_strategy
def test_a_refused_request_counts_against_none_of_its_limits(strategy: str) -> None:
    full, empty = a_hit(strategy, amount=1, burst=1), a_hit(strategy)
    state = decide([full], [()], START)[0].state or ()
    first, second = decide([empty, full], [(), state], START)
    assert (first.allowed, first.state) == (True, None)
    assert (second.allowed, second.state) == (False, None)
    assert first.room.remaining == Counter(empty).capacity


@every_strategy
def test_a_limit_that_only_reports_stops_no_other_and_counts_as_if_it_were_alone(strategy: str) -> None:
    shadow, live = a_hit(strategy, amount=1, burst=1, enforced=False), a_hit(strategy, amount=3, burst=3)
    states: list[State] = [(), ()]
    allowed = []
    for _ in range(4):
        rulings = decide([shadow, live], states, START)
        states = [old if r.state is None else r.state for old, r in zip(states, rulings, strict=True)]
        allowed.append([r.allowed for r in rulings])
    assert allowed == [[True, True], [False, True], [False, True], [False, False]]


@every_strategy
def test_a_limit_that_only_reports_counts_nothing_that_another_refused(strategy: str) -> None:
    shadow, live = a_hit(strategy, enforced=False), a_hit(strategy, amount=1, burst=1)
    state = decide([live], [()], START)[0].state or ()
    assert decide([shadow, live], [(), state], START)[0].state is None
