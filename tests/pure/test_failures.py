from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.failures import FailedCredentials

GUESSER = "192.0.2.7"


def failed(count: int, address: str = GUESSER, per_minute: int = 60) -> FailedCredentials:
    failures = FailedCredentials(per_minute)
    for _ in range(count):
        failures.note(address, 0.0)
    return failures


def test_up_to_the_cap_nobody_waits_and_beyond_it_the_address_does() -> None:
    assert failed(59).wait(GUESSER, 0.0) == 0
    assert failed(60).wait(GUESSER, 0.0) == 1
    assert failed(1000).wait(GUESSER, 0.0) == 1
    assert failed(2, per_minute=2).wait(GUESSER, 0.0) == 30


def test_others_do_not_wait() -> None:
    assert failed(60).wait("192.0.2.8", 0.0) == 0


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    failures = FailedCredentials(60)
    for number in range(60):
        failures.note(f"2001:db8:0:1::{number:x}", 0.0)
    assert failures.wait("2001:db8:0:1:ffff::1", 0.0) == 1
    assert failures.wait("2001:db8:0:2::1", 0.0) == 0
    assert failed(60, "::ffff:192.0.2.7").wait(GUESSER, 0.0) == 1


def test_failures_run_out_evenly_and_are_forgotten() -> None:
    failures = failed(60)
    assert failures.wait(GUESSER, 1.0) == 0
    failures.note(GUESSER, 1.0)
    assert failures.wait(GUESSER, 1.0) == 1
    assert failures
    assert failures.wait(GUESSER, 61.1) == 0
    assert not failures


def test_the_cap_is_never_exceeded_by_more_than_one_minutes_worth() -> None:
    failures = FailedCredentials(60)
    passed = 0
    for tenth in range(6000):
        if not failures.wait(GUESSER, tenth / 10):
            failures.note(GUESSER, tenth / 10)
            passed += 1
    assert passed <= 60 + 600


def test_an_attack_from_many_addresses_takes_no_more_memory() -> None:
    failures = FailedCredentials(60, addresses=100)
    for number in range(10_000):
        failures.note(f"2001:db8:{number:x}::1", 0.0)
    assert len(failures._states) == 100


@pytest.mark.parametrize("cap", [1, 60, 1_000_000])
@given(times=st.lists(st.floats(0, 1e6), max_size=50))
def test_who_waits_as_long_as_told_is_looked_at_again(cap: int, times: list[float]) -> None:
    failures = FailedCredentials(cap)
    for now in sorted(times):
        failures.note(GUESSER, now)
    now = max(times, default=0.0)
    wait = failures.wait(GUESSER, now)
    assert failures.wait(GUESSER, now + wait) == 0
