"""Who does the work of a store, off the event loop: one piece at a time, in the order in which it came."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

IDLE_SECONDS = 0.02

Chore = Callable[[], None]
Work = Callable[[], Chore | None]
"""A piece of work. It answers what else could be done should nobody come for a while; neither of the two raises."""


class Writer(Protocol):
    """Takes work from the event loop. What it did is told by the work itself (`call_soon_threadsafe`)."""

    def put(self, work: Work | None) -> None:
        """Do this when all before it is done. None is the end: nothing comes after it."""
        ...

    async def join(self) -> None:
        """Until the end was reached."""
        ...


class WriterThread:
    """A thread of its own. A chore that waits for an idle moment is dropped when work comes first."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Work | None) -> None:
        """See `Writer`."""
        self._queue.put(work)

    async def join(self) -> None:
        """See `Writer`."""
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        chore: Chore | None = None
        while True:
            try:
                work = self._queue.get(timeout=None if chore is None else IDLE_SECONDS)
            except queue.Empty:
                assert chore is not None
                chore()
                chore = None
                continue
            if work is None:
                return
            chore = work()
