"""Gives memory back after a crowd has gone: an attack shall not cost for as long as the process lives.

The collector seldom runs by itself, since requests leave it nothing to do; those that were cut off leave cycles.
What the allocator was given back it keeps, to be used again, unless it is asked.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from gateway.ports import Telemetry
from gateway.pure.ebb import Ebb


class Ebbing:
    """Looks every `pause` seconds at how many connections are open.

    `give_back` returns what is free to the system; it may block for as long as that takes, and says what went wrong.
    """

    def __init__(
        self, connections: Callable[[], int], give_back: Callable[[], str], telemetry: Telemetry, *, pause: float = 1.0
    ) -> None:
        self._connections = connections
        self._give_back = give_back
        self._telemetry = telemetry
        self._pause = pause
        self._ebb = Ebb()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            await self.step()

    async def step(self) -> None:
        """Give back if it is time."""
        if not self._ebb.is_out(self._connections()):
            return
        gc.collect()  # here and not in a thread: what is collected may belong to the event loop
        wrong = await asyncio.to_thread(self._give_back)
        if wrong:
            self._telemetry.log("memory_not_locked", level="warning", reason=wrong)
