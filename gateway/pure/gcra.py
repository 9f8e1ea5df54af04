"""Decides limits: whether a request passes, what is left, and when the next one passes.

Four strategies over one shape of state, a few whole numbers. All times are whole microseconds, so that no rounding
admits one request too many or too few; `gateway/adapters/lua/hit.lua` is the same algorithm inside Redis, and stays
exact as long as every product below `EXACT` fits a double. A state never sees time go back: a clock that steps back
refills nothing.

- `gcra`: a leaky bucket as a meter, the continuous-state form of the generic cell rate algorithm (ITU-T I.371,
  annex A). A request pours `period` in, `amount` a microsecond runs out, `burst` requests fit.
- `fixed_window`, `sliding_window_counter`, `moving_window`: what the `limits` library means by these names. A window
  begins with its first request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

EXACT = 2**53
SECOND = 1_000_000

State = tuple[int, ...]
"""Empty when the limit is whole. The numbers are the strategy's; the last is a time its clock never steps behind."""


class Limit(NamedTuple):
    """At most `amount` requests per `period` microseconds; `gcra` admits `burst` of them at once."""

    amount: int
    period: int
    burst: int


class Hit(Protocol):
    """One request against one limit, as `gateway.ports.Hit`."""

    @property
    def strategy(self) -> str: ...
    @property
    def limit(self) -> Limit: ...
    @property
    def enforced(self) -> bool: ...


class Room(NamedTuple):
    """What a state leaves: requests that pass now, microseconds until whole again and until the next one passes."""

    remaining: int
    reset_after: int
    retry_after: int


class Ruling(NamedTuple):
    """The answer to one hit. `state` is what to keep from now on, None if the hit was not counted."""

    allowed: bool
    room: Room
    state: State | None


@dataclass(frozen=True, slots=True)
class Strategy:
    """`settle` brings a state up to a time, `count` adds one request to a settled state, `measure` reads it.

    `weight` is the largest product that the strategy computes for a limit.
    """

    settle: Callable[[State, Limit, int], State]
    count: Callable[[State, Limit, int], State]
    measure: Callable[[State, Limit, int], Room]
    weight: Callable[[Limit], int]


def decide(hits: Sequence[Hit], states: Sequence[State], now: int) -> list[Ruling]:
    """Decide all hits of one request together.

    If an enforced hit is over its limit, none is counted; else each that is within its own limit is.
    """
    passes = True
    settled: list[tuple[Strategy, Limit, int, State, Room]] = []
    for hit, state in zip(hits, states, strict=True):
        strategy, limit, moment = STRATEGIES[hit.strategy], hit.limit, now
        if state:
            moment = max(now, state[-1])
            state = strategy.settle(state, limit, moment)  # noqa: PLW2901 - the same state, brought up to now
        room = strategy.measure(state, limit, moment)
        passes = passes and (room.remaining > 0 or not hit.enforced)
        settled.append((strategy, limit, moment, state, room))
    return [_rule(*each, counted=passes) for each in settled]


def _rule(strategy: Strategy, limit: Limit, now: int, state: State, room: Room, *, counted: bool) -> Ruling:
    allowed = room.remaining > 0
    if not (allowed and counted):
        return Ruling(allowed, room, None)
    state = strategy.count(state, limit, now)
    return Ruling(allowed, strategy.measure(state, limit, now), state)


def _up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _bucket_settle(state: State, limit: Limit, now: int) -> State:
    level = state[0] - (now - state[1]) * limit.amount
    return (level, now) if level > 0 else ()


def _bucket_count(state: State, limit: Limit, now: int) -> State:
    return (state[0] if state else 0) + limit.period, now


def _bucket_measure(state: State, limit: Limit, _now: int) -> Room:
    level = state[0] if state else 0
    space = limit.burst * limit.period - level
    remaining = max(0, space // limit.period)
    return Room(remaining, _up(level, limit.amount), 0 if remaining else _up(limit.period - space, limit.amount))


def _fixed_settle(state: State, limit: Limit, now: int) -> State:
    return state if now - state[1] < limit.period else ()


def _fixed_count(state: State, _limit: Limit, now: int) -> State:
    return (state[0] + 1, state[1]) if state else (1, now)


def _fixed_measure(state: State, limit: Limit, now: int) -> Room:
    if not state:
        return Room(limit.amount, 0, 0)
    remaining, reset = max(0, limit.amount - state[0]), state[1] + limit.period - now
    return Room(remaining, reset, 0 if remaining else reset)


def _sliding_settle(state: State, limit: Limit, now: int) -> State:
    previous, current, start = state
    windows = (now - start) // limit.period
    if windows == 1:
        previous, current, start = current, 0, start + limit.period
    return (previous, current, start) if windows < 2 and previous + current > 0 else ()


def _sliding_count(state: State, _limit: Limit, now: int) -> State:
    return (state[0], state[1] + 1, state[2]) if state else (0, 1, now)


def _sliding_measure(state: State, limit: Limit, now: int) -> Room:
    """The previous window weighs as much as of it lies within the last `period`."""
    if not state:
        return Room(limit.amount, 0, 0)
    previous, current, start = state
    left = start + limit.period - now
    remaining = max(0, limit.amount - current - previous * left // limit.period)
    reset = left + limit.period if current else left
    if remaining:
        return Room(remaining, reset, 0)
    if current < limit.amount:
        retry = left - _up((limit.amount - current) * limit.period, previous) + 1
    else:
        retry = left + limit.period - _up(limit.amount * limit.period, current) + 1
    return Room(0, reset, retry)


def _moving_settle(state: State, limit: Limit, now: int) -> State:
    return tuple(time for time in state if now - time < limit.period)


def _moving_count(state: State, _limit: Limit, now: int) -> State:
    return (*state, now)


def _moving_measure(state: State, limit: Limit, now: int) -> Room:
    if not state:
        return Room(limit.amount, 0, 0)
    remaining = max(0, limit.amount - len(state))
    retry = 0 if remaining else state[-limit.amount] + limit.period - now
    return Room(remaining, state[-1] + limit.period - now, retry)


def _bucket_weight(limit: Limit) -> int:
    return (limit.burst + 1) * limit.period


def _window_weight(limit: Limit) -> int:
    return limit.amount * limit.period


STRATEGIES: Mapping[str, Strategy] = {
    "gcra": Strategy(_bucket_settle, _bucket_count, _bucket_measure, _bucket_weight),
    "fixed_window": Strategy(_fixed_settle, _fixed_count, _fixed_measure, _window_weight),
    "sliding_window_counter": Strategy(_sliding_settle, _sliding_count, _sliding_measure, _window_weight),
    "moving_window": Strategy(_moving_settle, _moving_count, _moving_measure, _window_weight),
}
