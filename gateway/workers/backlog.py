"""Commits what the store could not take when it was due: how requests ended, and claims of what was never sent.

Nothing depends on it. Units are fenced: one that comes too late, or undoes what never became durable, is refused and
does no harm; and one that is lost with its process leaves what it was about in doubt, as it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from gateway.operations import Operation, Row
from gateway.ports import Store, Telemetry, Unavailable

UNITS_MAX = 1_000
BYTES_MAX = 64 * 1024 * 1024
"""Of responses that are kept with them."""

_Late = tuple[Sequence[Operation[Row]], int]
"""A unit and the size of its response."""


class Backlog:
    """Implements `ports.Backlog`. The store is asked every `pause` seconds, as long as something is late."""

    def __init__(self, store: Store, telemetry: Telemetry, *, pause: float = 0.5) -> None:
        self._store = store
        self._telemetry = telemetry
        self._pause = pause
        self._late: deque[_Late] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    def keep(self, unit: Sequence[Operation[Row]], size: int) -> None:
        """See `ports.Backlog`."""
        if len(self._late) < UNITS_MAX and self._bytes + size <= BYTES_MAX:
            self._late.append((tuple(unit), size))
            self._bytes += size
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._pause)
            await self.step()

    async def step(self) -> None:
        """Commit what is late; what the store still cannot take stays."""
        late, self._late, self._bytes = self._late, deque(), 0
        self._some.clear()
        taken = sum(await asyncio.gather(*(self._commit(unit, size) for unit, size in late)))
        if taken:
            self._telemetry.log("settled_late", units=taken, left=len(self._late))

    async def _commit(self, unit: Sequence[Operation[Row]], size: int) -> bool:
        """Whether the store took it, which is also to refuse it."""
        try:
            await self._store.commit(unit)
        except Unavailable:
            self.keep(unit, size)
            return False
        except Exception:  # noqa: BLE001 - a value that could not be rendered, as it could not be before
            return True
        return True
