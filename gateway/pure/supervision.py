"""Decisions of a supervisor: when a worker that died is started again, and who accepts in its place meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

STABLE_SECONDS: Final = 60.0
"""A worker that lived this long was well: what happened before no longer counts."""
SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often workers of one seat have died of late."""

    deaths: int = 0

    def after(self, lived: float) -> Restarts:
        """One more died, `lived` seconds after it was started."""
        return Restarts(1 if lived >= STABLE_SECONDS else self.deaths + 1)

    @property
    def pause(self) -> float:
        """Seconds until the next is started: none after a first death, then twice as many each time, up to a bound."""
        if self.deaths < 2:
            return 0.0
        return min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(self.deaths - 2, 32))


def share_out(taken: Collection[int], seats: int) -> dict[int, list[int]]:
    """For each seat that a worker has taken: the seats whose queues it empties.

    Its own, and its share of those that are vacant. The socket of a vacant seat stays open, and the kernel goes on
    giving it connections.
    """
    workers = sorted(taken)
    shares = {seat: [seat] for seat in workers}
    vacant = [seat for seat in range(seats) if seat not in shares]
    for turn, seat in enumerate(vacant):
        if workers:
            shares[workers[turn % len(workers)]].append(seat)
    return shares
