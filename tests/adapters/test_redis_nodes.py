"""One Redis server: by TLS, as a user, when it is silent, slow, gone and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.redis_node import Access, Address, Node, Tls
from gateway.adapters.redis_topology import One
from gateway.adapters.upstream import client_context
from gateway.ports import Hit
from gateway.pure.gcra import SECOND, Limit
from gateway.pure.metrics import Metric
from tests.adapters.redis_scene import Connect, Load, connect, found, halted, happens, limited, tried
from tests.certificates import Authority, Pair
from tests.conftest import Recorder
from tests.faults.tcp import Way, proxied
from tests.redis_deployments import direct, documented_user, tls_redis
from tests.servers import VOLATILE, RunningRedis, free_port, running_redis

__all__ = ["connect"]

# --- TLS and users


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.client("gateway", "spiffe://shop.example/gateway")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningRedis]:
    user = ("--user", "default", "off", "--user", *documented_user())
    with tls_redis(tmp_path_factory.mktemp("tls"), authority, *user) as server:
        yield server


async def test_by_tls_as_a_user_who_may_do_no_more_than_is_documented(
    secure: RunningRedis, authority: Authority, ours: Pair, connect: Connect
) -> None:
    access = Access("pangate", "correct-horse", Tls(client_context(authority.file, ours.certificate, ours.key, ())))
    shared, sad = connect(One(Address("127.0.0.1", secure.port)), access)
    assert [await tried(shared, limited("pangate:a", amount=1)) for _ in range(2)] == ["unavailable"] * 2
    hit = Hit("pangate:{a}", "gcra", Limit(1, 86_400 * SECOND, 1), True)
    assert [await tried(shared, hit) for _ in range(2)] == ["allowed", "limited"]
    assert [await shared.first_use(["pangate:once"], 60.0) for _ in range(2)] == [True, False]
    await sad.put("t", "token", b"737", 60)
    assert await sad.lease("t", "token", "x") == b"737"
    await sad.give_back("t", "token", "x")
    assert await sad.lease("t", "token", "y") == b"737"
    await sad.erase("t", "token", "y")
    assert await sad.lease("t", "token", "y") is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("authority", "CERTIFICATE_VERIFY_FAILED"),
        ("name", "CERTIFICATE_VERIFY_FAILED"),
        ("certificate", "lost"),
        ("password", "AuthenticationError"),
        ("user", "AuthenticationError"),
        ("tls", "lost"),
    ],
)
async def test_whoever_is_not_whom_the_other_expects_is_not_talked_to(
    wrong: str,
    told: str,
    secure: RunningRedis,
    authority: Authority,
    ours: Pair,
    connect: Connect,
    telemetry: Recorder,
    tmp_path: Path,
) -> None:
    trusted = Authority(tmp_path, "another").file if wrong == "authority" else authority.file
    pair = (None, None) if wrong == "certificate" else (ours.certificate, ours.key)
    tls = None if wrong == "tls" else Tls(client_context(trusted, *pair, ()))
    password = "battery-staple" if wrong == "password" else "correct-horse"
    access = Access("nobody" if wrong == "user" else "pangate", password, tls)
    shared, _ = connect(One(Address("127.0.0.2" if wrong == "name" else "127.0.0.1", secure.port)), access)
    assert await tried(shared, limited("a")) == "unavailable"
    (line,) = telemetry.lines
    assert told in f"{line['event']} {line['error']}"
    assert not any(secret in repr((line, access)) for secret in ("correct-horse", "battery-staple"))


# --- one server that fails


async def test_nobody_waits_for_a_server_that_is_known_to_be_silent_and_it_is_found_again(
    tmp_path: Path, connect: Connect, telemetry: Recorder
) -> None:
    loop = asyncio.get_running_loop()
    with running_redis(tmp_path, *VOLATILE) as server:
        shared, _ = connect(One(Address("127.0.0.1", server.port)), timeout=0.1)
        assert await tried(shared, limited("a")) == "allowed"
        with halted(server.process.pid):
            began = loop.time()
            assert await tried(shared, limited("a")) == "unavailable"
            assert 0.09 < loop.time() - began < 1.0
            (node,) = await shared._nodes.masters()
            await happens(lambda: node.lost, "the loss")
            began = loop.time()
            assert {await tried(shared, limited("a")) for _ in range(200)} == {"unavailable"}
            assert loop.time() - began < 1.0
            assert telemetry.counts[Metric.SHARED_LOST, ()] == 1
        await found(shared)
        assert telemetry.counts[Metric.SHARED_LOST, ()] == 0
    assert [line["event"] for line in telemetry.lines] == ["redis_lost", "redis_found"]


async def test_a_server_restarted_under_load_is_used_again_and_no_limit_lets_more_pass(
    tmp_path: Path, connect: Connect
) -> None:
    """What it forgets it counts anew: no more than the limit for each of its lives."""
    port = free_port()
    gateways = [connect(One(Address("127.0.0.1", port)))[0] for _ in range(2)]
    with running_redis(tmp_path, *VOLATILE, port=port):
        load = Load(gateways, limited("a"), limited("a", "b", amount=1000))
        await load.reaches("allowed", 200)
    await load.reaches("unavailable", 20)
    with running_redis(tmp_path, *VOLATILE, port=port):
        before = load.results["allowed"]
        await load.reaches("allowed", before + 300)
        for gateway in gateways:
            await found(gateway)
        results = await load.end()
    assert before <= 300
    assert results["allowed"] <= before + 300


async def test_a_server_that_is_slow_costs_a_call_its_timeout_and_is_used_again_when_it_is_quick(
    tmp_path: Path, connect: Connect, telemetry: Recorder
) -> None:
    loop = asyncio.get_running_loop()
    with running_redis(tmp_path, *VOLATILE) as server:
        async with proxied(server.port) as network:
            shared, _ = connect(One(Address("127.0.0.1", network.port)), timeout=0.15)
            await found(shared)
            network.become(back=Way(latency=0.4))
            for _ in range(3):
                began = loop.time()
                results = await asyncio.gather(*(tried(shared, limited("a")) for _ in range(50)))
                assert set(results) == {"unavailable"}
                assert loop.time() - began < 0.35
            network.become()
            await found(shared)
            decisions = await shared.hit([limited("b", amount=9)])
            assert decisions[0].remaining == 8
            await shared.close()
    assert {line["event"] for line in telemetry.lines} == {"redis_lost", "redis_found"}


async def test_a_handshake_that_was_cut_off_leaves_no_reply_for_the_next_call(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with running_redis(tmp_path, *VOLATILE) as server:
        async with proxied(server.port) as network:
            network.become(back=Way(latency=0.3))
            node = Node(Address("127.0.0.1", network.port), Access(), connections=1)
            with pytest.raises(TimeoutError):
                await node.ask([("PING",)], loop.time() + 0.15)
            assert await node.ask([("ECHO", "a")], loop.time() + 10.0) == [b"a"]
            await node.close()


async def test_more_calls_than_connections_wait_their_turn(tmp_path: Path, connect: Connect) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        shared, sad = connect(One(Address("127.0.0.1", server.port)), connections=2, timeout=5.0)
        await sad.put("t", "token", b"737", 60)

        async def lease_in(turns: int) -> bytes | None:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await sad.lease("t", "token", "x")

        assert set(await asyncio.gather(*(lease_in(i % 40) for i in range(200)))) == {b"737"}
        clients = [client["name"] for client in direct(server).client_list()]
        assert clients.count("pangate") == 2
        await shared.first_use(["a"], 1.0)
