"""A bulkhead: so many calls at once, so many that wait for one of them to end, in the order of their coming."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

W = TypeVar("W")


class Bulkhead(Generic[W]):
    """Slots, and those who wait for one. A slot that is handed on is never free in between."""

    __slots__ = ("_limit", "_max_pending", "_waiting", "taken")

    def __init__(self, limit: int, max_pending: int) -> None:
        self._limit = limit
        self._max_pending = max_pending
        self._waiting: deque[W] = deque()
        self.taken = 0

    @property
    def load(self) -> int:
        """How many have a slot or wait for one."""
        return self.taken + self.waiting

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take(self) -> bool:
        """A free slot, if there is one."""
        if self.taken >= self._limit:
            return False
        self.taken += 1
        return True

    def queue(self, waiter: W) -> bool:
        """Wait for the next slot; False if too many do."""
        if len(self._waiting) >= self._max_pending:
            return False
        self._waiting.append(waiter)
        return True

    def leave(self, waiter: W) -> None:
        """Wait no longer; nothing happens to who does not wait."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def next(self) -> W | None:
        """Who waits longest, and gets the slot that one of the others has done with; nobody: `free` it."""
        return self._waiting.popleft() if self._waiting else None

    def free(self) -> None:
        self.taken -= 1
