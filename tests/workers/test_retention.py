"""Retention: what has had its time goes, in bounded batches, and an outage does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.operations import ClaimKey, FinishKey, ListChains, Operation, PurgeKeys, ReadChain, Row, Rows
from gateway.ports import Unavailable
from gateway.pure.audit import wrong_ends
from gateway.pure.lifecycle import Told
from gateway.workers.relay import Relay
from gateway.workers.retention import FACTS_KEPT, Purge, expired_keys, old_audit, old_events, old_facts, run_retention
from tests.adapters.operations import AUDIT_KEY, record
from tests.adapters.payments import Till
from tests.conftest import HandClock, Recorder
from tests.outbox_world import REFUSES, TAKES, Outbox, Receiver, outbox


class Watched:
    """The store, which counts the purges asked of it, and can be away."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.limits: list[int] = []
        self.away = False

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        if self.away:
            raise Unavailable("store")
        self.limits += [operation.limit for operation in unit if isinstance(operation, PurgeKeys)]
        return await self.store.commit(unit)

    async def close(self) -> None:
        await self.store.close()


class Sleeps:
    """Lets the loop run a number of rounds, each `interval` later, and then ends it."""

    def __init__(self, clock: HandClock, rounds: int) -> None:
        self.clock = clock
        self.rounds = rounds
        self.between = lambda: None

    async def __call__(self, seconds: float) -> None:
        self.rounds -= 1
        if self.rounds == 0:
            raise asyncio.CancelledError
        self.clock.advance(seconds)
        self.between()


@pytest.fixture
async def store(clock: HandClock, telemetry: Recorder) -> AsyncIterator[Watched]:
    watched = Watched(open_sqlite(":memory:", clock=clock, telemetry=telemetry))
    yield watched
    await watched.close()


async def finished_keys(store: Watched, count: int, now: float, keep: float) -> None:
    for n in range(count):
        scope = b"%d" % n
        await store.commit([ClaimKey("shop", scope, b"", "req", now)])
        await store.commit([FinishKey("shop", scope, "req", lambda _: b"", now, now + keep)])


async def run(store: Watched, clock: HandClock, telemetry: Recorder, sleep: Sleeps, batch: int = 10) -> None:
    with pytest.raises(asyncio.CancelledError):
        await run_retention(store, clock, telemetry, {"keys": expired_keys}, interval=60, batch=batch, sleep=sleep)


async def test_keys_are_purged_when_they_have_expired_and_not_before(
    store: Watched, clock: HandClock, telemetry: Recorder
) -> None:
    await finished_keys(store, 3, clock.now(), keep=90)
    await run(store, clock, telemetry, Sleeps(clock, rounds=2))
    assert telemetry.lines == []
    await run(store, clock, telemetry, Sleeps(clock, rounds=2))
    assert telemetry.lines == [{"event": "keys_purged", "count": 3}]


async def test_a_purge_takes_bounded_batches_until_nothing_is_left(
    store: Watched, clock: HandClock, telemetry: Recorder
) -> None:
    await finished_keys(store, 25, clock.now(), keep=-1)
    await run(store, clock, telemetry, Sleeps(clock, rounds=1), batch=10)
    assert store.limits == [10, 10, 10]
    assert telemetry.lines == [{"event": "keys_purged", "count": 25}]


async def test_a_store_that_is_away_is_tried_again_at_the_next_interval(
    store: Watched, clock: HandClock, telemetry: Recorder
) -> None:
    await finished_keys(store, 1, clock.now(), keep=-1)
    store.away = True
    sleeps = Sleeps(clock, rounds=2)
    sleeps.between = lambda: setattr(store, "away", False)
    await run(store, clock, telemetry, sleeps)
    assert [line["event"] for line in telemetry.lines] == ["retention_failed", "keys_purged"]


# --- events ----------------------------------------------------------------------------------------------------------


async def kept(world: Outbox, purge: Purge, days: float) -> list[str]:
    """Ids of the events that can still be replayed or published after so many days."""
    world.clock.advance(days * 86400)
    with pytest.raises(asyncio.CancelledError):
        await run_retention(
            world.store, world.clock, world.telemetry, {"events": purge}, batch=2, sleep=Sleeps(world.clock, rounds=1)
        )
    return [event.id for event in await world.pending()]


async def test_sent_events_go_when_their_time_is_over_and_unsent_ones_never() -> None:
    async with outbox() as world:
        await world.tell(*"abcab")
        relay = Relay(world.ports, [Receiver(reply=lambda event: REFUSES if event.aggregateid == "b" else TAKES)],
                      attempts=99)  # fmt: skip
        for _ in range(3):
            await relay.step(world.clock.now())
            await relay.drain()
        assert len(await kept(world, old_events(7 * 86400, unsent=False), days=6)) == 2
        assert world.telemetry.lines == []
        assert len(await kept(world, old_events(7 * 86400, unsent=False), days=2)) == 2
        assert world.telemetry.lines == [{"event": "events_purged", "count": 3}]


async def test_where_nobody_publishes_all_events_go_when_their_time_is_over() -> None:
    async with outbox() as world:
        await world.tell(*"abc")
        assert len(await kept(world, old_events(7 * 86400, unsent=True), days=6)) == 3
        assert await kept(world, old_events(7 * 86400, unsent=True), days=2) == []


# --- facts -----------------------------------------------------------------------------------------------------------


async def test_messages_are_recognised_for_as_long_as_facts_are_kept() -> None:
    async with outbox() as world:
        till = Till(world.store)
        await till.hear(Told("authorised_total", 1), source="evt_1", now=world.clock.now())
        await kept(world, old_facts, days=FACTS_KEPT / 86400 - 1)
        assert (await till.hear(Told("authorised_total", 1), source="evt_1")).duplicate
        await kept(world, old_facts, days=2)
        assert not (await till.hear(Told("authorised_total", 1), source="evt_1")).duplicate


# --- the audit -------------------------------------------------------------------------------------------------------


class OneKey:
    """Keys of which all are the same."""

    def mac(self, *_: str) -> bytes:
        return AUDIT_KEY


async def test_the_audit_keeps_an_entry_for_its_time_and_then_begins_behind_it() -> None:
    async with outbox() as world:
        for days in range(3):
            await world.store.commit([record(now=world.clock.now() + days * 86400)])
        await kept(world, old_audit(400 * 86400, OneKey()), days=401.5)  # type: ignore[arg-type]
        listing, reading = ListChains(None), ReadChain("shop", "gateway", 0, 10)
        rows = await world.store.commit([listing, reading])
        assert [link.sequence for link in rows[reading].entries] == [3]
        assert list(wrong_ends(rows[listing].chains[0], AUDIT_KEY)) == []
        assert rows[listing].chains[0].base.sequence == 2
