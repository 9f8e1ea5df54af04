"""How often, and when, something is tried again: a budget that keeps retries a small part of all calls, and waits."""

from __future__ import annotations

from dataclasses import dataclass

BURST = 10.0
"""Retries that may be saved up, and that there are from the start: a busy hour does not pay for a storm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """`num_retries` of one call; `budget_percent` of the calls, and `min_retries_per_second` besides.

    Waits between `base_interval` and `max_interval` seconds.
    """

    num_retries: int = 2
    budget_percent: float = 20.0
    min_retries_per_second: float = 1.0
    base_interval: float = 0.025
    max_interval: float = 0.25


class Budget:
    """What may be spent on retries. Every call pays in a part of a retry, and time a few."""

    __slots__ = ("_balance", "_calls", "_floor", "_floor_at", "_part", "_rate")

    def __init__(self, settings: RetrySettings, now: float) -> None:
        self._part = settings.budget_percent / 100
        self._rate = settings.min_retries_per_second
        self._floor = self._rate
        self._floor_at = now
        self._balance = BURST if self._part else 0.0
        self._calls = 0

    def spend(self, now: float, calls: int) -> bool:
        """May a call be made again, now that `calls` were made for the first time since the start?"""
        self._balance = min(self._balance + (calls - self._calls) * self._part, BURST if self._part else 0.0)
        self._calls = calls
        self._floor = min(self._floor + (now - self._floor_at) * self._rate, max(self._rate, 1.0) if self._rate else 0)
        self._floor_at = now
        if self._floor >= 1:
            self._floor -= 1
        elif self._balance >= 1:
            self._balance -= 1
        else:
            return False
        return True


def back_off(settings: RetrySettings, before: float, chance: float) -> float:
    """Seconds to wait, `before` being the last wait (0: none), by decorrelated jitter; `chance` in [0, 1)."""
    base = settings.base_interval
    return min(settings.max_interval, base + chance * (max(before, base) * 3 - base))
