"""An event loop in which nothing is real but the code that runs on it.

Time is virtual and passes only when nobody has anything to do. Of all that is ready the loop runs one step at random,
from a seed: whoever relies on an order that nobody promised is found out, and whatever is found out is found again. A
`Process` is what dies together: kill it, and none of its steps is ever run again, not even a `finally`.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from gateway.adapters.writer import Work

T = TypeVar("T")

STEPS_MAX = 200_000


class Process:
    """What dies together: the tasks that were started in it, and all that they schedule."""

    def __init__(self, loop: Simulation) -> None:
        self.alive = True
        self._loop = loop

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it as a part of this process."""
        return self.context().run(self._loop.create_task, coroutine)

    def context(self) -> contextvars.Context:
        """Whatever is called in here belongs to the process, with all that comes of it."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return context

    def kill(self) -> None:
        """At once, in the middle of everything."""
        self.alive = False


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class SimulationError(AssertionError):
    """A life that cannot go on: everybody waits, nobody comes to an end, or a step raised that nobody waits for."""


class Simulation(asyncio.AbstractEventLoop):
    """`rng` is for everything random that is a part of the same life; `after_step` is called between any two steps.

    `note` writes a line into the digest, by which two runs are compared, and into the trace, if there is one.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.rng = random.Random(seed)
        self.steps = 0
        self.after_step: Callable[[], None] = lambda: None
        self._mishap = ""
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._frozen: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._burying = False
        self._outside = contextvars.Context()
        self._trace = trace
        self._digest = hashlib.sha256()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Until `main` returns; raises what it raises, and `SimulationError`."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._step()
                if self._mishap:
                    raise SimulationError(self._mishap)
                if self.steps > STEPS_MAX:
                    raise SimulationError(f"no end after {STEPS_MAX} steps")
            return task.result()
        finally:
            self._bury()
            asyncio._set_running_loop(None)

    def note(self, line: str) -> None:
        text = f"{self._now:12.6f} {self.steps:6d} {line}"
        self._digest.update(text.encode() + b"\n")
        if self._trace is not None:
            self._trace(text)

    def digest(self) -> str:
        """Of every line noted so far, and of the randomness that is left."""
        digest = self._digest.copy()
        digest.update(repr((self.steps, self._now, self.rng.getstate())).encode())
        return digest.hexdigest()

    # --- steps

    def _step(self) -> None:
        handle = self._next()
        process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]
        if handle.cancelled():
            return
        if process is not None and not process.alive:
            self._frozen.append(handle)
            return
        self.steps += 1
        handle._run()
        self.after_step()

    def _next(self) -> asyncio.Handle:
        ready, timers = self._ready, self._timers
        if not ready:
            if not timers:
                raise SimulationError("everybody waits")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        chosen = int(self.rng.random() * len(ready))
        ready[chosen], ready[-1] = ready[-1], ready[chosen]
        return ready.pop()

    def _bury(self) -> None:
        """Let what was frozen, and what is left, unwind where it harms nobody: tasks must not be dropped half-way."""
        self._burying = True
        self._ready += self._frozen
        self._frozen = []
        self._timers.clear()
        for _ in range(3):
            for task in self._tasks:
                task.cancel()
            for _ in range(STEPS_MAX):
                if not self._ready:
                    break
                handle = self._ready.pop(0)
                if not handle.cancelled():
                    handle._run()
            self._tasks = [task for task in self._tasks if not task.done()]
        assert not self._tasks, f"these tasks do not end: {self._tasks}"

    # --- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def outside(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Later, and whoever dies meanwhile: what is on its way does not die with who sent it."""
        self.call_later(delay, callback, *args, context=self._outside)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coroutine, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._burying:
            self._mishap = f"{context.get('message')}: {context.get('exception')!r}"

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...


class ScheduledWriter:
    """The store's writer as a step among steps (implements `gateway.adapters.writer.Writer`).

    Each piece of work takes its time, and nothing else of the store happens meanwhile; an idle moment comes when the
    queue has been empty for as long.
    """

    def __init__(self, loop: Simulation, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._queue: deque[Work | None] = deque()
        self._chore: Work | None = None
        self._under_way = False
        self._ended = loop.create_future()

    def put(self, work: Work | None) -> None:
        """See `Writer`."""
        self._queue.append(work)
        self._later()

    async def join(self) -> None:
        """See `Writer`."""
        await asyncio.shield(self._ended)

    def _later(self) -> None:
        if not self._under_way:
            self._under_way = True
            self._loop.call_later(self._loop.rng.random() * self._seconds, self._work)

    def _work(self) -> None:
        self._under_way = False
        work = self._queue.popleft() if self._queue else self._chore
        self._chore = None
        if work is None:
            self._ended.set_result(None)
            return
        self._chore = work()
        if self._queue or self._chore is not None:
            self._later()
