"""No window of the period's length ever holds more than the limit, and nothing is refused that would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.gcra import SECOND
from gateway.pure.velocity import MEMBERS_MAX, Entry, State, Tally, decide, without

PERIOD = 10_000
MOST = 5


def tally(member: str, weight: int = 1, *, most: int = MOST, period: int = PERIOD, enforced: bool = True) -> Tally:
    return Tally("key", member, weight, most, period, enforced)


def one(what: Tally, state: State, now: int) -> tuple[bool, int, State]:
    (ruling,) = decide([what], [state], now)
    return ruling.allowed, ruling.retry_after, ruling.state


STEPS = st.lists(st.tuples(st.integers(0, 4000), st.sampled_from("abcdefgh"), st.integers(1, 3)), max_size=60)


@given(STEPS)
def test_members_count_once_while_they_are_in_the_window(steps: list[tuple[int, str, int]]) -> None:
    seen: dict[str, int] = {}
    state: State = ()
    now = 0
    for wait, member, _ in steps:
        now += wait
        seen = {name: at for name, at in seen.items() if now - at < PERIOD}
        fits = member in seen or len(seen) < MOST
        allowed, retry_after, state = one(tally(member), state, now)
        assert allowed is fits
        if fits:
            seen[member] = now
            assert retry_after == 0
        else:
            assert retry_after == min(seen.values()) + PERIOD - now
        assert {entry.member for entry in state} == set(seen)


@given(STEPS)
def test_a_sum_never_exceeds_the_limit_in_any_window(steps: list[tuple[int, str, int]]) -> None:
    taken: list[tuple[int, int]] = []
    state: State = ()
    now = 0
    for wait, _, weight in steps:
        now += wait
        allowed, _, state = one(tally("", weight), state, now)
        in_window = sum(amount for at, amount in taken if now - at < PERIOD)
        lately = sum(amount for at, amount in taken if now - at < PERIOD + PERIOD // MEMBERS_MAX)
        if allowed:
            assert in_window + weight <= MOST
            taken.append((now, weight))
        else:
            assert lately + weight > MOST
        assert len(state) <= MEMBERS_MAX + 1


def test_a_sum_remembers_slices_and_not_every_amount() -> None:
    state: State = ()
    for now in range(0, PERIOD, 2):
        _, _, state = one(tally("", 1, most=10**9), state, now)
    assert len(state) <= MEMBERS_MAX
    assert sum(entry.weight for entry in state) == PERIOD // 2


def test_after_the_time_that_is_told_there_is_room() -> None:
    state: State = tuple(Entry(str(n), n * 100, 1) for n in range(MOST))
    allowed, wait, state = one(tally("x"), state, 1000)
    assert not allowed
    assert not one(tally("x"), state, 1000 + wait - 1)[0]
    assert one(tally("x"), state, 1000 + wait)[0]


def test_what_can_never_fit_waits_the_whole_period() -> None:
    assert one(tally("", MOST + 1), (), 0) == (False, PERIOD, ())


def test_what_one_refuses_counts_nowhere_unless_it_only_reports() -> None:
    full: State = tuple(Entry(str(n), 0, 1) for n in range(MOST))
    for enforced, counted in ((True, 0), (False, 1)):
        first, second = decide([tally("x"), tally("y", enforced=enforced)], [(), full], 5)
        assert (first.allowed, second.allowed) == (True, False)
        assert len(first.state) == counted


def test_a_clock_that_steps_back_forgets_nothing() -> None:
    state: State = tuple(Entry(str(n), 10 * SECOND, 1) for n in range(MOST))
    assert not one(tally("x"), state, 0)[0]


@pytest.mark.parametrize("member", ["a", "z"])
def test_what_is_taken_back_leaves_its_room(member: str) -> None:
    state = (Entry("a", 1, 1), Entry("b", 2, 1))
    assert len(without(state, member)) == (1 if member == "a" else 2)
