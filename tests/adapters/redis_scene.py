"""Gateways on real Redis servers: connected, under load, and waiting for what is to happen to them."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.redis import RedisShared, open_redis
from gateway.adapters.redis_node import Access
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.redis_topology import Topology
from gateway.ports import Hit, Unavailable
from gateway.pure.gcra import SECOND, Limit
from tests.conftest import CountingEntropy, HandClock, Recorder

Connect = Callable[..., tuple[RedisShared, RedisSad]]


@pytest.fixture
async def connect(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Connect]:
    """Another gateway of the deployment."""
    (tmp_path / "root.key").write_text(generate_key())
    (tmp_path / "root.key").chmod(0o600)
    keys = FileKeys(tmp_path / "root.key")
    opened: list[RedisShared] = []

    def make(topology: Topology, access: Access = Access(), **options: Any) -> tuple[RedisShared, RedisSad]:  # noqa: B008
        ports = {"clock": clock, "entropy": CountingEntropy(), "keys": keys, "telemetry": telemetry}
        shared, sad = open_redis(topology, access, **ports, **options)
        opened.append(shared)
        return shared, sad

    yield make
    for shared in opened:
        await shared.close()


def limited(tag: str, name: str = "", amount: int = 300) -> Hit:
    """So slow to fill up again that no test sees it."""
    return Hit("{" + tag + "}" + name, "fixed_window", Limit(amount, 86_400 * SECOND, amount), True)


async def tried(shared: RedisShared, *hits: Hit) -> str:
    try:
        decisions = await shared.hit(hits)
    except Unavailable:
        return "unavailable"
    return "allowed" if all(decision.allowed for decision in decisions) else "limited"


async def happens(happened: Callable[[], bool], what: str) -> None:
    for _ in range(12_000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what}: not within 60 s")


class Load:
    """Many who ask without a pause, until it is left."""

    def __init__(self, gateways: Sequence[RedisShared], *hits: Hit, callers: int = 8) -> None:
        self.results: Counter[str] = Counter()
        self._enough = False
        self._callers = [asyncio.ensure_future(self._ask(g, hits)) for g in gateways for _ in range(callers)]

    async def _ask(self, shared: RedisShared, hits: Sequence[Hit]) -> None:
        while not self._enough:
            self.results[await tried(shared, *hits)] += 1
            await asyncio.sleep(0)

    async def reaches(self, result: str, count: int) -> None:
        await happens(lambda: self.results[result] >= count, f"{count} times {result}")

    async def end(self) -> Counter[str]:
        self._enough = True
        await asyncio.gather(*self._callers)
        return self.results


async def found(shared: RedisShared, seconds: float = 60.0) -> float:
    """Ask until there is an answer; for how long that was, in seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + seconds:
        with suppress(Unavailable):
            await shared.first_use([uuid.uuid4().hex], 1.0)
            return loop.time() - began
        await asyncio.sleep(0.005)
    raise AssertionError(f"no answer in {seconds} s")


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """The process stands still, and its connections stay open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
