"""Retries stay a small part of all calls, whatever fails, and do not come in step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.retries import BURST, Budget, RetrySettings, back_off


def test_so_many_percent_of_the_calls_may_be_made_again() -> None:
    budget = Budget(RetrySettings(budget_percent=20, min_retries_per_second=0), now=0.0)
    assert [budget.spend(0.0, 0) for _ in range(11)] == [True] * 10 + [False]
    assert [budget.spend(0.0, 25) for _ in range(6)] == [True] * 5 + [False]


def test_a_few_a_second_may_be_made_again_without_any_calls() -> None:
    budget = Budget(RetrySettings(budget_percent=0, min_retries_per_second=2), now=0.0)
    assert [budget.spend(0.0, 0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(0.5, 0) for _ in range(2)] == [True, False]
    assert [budget.spend(60.0, 0) for _ in range(3)] == [True, True, False], "what is not used is not saved up"


def test_without_percent_and_floor_nothing_is_made_again() -> None:
    budget = Budget(RetrySettings(budget_percent=0, min_retries_per_second=0), now=0.0)
    assert not budget.spend(1000.0, 1000)


def test_a_busy_hour_does_not_pay_for_a_storm() -> None:
    budget = Budget(RetrySettings(budget_percent=20, min_retries_per_second=0), now=0.0)
    assert sum(budget.spend(0.0, 100_000) for _ in range(1000)) == 10


@given(
    st.floats(0, 20),
    st.floats(0, 5),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.floats(0, 3)), max_size=40),
)
def test_never_more_than_the_budget_is_spent(percent: float, floor: float, steps: list[tuple[int, int, float]]) -> None:
    settings = RetrySettings(budget_percent=percent, min_retries_per_second=floor)
    budget, calls, spent, now = Budget(settings, 0.0), 0, 0, 0.0
    for made, wanted, pause in steps:
        now += pause
        calls += made
        spent += sum(budget.spend(now, calls) for _ in range(wanted))
        assert spent <= calls * percent / 100 + floor * now + max(floor, 1) + BURST + 1e-6


@given(st.floats(0, 0.999), st.floats(0, 1))
def test_a_wait_is_between_its_bounds_and_at_most_three_times_the_last(chance: float, before: float) -> None:
    settings = RetrySettings(base_interval=0.025, max_interval=0.25)
    wait = back_off(settings, before, chance)
    assert 0.025 <= wait <= 0.25
    assert wait <= 3 * max(before, 0.025) + 1e-9


@pytest.mark.parametrize(
    ("before", "chance", "wait"), [(0, 0, 0.025), (0, 0.5, 0.05), (0.05, 0.5, 0.0875), (1, 0.9, 0.25)]
)
def test_waits_grow_by_chance(before: float, chance: float, wait: float) -> None:
    assert back_off(RetrySettings(), before, chance) == pytest.approx(wait)
