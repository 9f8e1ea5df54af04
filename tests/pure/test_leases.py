from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.leases import SEEN, SURE, Lease

SECONDS = 10.0
times = st.floats(0, 1e6)


def renewed(*times: float) -> Lease:
    lease = Lease(SECONDS)
    for asked_at in times:
        lease.renewed(asked_at)
    return lease


@given(now=times)
def test_a_lease_that_was_never_granted_allows_nothing(now: float) -> None:
    lease = Lease(SECONDS)
    assert not lease.holds(now)
    assert not lease.may_take_over(now)


@given(asked_at=times, later=st.floats(0, 100))
def test_it_holds_for_less_than_it_was_granted_for_counted_from_the_question(asked_at: float, later: float) -> None:
    holds = renewed(asked_at).holds(asked_at + later)
    assert holds or later >= SECONDS * SURE - 1e-6
    assert not holds or later < SECONDS


def test_a_process_that_stood_still_does_not_hold_it_when_it_wakes() -> None:
    lease = renewed(100, 103)
    assert lease.holds(104)
    assert not lease.holds(103 + SECONDS)


def test_others_are_taken_for_dead_only_after_everybody_had_the_time_to_come_back() -> None:
    lease = renewed(100)
    for asked_at in range(103, 103 + int(SECONDS * SEEN), 3):
        assert not lease.may_take_over(min(asked_at, 100 + SECONDS * SEEN - 1))
        lease.renewed(asked_at)
    assert lease.may_take_over(100 + SECONDS * SEEN)


def test_after_an_outage_that_time_begins_anew() -> None:
    lease = renewed(*range(100, 140, 3))
    assert lease.may_take_over(139)
    lease.renewed(200)
    assert not lease.may_take_over(201)


def test_what_is_lost_is_not_had_again() -> None:
    lease = renewed(*range(100, 140, 3))
    lease.lost()
    assert not lease.holds(139)
    assert not lease.may_take_over(139)
