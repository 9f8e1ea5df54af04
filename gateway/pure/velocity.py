"""Counts what happened within a sliding window: requests, declines, different cards, amounts. Exact, and bounded.

What is counted is remembered one by one, with its time, so that no window of the period's length ever holds more than
the limit; amounts, of which there may be many, are added up by slices of the period and leave with the last of their
slice. Times are whole microseconds. `gateway/adapters/lua/tally.lua` is the same algorithm inside Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MEMBERS_MAX = 1_000
"""Of a window: what is counted one by one, and the slices of a sum."""
MOST_MAX = 2**52


@dataclass(frozen=True, slots=True)
class Tally:
    """One thing to count. `member` is what it is: the same one within the window counts once; empty for a sum.

    An `enforced` tally that does not fit keeps all of the same call from being counted.
    """

    key: str
    member: str
    weight: int
    most: int
    period: int
    """Microseconds."""
    enforced: bool


class Tallied(NamedTuple):
    """`retry_after` in seconds: until there is room for as much again."""

    allowed: bool
    retry_after: float


class Entry(NamedTuple):
    """What was counted; `time` when it was last."""

    member: str
    time: int
    weight: int


State = tuple[Entry, ...]
"""In the order of their times."""


class Ruling(NamedTuple):
    """`state` is what to keep from now on; microseconds until there is room, and until nothing is left."""

    allowed: bool
    retry_after: int
    state: State


def decide(tallies: Sequence[Tally], states: Sequence[State], now: int) -> list[Ruling]:
    """Decide all tallies of one request together. A clock that steps back forgets nothing."""
    times = [max(now, state[-1].time) if state else now for state in states]
    rulings = [_take(*each) for each in zip(tallies, states, times, strict=True)]
    if all(ruling.allowed or not tally.enforced for tally, ruling in zip(tallies, rulings, strict=True)):
        return rulings
    return [
        ruling._replace(state=_live(tally, state, time))
        for tally, state, time, ruling in zip(tallies, states, times, rulings, strict=True)
    ]


def without(state: State, member: str) -> State:
    """What is left when a member is taken back."""
    return tuple(entry for entry in state if entry.member != member)


def _live(tally: Tally, state: State, now: int) -> State:
    return tuple(entry for entry in state if now - entry.time < tally.period)


def _take(tally: Tally, state: State, now: int) -> Ruling:
    live = _live(tally, state, now)
    member = tally.member or str(now // max(1, tally.period // MEMBERS_MAX))
    before = next((entry.weight for entry in live if entry.member == member), 0)
    added = 0 if tally.member and before else tally.weight
    over = sum(entry.weight for entry in live) + added - tally.most
    if over > 0:
        return Ruling(allowed=False, retry_after=_room(tally, live, over, now), state=live)
    return Ruling(allowed=True, retry_after=0, state=(*without(live, member), Entry(member, now, before + added)))


def _room(tally: Tally, live: State, over: int, now: int) -> int:
    """Microseconds until so much has left the window."""
    for entry in live:
        over -= entry.weight
        if over <= 0:
            return entry.time + tally.period - now
    return tally.period
