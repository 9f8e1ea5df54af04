"""Gateways on Redis as it is deployed, when it fails in the middle of their work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.e2e.harness import Gateway, wait_until
from tests.e2e.test_limits import LIMIT, OVER, burst, hammer, sharing, statuses
from tests.redis_deployments import MASTER, documented_user, tls_redis, watched_redis

FIXED = "strategy: fixed_window"


class Load:
    """Callers who ask without a pause, an equal number of each gateway."""

    def __init__(self, gateways: Sequence[Gateway], route: str, callers: int) -> None:
        self._enough = asyncio.Event()
        self._callers = [
            asyncio.create_task(hammer(gateway, route, self._enough)) for gateway in gateways for _ in range(callers)
        ]

    async def end(self) -> Counter[int]:
        self._enough.set()
        return sum(await asyncio.gather(*self._callers), Counter())


async def happens(happened: object, what: str) -> None:
    await asyncio.to_thread(wait_until, happened, 20.0, what)


async def test_by_tls_as_a_user_the_limit_is_exact_and_a_restart_in_mid_load_heals_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "correct-horse")
    authority = Authority(tmp_path)
    ours = authority.client("gateway", "spiffe://shop.example/gateway")
    user = ("--user", "default", "off", "--user", *documented_user())
    with tls_redis(tmp_path, authority, *user) as redis:
        tls = f"{{ca: {authority.file}, certificate: {ours.certificate}, key: file:{ours.key}}}"
        where = f'url: "rediss://127.0.0.1:{redis.port}", username: pangate, password: env:REDIS_PASSWORD'
        policies = {"exact": FIXED, "deny": FIXED}
        async with sharing(tmp_path, f"{{{where}, tls: {tls}}}", policies, 2) as (gateways, shop):
            assert statuses(await burst(gateways, "exact")) == {200: LIMIT, 429: OVER}
            load = Load(gateways, "deny", 2)
            await asyncio.wait_for(shop.until(lambda: len(shop.requests) >= LIMIT + LIMIT // 2), 60)
            redis.process.kill()
            redis.process.wait()
            for gateway in gateways:
                await happens(lambda: gateway.metric("pangate_shared_servers_lost") == 1, "the loss")  # noqa: B023
            with tls_redis(tmp_path, authority, *user, port=redis.port):
                for gateway in gateways:
                    await happens(lambda: gateway.metric("pangate_shared_servers_lost") == 0, "the return")  # noqa: B023
                got = await load.end()
                assert statuses(await burst(gateways, "deny"))[429] >= OVER
            assert got.keys() <= {200, 429, 503}
            assert got[503] == sum(g.metric("pangate_blocked_total", reason="limiter_unavailable") for g in gateways)
            assert LIMIT // 2 <= got[200] <= 2 * LIMIT, "the limit once for each life of the server"


@pytest.mark.parametrize(
    ("mode", "codes", "most"),
    [
        pytest.param("local", {200, 429}, 3 * 1200 + 100, id="local: as many again for each gateway"),
        pytest.param("allow", {200, 429}, None, id="allow: whatever is asked while nobody counts"),
    ],
)
async def test_a_failover_in_mid_load_lets_pass_what_the_mode_says_and_then_the_limit_holds_again(
    tmp_path: Path, mode: str, codes: set[int], most: int | None
) -> None:
    limit = 1200
    with watched_redis(tmp_path) as watched:
        servers = ", ".join(f'"{sentinel.url}"' for sentinel in watched.sentinels)
        where = f"{{sentinel: {{master: {MASTER}, servers: [{servers}]}}}}"
        policy = {mode: f"{FIXED}, on_store_error: {mode}"}
        async with sharing(tmp_path, where, policy, 2, limit) as (gateways, shop):
            load = Load(gateways, mode, 4)
            await asyncio.wait_for(shop.until(lambda: len(shop.requests) >= limit // 4), 60)
            watched.master().process.kill()

            def counted(gateway: Gateway) -> float:
                return gateway.metric("pangate_ratelimit_store_errors_total", mode=mode)

            for gateway in gateways:
                await happens(lambda: counted(gateway) > 0, "a decision without Redis")  # noqa: B023
                await happens(lambda: gateway.metric("pangate_shared_servers_lost") == 0, "the new master")  # noqa: B023
                await happens(lambda: gateway.metric("pangate_blocked_total", reason="rate_limited") > 0, "the limit")  # noqa: B023
            got = await load.end()
            assert got.keys() == codes
            assert len(shop.requests) == got[200]
            for _ in range(limit // LIMIT):
                if statuses(await burst(gateways, mode)).keys() == {429}:
                    break
            assert statuses(await burst(gateways, mode)).keys() == {429}, "the limit holds again"
            uncounted = sum(counted(gateway) for gateway in gateways)
            passed = len(shop.requests)
            assert limit - 100 <= passed <= min(most or passed, limit + uncounted + 100)


async def test_a_failover_in_mid_load_costs_503s_and_the_hits_that_the_replica_had_not_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_PASSWORD", "correct-horse")
    limit = 1200
    with watched_redis(tmp_path, sentinels="requirepass correct-horse") as watched:
        servers = ", ".join(f'"{sentinel.url}"' for sentinel in watched.sentinels)
        sentinel = f"master: {MASTER}, servers: [{servers}], password: env:SENTINEL_PASSWORD"
        async with sharing(tmp_path, f"{{sentinel: {{{sentinel}}}}}", {"deny": FIXED}, 2, limit) as (gateways, shop):
            load = Load(gateways, "deny", 4)
            await asyncio.wait_for(shop.until(lambda: len(shop.requests) >= limit // 4), 60)
            watched.master().process.kill()
            for gateway in gateways:
                await happens(lambda: gateway.metric("pangate_blocked_total", reason="rate_limited") > 0, "the limit")  # noqa: B023
            got = await load.end()
            assert got.keys() == {200, 429, 503}
            assert len(shop.requests) == got[200]
            assert abs(got[200] - limit) <= 100, "no more than was under way when the master died"
            assert sum(gateway.metric("pangate_requests_total", code="500") for gateway in gateways) == 0
