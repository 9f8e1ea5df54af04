"""`redis_limit`: what it adds to count three rates of a route in Valkey (or Redis) instead of in memory.

Two gateways with the same configuration but for `shared`; 16 requests under way at a time. The server runs on the
loader's core, over TCP on loopback, and its CPU is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.report import Row, at_most
from bench.rounds import Samples, Variant, difference, median, play
from bench.stage import Stage
from tests.servers import VOLATILE, running_redis

IDS = ("redis_limit",)
CONNECTIONS = 16
REQUESTS = 4000
MOST = 40.0
"""Microseconds."""


async def measure(stage: Stage, rounds: int) -> list[Row]:
    with running_redis(stage.folder, *VOLATILE) as server, stage.nested() as gateways:
        proxies = {
            "limited_memory": gateways.pangate(name="memory"),
            "limited_redis": gateways.pangate(name="redis", BENCH_SHARED=server.url),
        }
        variants = [
            Variant(name, proxy, stage.target(proxy, "/limited"), CONNECTIONS, REQUESTS)
            for name, proxy in proxies.items()
        ]
        return rows(play(variants, rounds))


def rows(found: Mapping[str, Samples]) -> list[Row]:
    added = difference(found, "limited_redis", "limited_memory")
    return [
        at_most("redis_limit", added, MOST, "us CPU/request added", "three rates, one round trip"),
        Row("limited_redis_16", median(found, "limited_redis"), "us CPU/request"),
        Row("limited_memory_16", median(found, "limited_memory"), "us CPU/request"),
    ]
