"""Several gateways whose PostgreSQL, and then whose Redis, goes away and comes back in the middle of payments.

Nobody touches the gateways. While something is missing, clients are told so, and when to ask again; the accounts are
those of `money`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo.wire import Answer
from tests.faults.cluster import Cluster, clustered
from tests.faults.money import Found
from tests.postgres import Server
from tests.servers import RunningRedis, running_redis

LIVE_SECONDS = 1.0
"""Between two outages, and after the last one."""
AWAY_SECONDS = 2.0
"""Longer than a lease."""
HONEST = {201, 409, 502, 503, 504}
Outage = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass
class Heard:
    """What clients were answered while something was missing."""

    statuses: set[int] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    """Of the 503s."""
    hasty: int = 0
    """503s that do not say when to ask again."""

    def note(self, answer: Answer) -> None:
        self.statuses.add(answer.status)
        if answer.status == 503:
            self.reasons.add(answer.json()["type"].rpartition(":")[2])
            self.hasty += "retry-after" not in answer.headers


class Bereft(Cluster):
    """Gateways that stay, on stores that do not; `heard` has an entry for each kind of outage."""

    outages: Sequence[Outage] = ()
    heard: Sequence[Heard] = ()
    _missing: Heard | None = None

    async def disturb(self, times: int) -> None:
        """Each outage so many times, one kind after the other."""
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self._nodes))
        self.heard = [Heard() for _ in self.outages]
        for outage, heard in zip(self.outages, self.heard, strict=True):
            for _ in range(times):
                await asyncio.sleep(LIVE_SECONDS)
                await self._without(outage, heard)
        await asyncio.sleep(LIVE_SECONDS)

    def standing(self) -> bool:
        """Every gateway is the process that was started."""
        return all(node.process is not None and node.process.poll() is None for node in self._nodes)

    async def _without(self, outage: Outage, heard: Heard) -> None:
        lost = outage()
        await asyncio.to_thread(lost.__enter__)
        self._missing = heard
        await asyncio.sleep(AWAY_SECONDS)
        self._missing = None
        await asyncio.to_thread(lost.__exit__, None, None, None)

    async def ask(self, content: object, reference: str) -> Answer:
        missing = self._missing
        answer = await super().ask(content, reference)
        if missing is not None and missing is self._missing:
            missing.note(answer)
        return answer


@contextlib.contextmanager
def without_postgres(server: Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()


class Restarted:
    """A Redis that is started again on its port, as often as it was killed."""

    def __init__(self, folder: Path, redis: RunningRedis, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._redis = redis
        self._stack = stack

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self._redis.process.kill()
        self._redis.process.wait()
        yield
        self._redis = self._stack.enter_context(running_redis(self._folder, port=self._redis.port))


async def attack(folder: Path, server: Server, times: int, seed: int) -> tuple[Found, Sequence[Heard]]:
    """The promise: no harm, nothing but honest answers, and no gateway that had to be started again.

    What was heard without PostgreSQL comes first, then what was heard without Redis.
    """
    with contextlib.ExitStack() as stack:
        async with clustered(Bereft, folder, server, seed) as (bereft, database, redis):
            bereft.outages = (lambda: without_postgres(server), Restarted(folder, redis, stack))
            await bereft.kill(times)
            assert bereft.standing()
            return await bereft.count_in(server, database, 0), bereft.heard
