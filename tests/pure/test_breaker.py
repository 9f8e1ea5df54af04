"""A breaker trips and heals as its settings say, and what an upstream decided never trips it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.breaker import Breaker, BreakerSettings, Result, State

SETTINGS = BreakerSettings(
    sliding_window_size=10,
    minimum_number_of_calls=4,
    failure_rate_threshold=50,
    slow_call_rate_threshold=75,
    slow_call_duration_threshold=2,
    wait_duration_in_open_state=30,
    permitted_calls_in_half_open_state=3,
)
OK, BAD, NEITHER = Result.SUCCESS, Result.FAILURE, Result.NOTHING


class Upstream:
    """Answers as it is told, through a breaker. Times are seconds since the start."""

    def __init__(self, settings: BreakerSettings = SETTINGS) -> None:
        self.breaker = Breaker(settings)
        self.now = 1000.0

    def call(self, result: Result, seconds: float = 0.0) -> bool:
        """Whether the call was made."""
        if not self.breaker.admit(self.now):
            return False
        self.breaker.record(self.now, self.breaker.generation, result, seconds)
        return True

    def play(self, script: str) -> str:
        """A letter a call: `.` success, `x` failure, `s` slow success, `-` neither; digits let seconds pass.

        What came of it: `!` for a call that was not made, else the state after it (`c`, `h`, `o`).
        """
        plays = {".": (OK, 0.0), "x": (BAD, 0.0), "s": (OK, 2.0), "-": (NEITHER, 0.0)}
        seen = ""
        for step in script.split():
            if step.isdigit():
                self.now += int(step)
                continue
            for letter in step:
                made = self.call(*plays[letter])
                seen += {State.CLOSED: "c", State.HALF_OPEN: "h", State.OPEN: "o"}[self.breaker.state] if made else "!"
        return seen


TABLE = {
    "all is well": ("......", "cccccc"),
    "too few calls to tell": ("xxx", "ccc"),
    "trips with the call that makes the minimum": ("xxxx", "ccco"),
    "a success may make the minimum": ("xxx.", "ccco"),
    "half of them is the threshold": ("..xx", "ccco"),
    "less than half is not": ("...xx.x", "ccccccc"),
    "less than half is not, the eighth is": ("...xx.xx", "ccccccco"),
    "open lets nothing through": ("xxxx ..", "ccco!!"),
    "still open a second before": ("xxxx 29 .", "ccco!"),
    "half-open after the time, closed after so many": ("xxxx 30 ....", "cccohhcc"),
    "one bad probe of three is no half": ("xxxx 30 x..", "cccohhc"),
    "two bad probes of three are": ("xxxx 30 xx.", "cccoho!"),
    "the third is not waited for": ("xxxx 30 .xx", "cccohho"),
    "open again, and for as long again": ("xxxx 30 xx 29 . 1 ...", "cccoho!hhc"),
    "closed forgets what was": ("xxxx 30 ... xxx", "cccohhcccc"),
    "failures leave the window": ("xxx 10 x", "cccc"),
    "and not before": ("xxx 9 x", "ccco"),
    "each second leaves by itself": ("x 5 xx 5 x x", "cccco"),
    "slow calls trip it too": ("sss.", "ccco"),
    "not so many slow ones": ("ss..", "cccc"),
    "a slow probe is a bad one": ("xxxx 30 sss", "cccohho"),
    "to be told to wait says nothing": ("------ xxx -", "cccccccccc"),
    "a probe that is told to wait gives its permit back": ("xxxx 30 -...", "cccohhhc"),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_scripted_upstream_trips_and_heals_the_breaker_as_its_settings_say(case: str) -> None:
    script, expected = TABLE[case]
    assert Upstream().play(script) == expected


def test_one_probe_at_a_time_is_let_through() -> None:
    upstream = Upstream()
    upstream.play("xxxx 30")
    assert upstream.breaker.admit(upstream.now)
    assert not upstream.breaker.admit(upstream.now)
    upstream.breaker.record(upstream.now, upstream.breaker.generation, OK)
    assert upstream.breaker.admit(upstream.now)


def test_a_call_of_an_earlier_state_says_nothing_about_this_one() -> None:
    upstream = Upstream()
    before = upstream.breaker.generation
    upstream.play("xxxx 30")
    assert upstream.breaker.admit(upstream.now)
    assert not upstream.breaker.record(upstream.now, before, BAD)
    assert not upstream.breaker.admit(upstream.now), "nor does it give back a permit that it never had"


def test_who_is_refused_is_told_for_how_long() -> None:
    upstream = Upstream()
    upstream.play("xxxx")
    assert upstream.breaker.retry_after(upstream.now + 10) == 20
    assert upstream.breaker.retry_after(upstream.now + 29.9) == 1
    upstream.now += 30
    assert upstream.breaker.admit(upstream.now)
    assert upstream.breaker.retry_after(upstream.now) == 1


def test_a_change_of_state_is_told_once() -> None:
    breaker = Breaker(SETTINGS)
    assert [breaker.record(0, breaker.generation, BAD) for _ in range(5)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("status", "asked_to_wait", "result"),
    [
        (200, False, OK),
        (201, False, OK),
        (302, False, OK),
        (400, False, OK),
        (402, False, OK),
        (402, True, OK),
        (404, False, OK),
        (409, False, OK),
        (422, False, OK),
        (429, False, OK),
        (429, True, NEITHER),
        (500, False, BAD),
        (501, False, OK),
        (502, False, BAD),
        (503, True, BAD),
        (504, False, BAD),
    ],
)
def test_what_a_status_says(status: int, asked_to_wait: bool, result: Result) -> None:
    assert SETTINGS.of_status(status, asked_to_wait=asked_to_wait) is result


@given(st.lists(st.tuples(st.integers(200, 499), st.booleans(), st.floats(0, 3)), max_size=200))
def test_whatever_a_business_decides_is_no_outage(answers: list[tuple[int, bool, float]]) -> None:
    breaker, now = Breaker(SETTINGS), 0.0
    for status, asked_to_wait, pause in answers:
        now += pause
        assert breaker.admit(now)
        breaker.record(now, breaker.generation, SETTINGS.of_status(status, asked_to_wait=asked_to_wait), 1.9)
    assert breaker.state is State.CLOSED


CALLS = st.lists(
    st.tuples(st.sampled_from([OK, OK, BAD, NEITHER]), st.sampled_from([0.0, 3.0]), st.floats(0, 12)), max_size=120
)


@given(CALLS)
def test_closed_it_counts_exactly_what_ended_within_the_window(calls: list[tuple[Result, float, float]]) -> None:
    upstream, ended = Upstream(), list[tuple[int, bool, bool]]()
    for result, seconds, pause in calls:
        upstream.now += pause
        state = upstream.breaker.state
        if not upstream.call(result, seconds) or state is not State.CLOSED:
            ended.clear()
            continue
        if result is not NEITHER:
            ended.append((int(upstream.now), result is BAD, seconds >= 2))
        window = [call for call in ended if call[0] > int(upstream.now) - 10]
        bad = 2 * sum(failed for _, failed, _ in window) >= len(window)
        slow = 4 * sum(slow for _, _, slow in window) >= 3 * len(window)
        trips = result is not NEITHER and len(window) >= 4 and (bad or slow)
        assert (upstream.breaker.state is State.OPEN) == trips
        if trips:
            ended.clear()


@given(CALLS)
def test_an_upstream_that_is_well_again_is_called_again(calls: list[tuple[Result, float, float]]) -> None:
    upstream = Upstream()
    for result, seconds, pause in calls:
        upstream.now += pause
        upstream.call(result, seconds)
    upstream.now += 30
    for _ in range(3):
        upstream.now += 10
        assert upstream.call(OK)
    assert upstream.breaker.state is State.CLOSED
