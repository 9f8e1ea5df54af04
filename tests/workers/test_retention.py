"""Retention: expired idempotency keys go, in bounded batches, and an outage does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.operations import ClaimKey, FinishKey, Operation, PurgeKeys, Row, Rows
from gateway.ports import Unavailable
from gateway.workers.retention import run_retention
from tests.conftest import HandClock, Recorder


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
        await run_retention(store, clock, telemetry, interval=60, batch=batch, sleep=sleep)


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
