"""Which endpoint gets a call: the one with fewer requests under way of two that were picked at random."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol

Chance = Callable[[], float]
"""A number in [0, 1)."""


class Loaded(Protocol):
    """What an endpoint has to do."""

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

    __slots__ = ("_count", "_members", "_sums", "_weights")

    def __init__(self, members: Sequence[Loaded], weights: Sequence[int]) -> None:
        """`weights` are the members' shares of the calls, beside one another."""
        self._members = tuple(members)
        self._count = len(members)
        self._weights = tuple(weights)
        self._sums = [] if len(set(weights)) == 1 else list(accumulate(weights))

    def choose(self, chance: Chance) -> int:
        """The place of the member to be called."""
        count, members = self._count, self._members
        if count == 1:
            return 0
        if self._sums:
            return self._weighed(chance)
        first = int(chance() * count)
        second = 1 - first if count == 2 else (first + 1 + int(chance() * (count - 1))) % count
        return second if members[second].load < members[first].load else first

    def _weighed(self, chance: Chance) -> int:
        first, second = (bisect_right(self._sums, chance() * self._sums[-1]) for _ in range(2))
        a, b = self._members[first].load, self._members[second].load
        return second if b * self._weights[first] < a * self._weights[second] else first
