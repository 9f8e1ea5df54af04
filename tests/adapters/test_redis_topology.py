"""Redis behind sentinels and as a cluster: who holds a key, and who holds it now. Failover: tests/e2e/test_redis.py."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.crc import key_slot

from gateway.adapters.redis_node import Access, Address
from gateway.adapters.redis_topology import Cluster, Sentinels
from gateway.ports import Unavailable
from gateway.pure.metrics import Metric
from tests.adapters.redis_scene import Connect, Load, connect, found, halted, happens, limited, tried
from tests.conftest import Recorder
from tests.redis_deployments import (
    MASTER,
    Move,
    RedisCluster,
    direct,
    documented_user,
    redis_cluster,
)
from tests.servers import VOLATILE, RunningRedis, free_port, running_redis

__all__ = ["connect", "redis_cluster"]

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


async def test_the_sentinel_that_knows_of_the_latest_failover_is_believed(tmp_path: Path, connect: Connect) -> None:
    with running_redis(tmp_path, *VOLATILE) as old, running_redis(tmp_path, *VOLATILE) as new, ExitStack() as stack:
        sentinels = []
        for master, epoch in ((old, 3), (new, 12), (old, 5)):
            file = tmp_path / f"sentinel-{epoch}.conf"
            watch = f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1\nsentinel config-epoch {MASTER} {epoch}\n"
            file.write_text(f"sentinel myid {epoch:040x}\n{watch}")
            sentinels.append(stack.enter_context(running_redis(tmp_path, "--sentinel", config=file)))
        shared, _ = connect(Sentinels([Address("127.0.0.1", s.port) for s in sentinels], MASTER, Access()))
        assert await tried(shared, limited("a")) == "allowed"
        assert [direct(server).exists("{a}") for server in (old, new)] == [0, 1]


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
    """As the user who may do no more than is documented."""
    for server in redis_cluster.servers:
        direct(server).execute_command("ACL", "SETUSER", *documented_user())
    tag = a_tag(redis_cluster, 1)
    shared, sad = connect(Cluster(redis_cluster.addresses()), Access("pangate", "correct-horse"))
    await sad.require_volatile()
    move = Move(redis_cluster, key_slot(tag.encode()), 1, 0)
    move.announce()
    hit, once = replace(limited(tag, amount=2), key=f"pangate:{{{tag}}}"), f"pangate:{{{tag}}}once"
    assert [await tried(shared, hit) for _ in range(3)] == ["allowed", "allowed", "limited"]
    assert await shared.first_use([once], 60.0)
    move.carry()
    move.finish()
    assert await tried(shared, hit) == "limited"
    assert not await shared.first_use([once], 60.0)


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
