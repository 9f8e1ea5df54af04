"""A circuit breaker: calls that fail too often are not made for a while, then a few, one at a time, to find out.

The words are those of resilience4j: a sliding window of time, a failure rate and a slow-call rate that count from a
minimum of calls on, an open state for a time, a half-open one with so many permitted calls. What the upstream decided
about a payment is a success, whatever it decided: a decline never opens a breaker.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class State(enum.IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Result(enum.Enum):
    """What a call says about the health of who was called."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"
    """It was not made, broke off for another's sake, or was told to come later: an upstream that throttles works."""


_CLOSED: Final = State.CLOSED  # a member of an enum is looked up by a descriptor, which takes its time
_FAILURE: Final = Result.FAILURE
_NOTHING: Final = Result.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Durations in seconds, rates in percent of the calls in the window.

    `sliding_window_size` is in whole seconds; `failure_statuses` count as failures, as do calls without an answer.
    """

    sliding_window_size: int = 60
    minimum_number_of_calls: int = 20
    failure_rate_threshold: float = 50.0
    slow_call_rate_threshold: float = 100.0
    slow_call_duration_threshold: float = 60.0
    wait_duration_in_open_state: float = 30.0
    permitted_calls_in_half_open_state: int = 3
    failure_statuses: frozenset[int] = frozenset({500, 502, 503, 504})

    def of_status(self, status: int, *, asked_to_wait: bool) -> Result:
        """`asked_to_wait`: the answer has a Retry-After field."""
        if status in self.failure_statuses:
            return Result.FAILURE
        return Result.NOTHING if status == 429 and asked_to_wait else Result.SUCCESS


class Breaker:
    """One for each upstream and class of operations. `now` is a monotonic time in seconds, the same clock throughout.

    A call that was let in says so with the `generation` it began in: what began before the last change of state says
    nothing about the present one.
    """

    __slots__ = (
        "_calls",
        "_failed",
        "_failures",
        "_opened_at",
        "_place",
        "_probed",
        "_probing",
        "_second",
        "_slow",
        "_slow_from",
        "_slows",
        "_total",
        "generation",
        "settings",
        "state",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.state = State.CLOSED
        self.generation = 0
        self._slow_from = settings.slow_call_duration_threshold
        self._second = self._place = 0
        self._opened_at = 0.0
        self._forget()

    def _forget(self) -> None:
        size = self.settings.sliding_window_size
        self._calls, self._failures, self._slows = [0] * size, [0] * size, [0] * size
        self._total = self._failed = self._slow = self._probed = 0
        self._probing = False

    def _become(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self._forget()

    # --- letting in

    def admit(self, now: float) -> bool:
        """May a call be made? True takes a permit; it comes back with `record`."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            if now < self._opened_at + self.settings.wait_duration_in_open_state:
                return False
            self._become(State.HALF_OPEN)
        if self._probing:
            return False
        self._probing = True
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until a call may be let in; at least one."""
        if self.state is not State.OPEN:
            return 1.0
        return max(1.0, self._opened_at + self.settings.wait_duration_in_open_state - now)

    # --- learning

    def record(self, now: float, generation: int, result: Result, seconds: float = 0.0) -> bool:
        """A call that was let in has ended, after so long; whether the state has changed."""
        if generation != self.generation:
            return False
        if self.state is not _CLOSED:
            return self._found_out(now, result, seconds)
        if result is _NOTHING:
            return False
        if (second := int(now)) != self._second:
            self._turn(second)
        self._calls[self._place] += 1
        self._total += 1
        if result is _FAILURE:
            self._failures[self._place] += 1
            self._failed += 1
        if seconds >= self._slow_from:
            self._slows[self._place] += 1
            self._slow += 1
        return bool(self._failed or self._slow) and self._tripped(now)

    def _turn(self, second: int) -> None:
        """Empty the buckets of the seconds that have left the window."""
        size = self.settings.sliding_window_size
        for passed in range(max(self._second + 1, second - size + 1), second + 1):
            place = passed % size
            self._total -= self._calls[place]
            self._failed -= self._failures[place]
            self._slow -= self._slows[place]
            self._calls[place] = self._failures[place] = self._slows[place] = 0
        self._second, self._place = second, second % size

    def _tripped(self, now: float) -> bool:
        total, settings = self._total, self.settings
        if total < settings.minimum_number_of_calls:
            return False
        if not self._reached(total):
            return False
        self._open(now)
        return True

    def _reached(self, calls: int) -> bool:
        settings = self.settings
        failing = self._failed and 100 * self._failed >= settings.failure_rate_threshold * calls
        return bool(failing or (self._slow and 100 * self._slow >= settings.slow_call_rate_threshold * calls))

    def _open(self, now: float) -> None:
        self._become(State.OPEN)
        self._opened_at = now

    def _found_out(self, now: float, result: Result, seconds: float) -> bool:
        """A probe has ended: decide as soon as no further one could change the decision."""
        self._probing = False
        if result is _NOTHING:
            return False
        permitted = self.settings.permitted_calls_in_half_open_state
        self._probed += 1
        self._failed += result is _FAILURE
        self._slow += seconds >= self._slow_from
        if self._reached(permitted):
            self._open(now)
        elif self._probed >= permitted:
            self._become(State.CLOSED)
        else:
            return False
        return True
