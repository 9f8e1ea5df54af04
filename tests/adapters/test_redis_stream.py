from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot

from gateway.adapters.redis_node import Access
from gateway.adapters.redis_stream import RedisStream, open_stream
from gateway.adapters.redis_topology import Cluster, One, Sentinels, Topology
from gateway.operations import OutboxEvent
from gateway.pure.metrics import Metric
from gateway.pure.relaying import TAKEN, Receipt, Taking
from tests.adapters.published import event, published
from tests.conftest import Recorder
from tests.redis_deployments import MASTER, Move, RedisCluster, direct, redis_cluster, watched_redis
from tests.servers import VOLATILE, address_of, free_port, redis_url, running_redis

__all__ = ["redis_cluster", "redis_url"]

TIMEOUT = 60.0


@asynccontextmanager
async def stream(
    where: str | Topology, name: str, *, max_length: int | None = None, timeout: float = TIMEOUT,
    telemetry: Recorder | None = None,
) -> AsyncIterator[RedisStream]:  # fmt: skip
    topology = One(address_of(where)) if isinstance(where, str) else where
    publisher = open_stream(
        "stream", topology, Access(), name, max_length=max_length, timeout=timeout, telemetry=telemetry or Recorder()
    )
    try:
        yield publisher
    finally:
        await publisher.close()


async def entries(url: str, name: str) -> list[dict[Any, Any]]:
    async with Redis.from_url(url) as client:
        return [fields or {} for _, fields in await client.xrange(name) or ()]


async def taken_at_last(publisher: RedisStream, *events: OutboxEvent) -> None:
    """Offer them until they are taken, as the relay does."""
    async with asyncio.timeout(60):
        while set(await published(publisher, *events)) != {TAKEN}:  # noqa: ASYNC110 - the server's progress
            await asyncio.sleep(0.02)


async def test_an_event_is_one_entry_of_the_stream(redis_url: str) -> None:
    async with stream(redis_url, "one-entry") as publisher:
        assert await published(publisher, event(7, tenant="shop")) == [TAKEN]

    assert await entries(redis_url, "one-entry") == [
        {
            b"id": b"evt_7", b"type": b"payment.captured.v1", b"subject": b"pay_1", b"sequence": b"7",
            b"tenant": b"shop", b"event": event(7).payload,
        }
    ]  # fmt: skip


async def test_many_events_go_in_order(redis_url: str) -> None:
    sent = [event(n, f"pay_{n}") for n in range(400)]
    async with stream(redis_url, "many") as publisher:
        assert set(await published(publisher, *sent)) == {TAKEN}

    assert [fields[b"sequence"] for fields in await entries(redis_url, "many")] == [b"%d" % n for n in range(400)]


async def test_a_stream_with_a_length_forgets_its_oldest_entries(redis_url: str) -> None:
    async with stream(redis_url, "short", max_length=100) as publisher:
        for start in range(0, 2000, 400):
            await published(publisher, *(event(n) for n in range(start, start + 400)))

    kept = await entries(redis_url, "short")
    assert 100 <= len(kept) <= 400
    assert kept[-1][b"sequence"] == b"1999"


async def test_a_stream_without_a_length_forgets_nothing(redis_url: str) -> None:
    async with stream(redis_url, "long") as publisher:
        for start in range(0, 2000, 400):
            await published(publisher, *(event(n) for n in range(start, start + 400)))

    assert len(await entries(redis_url, "long")) == 2000


async def test_a_redis_that_is_not_there_is_away_and_taken_up_again_when_it_is(tmp_path: Path) -> None:
    port = free_port()
    async with stream(f"redis://127.0.0.1:{port}", "events") as publisher:
        assert [r.taking for r in await published(publisher, event(1), event(2))] == [Taking.AWAY, Taking.AWAY]
        with running_redis(tmp_path, *VOLATILE, port=port):
            await taken_at_last(publisher, event(1))


async def test_what_redis_answers_is_never_the_fault_of_an_event(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client, stream(redis_url, "not-a-stream") as publisher:
        await client.set("not-a-stream", "text")
        (receipt,) = await published(publisher, event())

    assert receipt == Receipt(Taking.AWAY, "ResponseError")


async def test_a_connection_that_owes_an_answer_is_never_used_again(redis_url: str) -> None:
    async with stream(redis_url, "late", timeout=0.1) as publisher, Redis.from_url(redis_url) as client:

        async def ours() -> set[str]:
            return {found["id"] for found in await client.client_list() if found["name"] == "pangate"}

        await published(publisher, event(1))
        first = await ours()
        await client.client_pause(10_000, all=False)
        assert await published(publisher, event(2)) == [Receipt(Taking.AWAY, "TimeoutError")]
        await client.client_unpause()
        await taken_at_last(publisher, event(2))
        assert not first & await ours()


async def test_a_lost_server_of_a_stream_is_told_of_and_is_none_of_the_counters(tmp_path: Path) -> None:
    telemetry = Recorder()
    async with stream(f"redis://127.0.0.1:{free_port()}", "events", telemetry=telemetry) as publisher:
        await published(publisher, event(1))
    assert [line["event"] for line in telemetry.lines] == ["redis_lost"]
    assert (Metric.SHARED_LOST, ()) not in telemetry.counts


async def test_a_stream_is_found_in_a_cluster_and_followed_in_order_while_its_slot_moves(
    redis_cluster: RedisCluster,
) -> None:
    name = "pangate:moving-events"
    slot = key_slot(name.encode())
    holder = redis_cluster.holder(slot)
    target = (holder + 1) % 3
    seed = redis_cluster.addresses()[(holder + 2) % 3]
    move = Move(redis_cluster, slot, holder, target)
    async with stream(Cluster([seed]), name) as publisher:
        steps = (move.announce, move.carry, move.finish)
        await taken_at_last(publisher, event(1, "pay_1"), event(2, "pay_2"))
        for number, step in enumerate(steps, 2):
            await asyncio.to_thread(step)
            await taken_at_last(publisher, *(event(2 * number + n, f"pay_{n}") for n in (-1, 0)))
    there = direct(redis_cluster.servers[target]).xrange(name)
    assert [int(fields["sequence"]) for _, fields in there] == list(range(1, 9))


async def test_a_stream_goes_on_at_the_master_that_sentinels_chose_anew(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        old = watched.master()
        async with stream(Sentinels(watched.addresses(), MASTER, Access()), "events") as publisher:
            assert await published(publisher, event(1)) == [TAKEN]
            old.process.kill()
            old.process.wait()
            await taken_at_last(publisher, event(2))
        (new,) = (server for server in watched.servers if server is not old)
        assert [fields["sequence"] for _, fields in direct(new).xrange("events")][-1] == "2"
