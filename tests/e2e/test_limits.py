"""A limit of so many admits so many: through the whole gateway, all at once, alone or two of them on one Redis."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.demo_world import serving
from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.servers import VOLATILE, running_redis
from tests.upstreams import OK, ScriptedUpstream, answering, scripted

LIMIT = 50
OVER = 30
SECONDS = 60.0

CONFIG = """
version: 1
listeners: {plain: {bind: "127.0.0.1:${PANGATE_PLAIN_PORT}"}}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
shared: SHARED
upstreams: {shop: {url: "http://127.0.0.1:${PANGATE_SHOP_PORT}"}}
routes:
"""
ROUTE = """
  - {name: NAME, listener: plain, match: {path: /NAME}, policy: NAME, upstream: shop}
"""
POLICY = """
rules:
  - {kind: rate_limit, key: [peer.address], rate: LIMIT/day, MORE}
"""
STRATEGIES = {
    "gcra": f"burst: {LIMIT}",
    "moving": "strategy: moving_window",
    "sliding": "strategy: sliding_window_counter",
}
MODES = {mode: f"burst: {LIMIT}, on_store_error: {mode}" for mode in ("deny", "local", "allow")}


@dataclass(frozen=True, slots=True)
class Answered:
    """`fields` has names in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: str) -> Answered:
    writer.write(f"GET /{route} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answered(int(first.split()[1]), fields, await reader.readexactly(int(fields["content-length"])))


async def burst(gateways: Sequence[Gateway], route: str, requests: int = LIMIT + OVER) -> list[Answered]:
    """Requests all at once, each on a connection of its own, an equal share to each gateway."""
    ports = [gateways[i % len(gateways)].ports["plain"] for i in range(requests)]
    connections = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
    try:
        return await asyncio.gather(*(ask(reader, writer, route) for reader, writer in connections))
    finally:
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def sharing(
    folder: Path, shared: str, policies: Mapping[str, str], count: int = 1, limit: int = LIMIT
) -> AsyncIterator[tuple[list[Gateway], ScriptedUpstream]]:
    """Gateways with these policies, a route to each, on the same counters; and the shop behind them."""
    config = CONFIG.replace("SHARED", shared)
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(scripted(answering(OK)))
        gateways = []
        for number in range(count):
            own = folder / str(number)
            (own / "policies").mkdir(parents=True)
            (own / "config.yaml").write_text(config + "".join(ROUTE.replace("NAME", name) for name in policies))
            for name, more in policies.items():
                text = POLICY.replace("LIMIT", str(limit)).replace("MORE", more)
                (own / "policies" / f"{name}.yaml").write_text(text)
            gateway = Gateway(own, {**free_ports("plain", "admin"), "shop": shop.port})
            gateways.append(await stack.enter_async_context(serving(gateway)))
        yield gateways, shop


def statuses(answers: Sequence[Answered]) -> Mapping[int, int]:
    return Counter(answer.status for answer in answers)


async def admits_exactly_the_limit(gateways: Sequence[Gateway], shop: ScriptedUpstream, route: str) -> None:
    before = len(shop.requests)
    answers = await burst(gateways, route)
    assert statuses(answers) == {200: LIMIT, 429: OVER}, route
    assert all(int(answer.fields["retry-after"]) > 0 for answer in answers if answer.status == 429)
    assert len(shop.requests) - before == LIMIT
    decided = [
        sum(gateway.metric("pangate_ratelimit_decisions_total", policy=f"{route}-1", result=r) for gateway in gateways)
        for r in ("allowed", "limited")
    ]
    assert decided == [LIMIT, OVER]


@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_limit_on_redis_admits_exactly_its_number(tmp_path: Path, gateways: int) -> None:
    with running_redis(tmp_path, *VOLATILE) as redis:
        async with sharing(tmp_path, redis.url, STRATEGIES, gateways) as (started, shop):
            for route in STRATEGIES:
                await admits_exactly_the_limit(started, shop, route)


async def test_a_limit_in_memory_admits_exactly_its_number(tmp_path: Path) -> None:
    async with sharing(tmp_path, "memory", STRATEGIES) as (started, shop):
        for route in STRATEGIES:
            await admits_exactly_the_limit(started, shop, route)


async def test_two_gateways_with_counters_of_their_own_admit_twice_the_number(tmp_path: Path) -> None:
    async with sharing(tmp_path, "memory", {"gcra": STRATEGIES["gcra"]}, 2) as (started, _):
        assert statuses(await burst(started, "gcra", 2 * LIMIT + OVER)) == {200: 2 * LIMIT, 429: OVER}


async def test_without_redis_each_limit_does_what_it_says_until_redis_is_back(tmp_path: Path) -> None:
    with running_redis(tmp_path, *VOLATILE) as redis:
        async with sharing(tmp_path, redis.url, MODES) as (started, shop):
            for route in MODES:
                assert statuses(await burst(started, route, OVER)) == {200: OVER}
            redis.process.kill()
            redis.process.wait()

            forwarded = len(shop.requests)
            denied = await burst(started, "deny")
            assert {(a.status, a.fields["retry-after"]) for a in denied} == {(503, "1")}
            assert {json.loads(a.body)["type"] for a in denied} == {"urn:pangate:problem:limiter_unavailable"}
            assert len(shop.requests) == forwarded
            assert statuses(await burst(started, "local")) == {200: LIMIT, 429: OVER}
            assert statuses(await burst(started, "allow")) == {200: LIMIT + OVER}

            (gateway,) = started
            lost = {mode: gateway.metric("pangate_ratelimit_store_errors_total", mode=mode) for mode in MODES}
            assert lost == dict.fromkeys(MODES, LIMIT + OVER)
            refused = gateway.metric("pangate_blocked_total", route="deny", reason="limiter_unavailable")
            assert refused == LIMIT + OVER
            await asyncio.to_thread(wait_until, lambda: gateway.lines("redis_lost"), what="a line of log")

            with running_redis(tmp_path, *VOLATILE, port=redis.port):
                await asyncio.to_thread(wait_until, lambda: gateway.lines("redis_found"), what="Redis, found again")
                for route in MODES:
                    assert statuses(await burst(started, route)) == {200: LIMIT, 429: OVER}, route


async def hammer(gateway: Gateway, route: str, enough: asyncio.Event) -> Counter[int]:
    """Ask over one connection, again and again; how often which status came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["plain"])
    got: Counter[int] = Counter()
    try:
        while not enough.is_set():
            got[(await ask(reader, writer, route)).status] += 1
    finally:
        writer.close()
        await writer.wait_closed()
    return got


async def test_a_redis_that_dies_under_load_is_counted_and_never_answered_with_a_crash(tmp_path: Path) -> None:
    with running_redis(tmp_path, *VOLATILE) as redis:
        async with sharing(tmp_path, redis.url, MODES) as ((gateway,), shop):
            enough = asyncio.Event()
            busy = [asyncio.create_task(hammer(gateway, route, enough)) for route in MODES]
            await asyncio.wait_for(shop.until(lambda: len(shop.requests) >= LIMIT), SECONDS)
            redis.process.kill()

            def all_noticed() -> bool:
                return len(gateway.samples("pangate_ratelimit_store_errors_total")) == len(MODES)

            await asyncio.to_thread(wait_until, all_noticed, what="the loss of Redis")
            enough.set()
            deny, local, allow = await asyncio.gather(*busy)
            assert deny[503] > 0
            assert deny.keys() <= {200, 429, 503}
            assert deny[200] <= LIMIT
            assert local.keys() <= {200, 429}
            assert local[200] <= 2 * LIMIT
            assert allow.keys() <= {200, 429}
            assert gateway.metric("pangate_ratelimit_store_errors_total", mode="deny") == deny[503]
            assert gateway.metric("pangate_blocked_total", reason="limiter_unavailable") == deny[503]
            assert gateway.metric("pangate_requests_total", code="500") == 0
