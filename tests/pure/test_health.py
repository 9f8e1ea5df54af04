"""Endpoints that fail are left out for a while, never too many of them, and somebody always gets the calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.health import HealthSettings, Roster

SETTINGS = HealthSettings(consecutive_5xx=3, base_ejection_time=30, max_ejection_percent=50)


def fail(roster: Roster, place: int, now: float, times: int = 3) -> bool:
    return [roster.failed(place, now) for _ in range(times)][-1]


def test_so_many_failures_in_a_row_eject_and_fewer_do_not() -> None:
    roster = Roster(4, SETTINGS)
    assert not fail(roster, 1, 0, 2)
    roster.succeeded(1)
    assert not fail(roster, 1, 0, 2)
    assert fail(roster, 1, 0, 1)
    assert roster.available(0) == (0, 2, 3)
    assert roster.due == 30


def test_who_is_ejected_again_stays_out_for_longer_up_to_five_minutes() -> None:
    roster, now = Roster(4, SETTINGS), 0.0
    for seconds in (30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300):
        assert fail(roster, 0, now)
        assert roster.available(now + seconds - 1) == (1, 2, 3)
        assert roster.available(now + seconds) == (0, 1, 2, 3)
        now += seconds
    roster.succeeded(0)
    assert fail(roster, 0, now)
    assert roster.available(now + 30) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("count", "percent", "out"),
    [(1, 100, 0), (2, 100, 1), (2, 10, 1), (3, 50, 1), (4, 50, 2), (10, 50, 5), (10, 10, 1), (10, 0, 1), (3, 100, 2)],
)
def test_never_more_are_out_than_the_cap_says_and_never_all(count: int, percent: float, out: int) -> None:
    roster = Roster(count, HealthSettings(consecutive_5xx=1, max_ejection_percent=percent))
    assert sum(roster.failed(place, 0) for place in range(count)) == out
    assert len(roster.available(0)) == count - out


def test_health_turns_with_so_many_checks_in_a_row() -> None:
    roster = Roster(2, HealthSettings(unhealthy_threshold=3, healthy_threshold=2))
    turned = [roster.checked(0, passed=passed) for passed in (False, False, True, False, False, False, False)]
    assert turned == [False, False, False, False, False, True, False]
    assert (roster.available(0), roster.state(0, 0)) == ((1,), "unhealthy")
    assert [roster.checked(0, passed=passed) for passed in (True, False, True, True)] == [False, False, False, True]
    assert (roster.available(0), roster.state(0, 0)) == ((0, 1), "available")


def test_if_nobody_is_well_all_get_calls() -> None:
    roster = Roster(2, HealthSettings(unhealthy_threshold=1))
    assert [roster.checked(place, passed=False) for place in (0, 1)] == [True, True]
    assert roster.available(0) == (0, 1)


STEPS = st.lists(
    st.tuples(st.sampled_from(["failed", "succeeded", "sick", "well", "wait"]), st.integers(0, 4)), max_size=120
)


@given(st.integers(1, 5), st.sampled_from([0, 20, 50, 100]), STEPS)
def test_somebody_always_gets_calls_and_ejections_keep_to_their_cap(
    count: int, percent: int, steps: list[tuple[str, int]]
) -> None:
    roster, now = Roster(count, HealthSettings(consecutive_5xx=2, max_ejection_percent=percent)), 0.0
    for step, place in steps:
        place %= count
        if step == "failed":
            roster.failed(place, now)
        elif step == "succeeded":
            roster.succeeded(place)
        elif step == "wait":
            now += 10
        else:
            roster.checked(place, passed=step == "well")
        assert roster.available(now)
        ejected = [roster.state(place, now) for place in range(count)].count("ejected")
        assert ejected <= max(1, count * percent // 100)
        assert ejected < count
        assert roster.due > now
