"""Waiting for what somebody else is about to finish: all are woken when it is, and else one of them looks for all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

T = TypeVar("T")


class _Awaited:
    """One thing under way. `over`: it may be finished; `looked_at`: when somebody has looked last."""

    __slots__ = ("looked_at", "over", "waiters")

    def __init__(self, now: float) -> None:
        self.over = asyncio.Event()
        self.looked_at = now
        self.waiters = 0


class WaitingRoom:
    """At most `most` wait, for whatever. What another process finishes is seen within `poll` seconds."""

    def __init__(self, most: int, poll: float) -> None:
        self._most = most
        self._poll = poll
        self._waiters = 0
        self._awaited: dict[Hashable, _Awaited] = {}

    def finished(self, key: Hashable) -> None:
        """Whoever waits for `key` looks now."""
        awaited = self._awaited.get(key)
        if awaited is not None:
            awaited.over.set()

    async def wait(self, key: Hashable, seconds: float, look: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `look` finds once `key` is finished; None if that takes longer, or there is no room.

        Raises what `look` raises. As long as nothing is finished, one of all who wait for `key` looks at a time.
        """
        if self._waiters >= self._most:
            return None
        awaited = self._awaited.setdefault(key, _Awaited(asyncio.get_running_loop().time()))
        self._waiters += 1
        awaited.waiters += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._found(awaited, look)
        except TimeoutError:
            return None
        finally:
            self._waiters -= 1
            awaited.waiters -= 1
            if not awaited.waiters:
                del self._awaited[key]

    async def _found(self, awaited: _Awaited, look: Callable[[], Awaitable[T | None]]) -> T:
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await awaited.over.wait()
            if not awaited.over.is_set() and clock() < awaited.looked_at + self._poll:
                continue
            awaited.looked_at = clock()
            found = await look()
            if found is not None:
                awaited.over.set()
                return found
            awaited.over.clear()
