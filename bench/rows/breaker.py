"""`breaker_cost`: what breaker, retry budget, deadline and balancing add to a call by a pool of connections.

One call at a time to the backend, by the gateway's own client on uvloop, without TLS and without a listener: so little
else is done that the difference can be told. `breaker_cost` has the default settings and one endpoint, as most
upstreams have; `breaker_cost_endpoints` chooses between two, each time at random.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import uvloop

from bench.backend import ANSWER
from bench.report import Row, at_most
from bench.stage import Stage, post
from gateway.adapters.clock import SystemClock
from gateway.adapters.upstream import HttpUpstream
from gateway.adapters.upstream_call import Lane
from gateway.adapters.upstream_cluster import Endpoint, HttpCluster
from gateway.config.inert import NoTelemetry
from gateway.ports import settled

IDS = ("breaker_cost",)
MOST = 3.0
"""Microseconds."""
CALLS = 2000
_ROUNDS_EACH = 3
"""Rounds for each that is asked for: these are short."""
_BODY = ANSWER.partition(b"\r\n\r\n")[2]

Way: TypeAlias = HttpUpstream | Lane


async def measure(stage: Stage, rounds: int) -> list[Row]:
    found = await asyncio.to_thread(uvloop.run, costs(stage.backend, rounds * _ROUNDS_EACH, CALLS))
    return list(rows(found))


async def costs(port: int, rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds of CPU per call, a value a round, by the way it goes; they take turns. Raises RuntimeError."""
    pools = [_pool(port) for _ in range(4)]
    try:
        ways: dict[str, Way] = {
            "pool": pools[0],
            "breaker_cost": _cluster(pools[1:2]).lane("authorize"),
            "breaker_cost_endpoints": _cluster(pools[2:4]).lane("authorize"),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                cost = await _cost(way, calls)
                if turn:
                    found[name].append(cost)
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))
    return found


def _pool(port: int) -> HttpUpstream:
    return HttpUpstream("backend", f"http://127.0.0.1:{port}", clock=SystemClock())


def _cluster(pools: Sequence[HttpUpstream]) -> HttpCluster:
    endpoints = [Endpoint(front=pool, reserve=pool) for pool in pools]
    clock, telemetry = SystemClock(), NoTelemetry()
    return HttpCluster("backend", endpoints, clock=clock, telemetry=telemetry, chance=random.random)


async def _cost(way: Way, calls: int) -> float:
    head, _, body = post("/")(0).partition(b"\r\n\r\n")
    lines = head.rpartition(b"\r\nContent-Length")[0] + b"\r\n"
    before = time.thread_time_ns()
    for _ in range(calls):
        connection = await settled(way.acquire(safe=False))
        response = await connection.send("POST", lines, body)
        connection.release()
        if response.body != _BODY:
            raise RuntimeError("the backend gives wrong answers")
    return (time.thread_time_ns() - before) / calls / 1000


def rows(found: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """What each way costs above the pool's, within each round."""
    yield at_most("breaker_cost", _added(found, "breaker_cost"), MOST, "us CPU/call added", "one endpoint, defaults")
    yield at_most(
        "breaker_cost_endpoints", _added(found, "breaker_cost_endpoints"), MOST, "us CPU/call added", "of two"
    )
    yield Row("breaker_cost_pool", statistics.median(found["pool"]), "us CPU/call", note="without them")


def _added(found: Mapping[str, Sequence[float]], name: str) -> float:
    return statistics.median(cost - pool for cost, pool in zip(found[name], found["pool"], strict=True))
