"""`redis_limit`: what it adds to count three rates of a route in Valkey (or Redis) instead of in memory.

Two gateways with the same configuration but for `shared`; 16 requests under way at a time. The server runs on the
loader's core, over TCP on loopback, and its CPU is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import redis

from bench.report import Row, at_most
from bench.rounds import WARM_UP, Samples, Variant, difference, median, play
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
        found = play(variants, rounds)
        return rows(found, scripts(server.url) / (rounds * (REQUESTS + CONNECTIONS * WARM_UP)))


def scripts(url: str) -> int:
    """Scripts that the server has run. Raises redis.RedisError."""
    with redis.Redis.from_url(url) as client:
        commands = client.info("commandstats")
    return sum(told["calls"] for name, told in commands.items() if name.startswith(("cmdstat_eval", "cmdstat_fcall")))


def rows(found: Mapping[str, Samples], asked: float) -> list[Row]:
    """`asked`: scripts that the server ran for each request; if there were none, something else was measured."""
    added = difference(found, "limited_redis", "limited_memory") if asked else None
    note = f"three rates, {asked:.2f} scripts a request"
    return [
        at_most("redis_limit", added, MOST, "us CPU/request added", note),
        Row("limited_redis_16", median(found, "limited_redis"), "us CPU/request"),
        Row("limited_memory_16", median(found, "limited_memory"), "us CPU/request"),
    ]
