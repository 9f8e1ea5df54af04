"""Redis as it is deployed: by TLS, behind sentinels, as a cluster; servers that fail, move, and come back."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.redis import RedisShared, open_redis
from gateway.adapters.redis_node import Access, Address, Node
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.redis_topology import Cluster, One, Sentinels, Topology
from gateway.adapters.upstream import client_context
from gateway.ports import Hit, Unavailable
from gateway.pure.gcra import SECOND, Limit
from gateway.pure.metrics import Metric
from tests.adapters.test_shared import found, halted
from tests.certificates import Authority, Pair
from tests.conftest import CountingEntropy, HandClock, Recorder
from tests.faults.tcp import Way, proxied
from tests.redis_deployments import (
    MASTER,
    RedisCluster,
    direct,
    redis_cluster,
    tls_redis,
)
from tests.servers import VOLATILE, RunningRedis, free_port, running_redis

__all__ = ["redis_cluster"]

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


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


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
    for _ in range(4000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what}: not within 20 s")


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


# --- TLS and users

NEEDED = (
    "+eval +evalsha +time +get +set +exists +del +hset +hget +hdel +pexpire +ping +client|setname +config|get +info"
    " ~pangate:*"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    return authority.client("gateway", "spiffe://shop.example/gateway")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningRedis]:
    user = ("--user", "default", "off", "--user", "pangate", "on", ">correct-horse", *NEEDED.split())
    with tls_redis(tmp_path_factory.mktemp("tls"), authority, *user) as server:
        yield server


async def test_by_tls_as_a_user_who_may_do_no_more_than_is_documented(
    secure: RunningRedis, authority: Authority, ours: Pair, connect: Connect
) -> None:
    access = Access("pangate", "correct-horse", client_context(authority.file, ours.certificate, ours.key, ()))
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
    tls = None if wrong == "tls" else client_context(trusted, *pair, ())
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
        assert set(await asyncio.gather(*(sad.lease("t", "token", "x") for _ in range(200)))) == {b"737"}
        clients = [client["name"] for client in direct(server).client_list()]
        assert clients.count("pangate") == 2
        await shared.first_use(["a"], 1.0)


# --- sentinels


async def test_a_master_that_nobody_knows_is_unavailable_and_said_so_once(
    connect: Connect, telemetry: Recorder
) -> None:
    shared, sad = connect(Sentinels([Address("127.0.0.1", free_port())], MASTER, Access()))
    assert [await tried(shared, limited("a")) for _ in range(3)] == ["unavailable"] * 3
    with pytest.raises(Unavailable):
        await sad.require_volatile()
    assert [line["event"] for line in telemetry.lines] == ["redis_topology_lost"]
    assert telemetry.counts[Metric.SHARED_LOST, ()] == 1


async def test_servers_that_are_not_what_they_are_said_to_be_are_told_of(
    tmp_path: Path, connect: Connect, telemetry: Recorder
) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        here = [Address("127.0.0.1", server.port)]
        for topology, told in (
            (Sentinels(here, MASTER, Access()), "no sentinel of 1 names a master: unknown command"),
            (Cluster(here), "cluster support disabled"),
        ):
            shared, _ = connect(topology)
            assert await tried(shared, limited("a")) == "unavailable"
            assert told in str(telemetry.lines[-1]["error"])


# --- cluster


def a_tag(cluster: RedisCluster, number: int) -> str:
    """A hash tag whose slot this server holds."""
    return next(tag for tag in iter(lambda: uuid.uuid4().hex, "") if cluster.holder(key_slot(tag.encode())) == number)


def reads(watchers: Sequence[Redis]) -> list[int]:
    return [watcher.info("stats")["total_reads_processed"] for watcher in watchers]


async def test_the_calls_of_one_turn_take_one_round_trip_to_each_server_that_holds_their_keys(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    shared, _ = connect(Cluster(redis_cluster.addresses()[:1]))
    tags = [a_tag(redis_cluster, number) for number in range(3) for _ in range(10)]
    await asyncio.gather(*(shared.hit([limited(tag, part, 9) for part in "ab"]) for tag in tags))
    watchers = [direct(server) for server in redis_cluster.servers]
    before = reads(watchers), reads(watchers)
    answers = await asyncio.gather(*(shared.hit([limited(tag, part, 9) for part in "ab"]) for tag in tags))
    assert [[decision.remaining for decision in answer] for answer in answers] == [[7, 7]] * 30
    watching = [after - first for first, after in zip(*before, strict=True)]
    trips = [after - first for first, after in zip(before[1], reads(watchers), strict=True)]
    assert [trip - own for trip, own in zip(trips, watching, strict=True)] == [1, 1, 1]


async def test_a_server_of_a_cluster_that_is_silent_is_missed_by_its_own_keys_alone(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    shared, _ = connect(Cluster(redis_cluster.addresses()))
    tags = [a_tag(redis_cluster, number) for number in range(3)]
    await found(shared)
    assert [await tried(shared, limited(tag)) for tag in tags] == ["allowed"] * 3
    with halted(redis_cluster.servers[1].process.pid):
        for _ in range(5):
            results = await asyncio.gather(*(tried(shared, limited(tag)) for tag in tags))
            assert results == ["allowed", "unavailable", "allowed"]
    silent = {node.address: node for node in await shared._nodes.masters()}[redis_cluster.addresses()[1]]
    await happens(lambda: not silent.suspect, "its return")
    assert await tried(shared, limited(tags[1])) == "allowed"


def tryagains(server: RunningRedis) -> object:
    return direct(server).info("errorstats").get("errorstat_TRYAGAIN")


class Move:
    """A slot on its way from one server to another, as redis-cli moves it (Redis Cluster specification, resharding)."""

    def __init__(self, cluster: RedisCluster, slot: int, source: int, target: int) -> None:
        self._cluster = cluster
        self._slot = slot
        self._source, self._target = direct(cluster.servers[source]), direct(cluster.servers[target])
        self._ids = cluster.id(source), cluster.id(target)
        self._port = cluster.servers[target].port

    def announce(self) -> None:
        self._target.execute_command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._ids[0])
        self._source.execute_command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._ids[1])

    def carry(self, *names: str) -> None:
        keys = names or self._source.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 100)
        if keys:
            self._source.execute_command("MIGRATE", "127.0.0.1", self._port, "", 0, 1000, "KEYS", *keys)

    def finish(self) -> None:
        for server in (self._target, self._source):
            server.execute_command("CLUSTER", "SETSLOT", self._slot, "NODE", self._ids[1])


async def test_limits_hold_to_the_last_hit_while_their_slot_moves(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    tag = a_tag(redis_cluster, 0)
    gateways = [connect(Cluster(redis_cluster.addresses()))[0] for _ in range(2)]
    load = Load(gateways, limited(tag, amount=1500), limited(tag, "b", amount=9999))
    move = Move(redis_cluster, key_slot(tag.encode()), 0, 2)
    await load.reaches("allowed", 200)
    for step in (move.announce, lambda: (move.carry("{" + tag + "}"), move.carry()), move.finish):
        seen = load.results.total()
        await asyncio.to_thread(step)
        await happens(lambda: load.results.total() >= seen + 50, "the next calls")  # noqa: B023
    await load.reaches("limited", 10)
    results = await load.end()
    assert results["allowed"] == 1500
    assert results["unavailable"] == 0
    assert redis_cluster.holder(key_slot(tag.encode())) == 2


async def test_limits_of_one_call_that_are_parted_for_a_moment_wait_for_each_other(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    tag = a_tag(redis_cluster, 2)
    hits = limited(tag), limited(tag, "b")
    shared, _ = connect(Cluster(redis_cluster.addresses()), timeout=0.1)
    assert await tried(shared, *hits) == "allowed"
    move = Move(redis_cluster, key_slot(tag.encode()), 2, 1)
    move.announce()
    move.carry("{" + tag + "}")
    assert await tried(shared, *hits) == "unavailable"
    told = [tryagains(server) for server in redis_cluster.servers]
    patient, _ = connect(Cluster(redis_cluster.addresses()), timeout=10.0)
    waiting = asyncio.ensure_future(tried(patient, *hits))
    await happens(lambda: [tryagains(server) for server in redis_cluster.servers] != told, "an attempt")
    move.carry()
    move.finish()
    assert await waiting == "allowed"
    assert [decision.remaining for decision in await patient.hit(hits)] == [297, 297]


async def test_a_key_that_is_new_while_its_slot_moves_is_counted_where_it_goes(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    tag = a_tag(redis_cluster, 1)
    shared, _ = connect(Cluster(redis_cluster.addresses()))
    await shared.first_use(["warm"], 1.0)
    move = Move(redis_cluster, key_slot(tag.encode()), 1, 0)
    move.announce()
    assert [await tried(shared, limited(tag, amount=2)) for _ in range(3)] == ["allowed", "allowed", "limited"]
    assert await shared.first_use(["{" + tag + "}once"], 60.0)
    move.carry()
    move.finish()
    assert await tried(shared, limited(tag, amount=2)) == "limited"
    assert not await shared.first_use(["{" + tag + "}once"], 60.0)


async def test_codes_are_spread_over_a_cluster_and_every_gateway_finds_them(
    redis_cluster: RedisCluster, connect: Connect
) -> None:
    here, there = (connect(Cluster(redis_cluster.addresses()[:1]))[1] for _ in range(2))
    sizes = [direct(server).dbsize() for server in redis_cluster.servers]
    await here.require_volatile()
    await asyncio.gather(*(here.put("t", f"token-{number}", b"737", 60) for number in range(60)))
    assert all(direct(s).dbsize() > size for s, size in zip(redis_cluster.servers, sizes, strict=True))
    leased = await asyncio.gather(*(there.lease("t", f"token-{number}", "x") for number in range(60)))
    assert set(leased) == {b"737"}
