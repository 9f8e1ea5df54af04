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
    """`take` decides one request and counts it if it passes; `look` only says what room there is.

    `weight` is the largest product that the strategy computes for a limit.
    """

    take: Callable[[State, Limit, int], Ruling]
    look: Callable[[State, Limit, int], Room]
    weight: Callable[[Limit], int]


def decide(hits: Sequence[Hit], states: Sequence[State], now: int) -> list[Ruling]:
    """Decide all hits of one request together.

    If an enforced hit is over its limit, none is counted; else each that is within its own limit is.
    """
    rulings = [
        STRATEGIES[hit.strategy].take(state, hit.limit, max(now, state[-1]) if state else now)
        for hit, state in zip(hits, states, strict=True)
    ]
    for hit, ruling in zip(hits, rulings, strict=True):
        if hit.enforced and not ruling.allowed:
            return [_look(hit, state, now) for hit, state in zip(hits, states, strict=True)]
    return rulings


def _look(hit: Hit, state: State, now: int) -> Ruling:
    room = STRATEGIES[hit.strategy].look(state, hit.limit, max(now, state[-1]) if state else now)
    return Ruling(room.remaining > 0, room, None)


def _strategy(
    settle: Callable[[State, Limit, int], State],
    count: Callable[[State, Limit, int], State],
    measure: Callable[[State, Limit, int], Room],
    weight: Callable[[Limit], int],
) -> Strategy:
    """`settle` brings a state up to a time, `count` adds one request to a settled state, `measure` reads it."""

    def look(state: State, limit: Limit, now: int) -> Room:
        return measure(settle(state, limit, now) if state else state, limit, now)

    def take(state: State, limit: Limit, now: int) -> Ruling:
        state = settle(state, limit, now) if state else state
        room = measure(state, limit, now)
        if room.remaining <= 0:
            return Ruling(allowed=False, room=room, state=None)
        state = count(state, limit, now)
        return Ruling(allowed=True, room=measure(state, limit, now), state=state)

    return Strategy(take, look, weight)


def _up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _bucket_take(state: State, limit: Limit, now: int) -> Ruling:
    """A bucket into which each request puts `period`, and out of which `amount` runs every microsecond."""
    amount, period, burst = limit
    level = state[0] - (now - state[1]) * amount if state else 0
    level = max(level, 0)
    space = burst * period - level
    if space < period:
        return Ruling(allowed=False, room=Room(0, -(-level // amount), -((space - period) // amount)), state=None)
    level += period
    remaining = space // period - 1
    retry_after = 0 if remaining else -((space - 2 * period) // amount)
    return Ruling(allowed=True, room=Room(remaining, -(-level // amount), retry_after), state=(level, now))


def _bucket_look(state: State, limit: Limit, now: int) -> Room:
    amount, period, burst = limit
    level = max(0, state[0] - (now - state[1]) * amount) if state else 0
    space = burst * period - level
    remaining = max(0, space // period)
    return Room(remaining, -(-level // amount), 0 if remaining else -((space - period) // amount))


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
    "gcra": Strategy(_bucket_take, _bucket_look, _bucket_weight),
    "fixed_window": _strategy(_fixed_settle, _fixed_count, _fixed_measure, _window_weight),
    "sliding_window_counter": _strategy(_sliding_settle, _sliding_count, _sliding_measure, _window_weight),
    "moving_window": _strategy(_moving_settle, _moving_count, _moving_measure, _window_weight),
}
