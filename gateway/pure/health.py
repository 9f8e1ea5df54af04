"""Which endpoints of an upstream get calls: those that answer their health checks and have not just failed in a row.

Two judges. Passive (Envoy's outlier detection): an endpoint that fails so often in a row is ejected for a time that
grows with each ejection, but never more than a part of all are. Active: one that does not pass its health checks gets
no calls until it does. Where nobody would be left, all get calls: that all are ill is seldom what is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LONGEST_EJECTION = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """`consecutive_5xx` failures in a row eject, for `base_ejection_time` seconds times the ejections in a row, as long
    as no more than `max_ejection_percent` are out; `unhealthy_threshold` checks failed, or `healthy_threshold` passed,
    in a row turn an endpoint's health.
    """

    consecutive_5xx: int = 5
    base_ejection_time: float = 30.0
    max_ejection_percent: float = 50.0
    unhealthy_threshold: int = 3
    healthy_threshold: int = 2


@dataclass(slots=True)
class _Standing:
    failures: int = 0
    ejections: int = 0
    ejected_until: float = -math.inf
    healthy: bool = True
    checks: int = 0
    """In a row that say the opposite of `healthy`."""


class Roster:
    """The endpoints of one upstream, by their places. Times are monotonic, in seconds."""

    __slots__ = ("_settings", "_standings", "due")

    STATES = ("available", "ejected", "unhealthy")

    def __init__(self, count: int, settings: HealthSettings) -> None:
        self._settings = settings
        self._standings = [_Standing() for _ in range(count)]
        self.due = math.inf
        """When the next ejection ends: `available` is another then."""

    def available(self, now: float) -> tuple[int, ...]:
        """Places of those that get calls, at least one."""
        ends = [s.ejected_until for s in self._standings if s.ejected_until > now]
        self.due = min(ends, default=math.inf)
        standing = enumerate(self._standings)
        return tuple(i for i, s in standing if s.healthy and s.ejected_until <= now) or tuple(
            range(len(self._standings))
        )

    def state(self, place: int, now: float) -> str:
        """One of `STATES`."""
        standing = self._standings[place]
        if not standing.healthy:
            return "unhealthy"
        return "available" if standing.ejected_until <= now else "ejected"

    # --- passive

    def succeeded(self, place: int) -> None:
        """It answered a call."""
        standing = self._standings[place]
        if standing.failures:
            standing.failures = 0
        if standing.ejections:
            standing.ejections = 0

    def failed(self, place: int, now: float) -> bool:
        """It failed a call; whether it is ejected for that."""
        standing = self._standings[place]
        standing.failures += 1
        if standing.failures < self._settings.consecutive_5xx or standing.ejected_until > now or self._is_full(now):
            return False
        standing.failures = 0
        standing.ejections += 1
        standing.ejected_until = now + min(self._settings.base_ejection_time * standing.ejections, _LONGEST_EJECTION)
        return True

    def _is_full(self, now: float) -> bool:
        """Would one more be too many? Of several endpoints one may always be out, the last one never."""
        out = 1 + sum(s.ejected_until > now for s in self._standings)
        count = len(self._standings)
        return out >= count or (out > 1 and 100 * out > self._settings.max_ejection_percent * count)

    # --- active

    def checked(self, place: int, *, passed: bool) -> bool:
        """It was asked for its health; whether that has turned."""
        standing = self._standings[place]
        if passed == standing.healthy:
            standing.checks = 0
            return False
        standing.checks += 1
        needed = self._settings.healthy_threshold if passed else self._settings.unhealthy_threshold
        if standing.checks < needed:
            return False
        standing.healthy, standing.checks = passed, 0
        return True
