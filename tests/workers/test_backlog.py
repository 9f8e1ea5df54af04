"""What the store could not take is committed when it is back, and never against what has become known meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.operations import ClaimKey, Operation, Row, Rows
from gateway.ports import CommitInDoubt, Store, Unavailable
from gateway.workers.backlog import BYTES_MAX, UNITS_MAX, Backlog
from tests.conftest import Recorder
from tests.workers.resolver_scene import LOST, REPLAY, Scene, reason, scene

Mood = Literal["up", "away", "torn", "undone"]
"""Away, and in the middle of a commit: that is durable all the same, or not."""


@dataclass
class Moody:
    """A store that is as it is told for its next commits, and then up."""

    store: Store
    moods: list[Mood] = field(default_factory=list)

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        mood = self.moods.pop(0) if self.moods else "up"
        if mood == "away":
            raise Unavailable("store")
        if mood == "undone":
            raise CommitInDoubt("store")
        rows = await self.store.commit(unit)
        if mood == "torn":
            raise CommitInDoubt("store")
        return rows

    async def close(self) -> None: ...


@dataclass
class World:
    scene: Scene
    store: Moody
    backlog: Backlog


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[World]:
    async with scene(tmp_path) as made:
        store = Moody(made.ports.store)
        backlog = Backlog(store, made.ports.telemetry)
        made = Scene(replace(made.ports, store=store, backlog=backlog), made.clock)
        made.configure(REPLAY)
        yield World(made, store, backlog)


@pytest.mark.parametrize("mood", ["torn", "undone"])
async def test_a_key_that_may_have_been_claimed_for_nothing_is_free_again(it: World, mood: Mood) -> None:
    it.store.moods = [mood]
    assert reason(await it.scene.send()) == "store_unavailable"
    assert it.scene.client.got == []
    await it.backlog.step()
    assert (await it.scene.send()).status == 201
    assert await it.scene.unknown() == ()


async def test_what_was_sent_by_who_found_the_call_is_not_undone(it: World) -> None:
    it.store.moods = ["torn"]
    await it.scene.send()
    it.scene.provider.says = [LOST]
    await it.scene.look(60)
    await it.scene.look(60)
    assert len(it.scene.provider.got) == 1
    await it.backlog.step()
    assert [found.call.attempt for found in await it.scene.unknown()] == [2]
    assert reason(await it.scene.send()) == "idempotency_key_in_use"


async def test_an_answer_that_could_not_be_settled_is_replayed_once_it_is(it: World) -> None:
    it.store.moods = ["up", "away"]
    assert reason(await it.scene.send()) == "settle_failed"
    assert reason(await it.scene.send()) == "idempotency_key_in_use"
    await it.backlog.step()
    replayed = await it.scene.send()
    assert (replayed.status, replayed.header(b"idempotent-replayed")) == (201, b"true")
    assert len(it.scene.client.got) == 1
    assert it.scene.provider.got == []


async def test_a_store_that_is_only_busy_is_asked_to_undo_nothing(it: World) -> None:
    it.store.moods = ["away"]
    await it.scene.send()
    it.store.moods = ["away"]
    await it.backlog.step()
    assert it.store.moods == ["away"]


def unit(number: int = 0) -> list[Operation[Any]]:
    return [ClaimKey("shop", b"%032d" % number, b"f" * 32, "req", 1.0)]


async def test_what_the_store_still_cannot_take_stays(it: World, telemetry: Recorder) -> None:
    backlog = Backlog(it.store, telemetry)
    backlog.keep(unit(), 10)
    it.store.moods = ["away"]
    await backlog.step()
    assert telemetry.lines == []
    await backlog.step()
    assert [(line["event"], line["units"], line["left"]) for line in telemetry.lines] == [("settled_late", 1, 0)]


async def test_there_is_room_for_so_many_and_so_much(it: World, telemetry: Recorder) -> None:
    for size, fit in ((0, UNITS_MAX), (BYTES_MAX // 2, 2)):
        backlog = Backlog(it.store, telemetry)
        for number in range(UNITS_MAX + 1):
            backlog.keep(unit(number), size)
        await backlog.step()
        assert telemetry.lines[-1]["units"] == fit


async def test_it_works_by_itself_as_soon_as_something_is_late(it: World, telemetry: Recorder) -> None:
    backlog = Backlog(it.store, telemetry, pause=0)
    running = asyncio.create_task(backlog.run())
    it.store.moods = ["away", "away"]
    backlog.keep(unit(), 0)
    async with asyncio.timeout(60):
        while not telemetry.lines:
            await asyncio.wait({running}, timeout=0.01)
    running.cancel()
    assert it.store.moods == []
