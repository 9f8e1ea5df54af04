"""Starts workers, starts them again when they die, replaces them, and speaks for all of them.

It binds the sockets, one of each listener for each worker (SO_REUSEPORT), and keeps them open as long as it lives: a
connection that the kernel has made is in a queue that somebody empties, whatever becomes of a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.adapters.clock import SystemClock
from gateway.adapters.exposition import dump_families, exposition, load_families, process_families
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.app import rejected
from gateway.check import recheck
from gateway.config.build import Config
from gateway.config.complaints import ConfigError
from gateway.ports import Unavailable
from gateway.pure.metrics import Metric
from gateway.pure.series import Series
from gateway.pure.supervision import Restarts, share_out
from gateway.server.actions import Action, Reply
from gateway.supervising.channel import Failed, Gone
from gateway.supervising.process import HUNG_SECONDS, WorkerProcess

PULSE_SECONDS = 1.0
"""Between two times that the workers say what they have counted: what a killed one did not say is lost."""
_ANSWER_SECONDS = 3.0
"""For those who ask and wait: a worker that takes longer goes without."""
_LATE_SECONDS = 10.0
"""What a worker may take beyond `drain`, twice (requests, then loops), before it is killed."""


class Supervisor:
    """Serves by `config.settings.workers` processes. `actions` are those of the worker that leads."""

    def __init__(self, path: Path, config: Config, telemetry: PrometheusTelemetry) -> None:
        self.config = config
        self.actions: Sequence[Action] = ()
        self._path = path
        self._telemetry = telemetry
        self._clock = SystemClock()
        self._sockets: Mapping[str, Sequence[socket.socket]] = {}
        self._seats: list[WorkerProcess | None] = [None] * config.settings.workers
        self._workers: set[WorkerProcess] = set()
        """All that live, also those that begin or leave."""
        self._numbers: set[int] = set()
        """Theirs. Who comes after a dead one gets its number, and so bears its name toward the store, where what it had
        in flight is nobody's at once."""
        self._leader: WorkerProcess | None = None
        self._restarts = [Restarts()] * config.settings.workers
        self._ended = Series()
        self._changing = asyncio.Lock()
        self._retry = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life

    async def open(self, sockets: Mapping[str, Sequence[socket.socket]]) -> None:
        """On return every worker serves. Raises ValueError."""
        self._sockets = sockets
        begun = await asyncio.gather(*(self._start(seat) for seat in range(len(self._seats))))
        if not all(begun):
            raise ValueError("not every worker could begin; what they said stands above")
        self._telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 1)
        self._telemetry.log("started", digest=self.config.digest, workers=len(self._seats))

    def retire(self) -> None:
        """Start no worker any more; those there are end each connection after its next answer."""
        self._stopping = True
        self._telemetry.log("draining")
        for worker in self._workers:
            worker.tell("retire")

    async def close(self) -> None:
        """Let all workers end what is under way, and end."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for group in self._sockets.values():
            for one in group:
                one.close()
        await asyncio.gather(*(self._leave(worker, 0.0) for worker in self._workers))
        self._telemetry.log("stopped", workers=len(self._seats))

    async def _leave(self, worker: WorkerProcess, grace: float) -> None:
        worker.tell("leave", grace)
        seconds = grace + 2 * self.config.settings.drain + _LATE_SECONDS
        done, _ = await asyncio.wait([worker.ended], timeout=seconds)
        if not done:
            self._telemetry.log("worker_killed", level="error", pid=worker.pid, seconds=seconds)
            worker.kill()
            await worker.ended

    # --- seats

    async def _start(self, seat: int) -> bool:
        """Put a new worker into a seat; False if it could not begin."""
        began, digest = self._clock.monotonic(), self.config.digest
        number = min(set(range(len(self._numbers) + 1)) - self._numbers)
        self._numbers.add(number)
        try:
            worker = await WorkerProcess.spawn(seat, number, self._sockets)
        except OSError as error:
            self._numbers.discard(number)
            self._telemetry.log("worker_failed", level="error", seat=seat + 1, error=str(error))
            return False
        self._workers.add(worker)
        self._spawn(self._mourn(worker, began))
        said = await worker.begin(digest)
        if "error" in said or self._is_late(worker):
            why = said.get("error", "it is late: others have gone on")
            self._telemetry.log("worker_failed", level="error", pid=worker.pid, seat=seat + 1, error=why)
            worker.tell("leave", 0.0)
            return False
        self._telemetry.log("worker_started", pid=worker.pid, seat=seat + 1)
        self._spawn(self._feel_pulse(worker))
        self.actions = [
            Action(method, path, functools.partial(self._act, method, path)) for method, path in said["actions"]
        ]
        before, self._seats[seat] = self._seats[seat], worker
        if before is not None:
            await self._relieve(before)
        self._share_out()
        return True

    def _is_late(self, worker: WorkerProcess) -> bool:
        """It has ended already, it is not wanted any more, or the others took another configuration meanwhile."""
        return worker.ended.done() or self._stopping or worker.digest != self.config.digest

    async def _relieve(self, worker: WorkerProcess) -> None:
        """Let a worker go whose seat another one has taken: first as the leader, so that there is never a second."""
        if worker is self._leader:
            with contextlib.suppress(Gone, Failed, TimeoutError):
                await worker.ask("follow", None, self.config.settings.drain + _ANSWER_SECONDS)
            self._leader = None
        self._spawn(self._leave(worker, self.config.settings.drain))

    async def _mourn(self, worker: WorkerProcess, began: float) -> None:
        """Keep what a worker has counted once it ends; if its seat is vacant then, fill it."""
        code = await asyncio.shield(worker.ended)
        self._workers.discard(worker)
        self._numbers.discard(worker.number)
        self._ended.keep(worker.series)
        if worker is self._leader:
            self._leader = None
        if self._seats[worker.seat] is not worker:
            return
        self._seats[worker.seat] = None
        self._share_out()
        if self._stopping:
            return
        self._telemetry.count(Metric.WORKER_DEATHS)
        self._telemetry.log("worker_died", level="error", pid=worker.pid, seat=worker.seat + 1, code=code)
        await self._fill(worker.seat, self._clock.monotonic() - began)

    async def _fill(self, seat: int, lived: float) -> None:
        """Start workers until one of them begins, ever more seldom."""
        while not self._stopping:
            self._restarts[seat] = self._restarts[seat].after(lived)
            self._retry.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retry.wait(), self._restarts[seat].pause)
            began = self._clock.monotonic()
            if await self._start(seat):
                return
            lived = self._clock.monotonic() - began

    def _share_out(self) -> None:
        """Say who accepts where, and who leads."""
        taken = {seat: worker for seat, worker in enumerate(self._seats) if worker is not None}
        self._telemetry.set(Metric.WORKERS, len(taken))
        for seat, seats in share_out(taken, len(self._seats)).items():
            taken[seat].tell("accept", seats)
        if self._leader is None and taken and not self._stopping:
            self._leader = taken[min(taken)]
            self._leader.tell("lead")
            self._telemetry.log("worker_leads", pid=self._leader.pid, seat=self._leader.seat + 1)

    # --- configuration

    async def reload(self) -> Sequence[str]:
        """All workers take the new configuration, or none does. The complaints, if it was not taken."""
        async with self._changing:
            return await self._reload()

    async def _reload(self) -> Sequence[str]:
        try:
            config = await asyncio.to_thread(recheck, self._path, self.config.settings)
        except ConfigError as error:
            return rejected(error, self._telemetry, self.config.digest)
        workers = [worker for worker in self._seats if worker is not None]
        try:
            prepared = await asyncio.gather(*(worker.ask("prepare") for worker in workers))
        except (Gone, Failed):
            return rejected(ValueError("a worker died meanwhile: reload again"), self._telemetry, self.config.digest)
        complaints = {complaint for each in prepared for complaint in each["complaints"]}
        if not complaints and {each["digest"] for each in prepared} - {config.digest}:
            complaints = {"the files changed while they were read: reload again"}
        if complaints:
            self._telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 0)
            return sorted(complaints)
        self.config = config
        for worker in workers:
            worker.digest = config.digest
            worker.tell("apply")
        for late in (worker for worker in self._seats if worker is not None and self._is_late(worker)):
            late.tell("leave", config.settings.drain)
        self._telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 1)
        self._retry.set()
        return []

    async def roll(self) -> Sequence[str]:
        """Reload, then replace every worker by a new process, one after the other; the complaints, if that failed."""
        async with self._changing:
            complaints = await self._reload()
            if complaints:
                return complaints
            self._telemetry.log("rolling")
            for seat, worker in enumerate(self._seats):
                if worker is not None and not self._stopping and not await self._start(seat):
                    self._telemetry.log("roll_ended_early", level="error", seat=seat + 1)
                    return [f"no new worker could begin in seat {seat + 1}; the log says why"]
            self._telemetry.log("rolled")
            return []

    # --- for all of them

    async def checks(self) -> Mapping[str, bool]:
        """A check passes if it does for every worker that answers; `workers`: there is one."""
        seated = [worker for worker in self._seats if worker is not None]
        answers = await asyncio.gather(
            *(worker.ask("checks", None, _ANSWER_SECONDS) for worker in seated), return_exceptions=True
        )
        passed: list[Mapping[str, bool]] = [answer for answer in answers if not isinstance(answer, BaseException)]
        names = {name for answer in passed for name in answer}
        return {"workers": bool(passed), **{name: all(answer[name] for answer in passed) for name in names}}

    async def scrape(self) -> tuple[bytes, str]:
        """What all workers, living and dead, have counted; and what each living process takes of the machine."""
        begun = (worker for worker in self._workers if worker.begun)
        await asyncio.gather(*(worker.count(_ANSWER_SECONDS) for worker in begun), return_exceptions=True)
        series = Series.together(self._ended, [self._telemetry.counted(), *(each.series for each in self._workers)])
        seated = ((str(seat + 1), worker.families) for seat, worker in enumerate(self._seats) if worker is not None)
        return exposition(series, load_families([("supervisor", dump_families(process_families())), *seated]))

    async def _feel_pulse(self, worker: WorkerProcess) -> None:
        while not worker.ended.done():
            await asyncio.sleep(PULSE_SECONDS)
            try:
                await worker.count(HUNG_SECONDS)
            except TimeoutError:
                self._telemetry.log("worker_hung", level="error", pid=worker.pid, seconds=HUNG_SECONDS)
                worker.kill()

    async def _act(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Reply:
        """What the leader answers. Raises ValueError for a body that is no text, and `Unavailable`."""
        about = {"method": method, "path": path, "query": dict(query), "body": body.decode()}
        if self._leader is None:
            raise Unavailable("worker")
        try:
            status, document = await self._leader.ask("act", about, HUNG_SECONDS)
        except (Gone, Failed, TimeoutError):
            raise Unavailable("worker") from None
        return status, document

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
