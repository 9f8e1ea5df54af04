"""Which endpoint gets a call: the one with fewer requests under way of two that were picked at random."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol

Chance = Callable[[], float]
"""A number in [0, 1)."""


class Loaded(Protocol):
    """An endpoint. `weight` is its share of the calls, beside the weights of the others."""

    @property
    def weight(self) -> int: ...

    @property
    def load(self) -> int:
        """Requests under way, and those that wait."""
        ...


class Balancer:
    """Chooses among the members of a fixed, not empty sequence, by their places in it.

    Members of one weight: two different ones at random, and of them the less loaded. Else each of the two is picked by
    weight, and may be the same: an endpoint that has next to nothing to do gets its share all the same, and no more, so
    that a canary is one.
    """

    __slots__ = ("_members", "_sums")

    def __init__(self, members: Sequence[Loaded]) -> None:
        self._members = tuple(members)
        weights = [member.weight for member in members]
        self._sums = [] if len(set(weights)) == 1 else list(accumulate(weights))

    def choose(self, chance: Chance) -> int:
        """The place of the member to be called."""
        count = len(self._members)
        if count == 1:
            return 0
        if self._sums:
            first, second = (bisect_right(self._sums, chance() * self._sums[-1]) for _ in range(2))
        else:
            first = int(chance() * count)
            second = (first + 1 + int(chance() * (count - 1))) % count
        a, b = self._members[first], self._members[second]
        return second if b.load * a.weight < a.load * b.weight else first
