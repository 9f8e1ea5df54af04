"""A lease: for how long a process may act on what it has made durable, and when it may act for others.

Times are seconds of a clock that goes on while the machine sleeps (CLOCK_BOOTTIME): a process that was stopped for
longer than its lease must know it when it wakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

SURE: Final = 0.8
"""The part of its lease that a process counts on: what is left over is for clocks that do not run alike, and for the
way from the last look at the lease to the wire."""
SEEN: Final = 1.5
"""For how many leases a process must have held its own before it takes another's for dead: after an outage of the store
everybody is late, and everybody has had the time to come back by then."""


@dataclass(slots=True)
class Lease:
    """What a process knows of its own lease of `seconds`."""

    seconds: float
    _until: float = -inf
    _since: float = inf

    def renewed(self, asked_at: float) -> None:
        """It was granted anew; `asked_at` is when that was asked for, for the answer may have taken its time."""
        if asked_at > self._until:
            self._since = asked_at
        self._until = asked_at + self.seconds * SURE

    def lost(self) -> None:
        """It was given to somebody else, for good."""
        self._until, self._since = -inf, inf

    def holds(self, now: float) -> bool:
        return now < self._until

    def may_take_over(self, now: float) -> bool:
        """Is it for this process to say that another is dead?"""
        return self.holds(now) and now - self._since >= self.seconds * SEEN
