"""Waiting for what somebody else finishes: everybody is woken, and while nobody is, one looks for all."""

from __future__ import annotations

import asyncio

import pytest

from gateway.waiting import WaitingRoom


class Thing:
    """Is there or is not; counts who looked."""

    def __init__(self) -> None:
        self.there: str | None = None
        self.looks = 0
        self.looked = asyncio.Semaphore(0)

    async def look(self) -> str | None:
        self.looks += 1
        self.looked.release()
        await asyncio.sleep(0)
        return self.there


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_wait_find_it_once_it_is_finished_and_nobody_has_looked_before() -> None:
    room, thing = WaitingRoom(100, 60), Thing()
    waiting = [asyncio.ensure_future(room.wait("a", 60, thing.look)) for _ in range(50)]
    await turn()
    assert thing.looks == 0
    thing.there = "it"
    room.finished("a")
    assert set(await asyncio.gather(*waiting)) == {"it"}


async def test_nobody_is_woken_by_something_else() -> None:
    room, thing = WaitingRoom(100, 60), Thing()
    waiting = asyncio.ensure_future(room.wait("a", 60, thing.look))
    await turn()
    room.finished("b")
    await turn()
    assert (waiting.done(), thing.looks) == (False, 0)
    waiting.cancel()


async def test_nobody_waits_longer_than_that() -> None:
    assert await WaitingRoom(100, 60).wait("a", 0.001, Thing().look) is None


async def test_one_more_than_there_is_room_for_does_not_wait() -> None:
    room, thing = WaitingRoom(1, 60), Thing()
    waiting = asyncio.ensure_future(room.wait("a", 60, thing.look))
    await turn()
    assert await room.wait("b", 60, thing.look) is None
    waiting.cancel()
    await asyncio.wait([waiting])
    thing.there = "it"
    other = asyncio.ensure_future(room.wait("b", 60, thing.look))
    await turn()
    room.finished("b")
    assert await other == "it", "there is room again"


async def test_what_nobody_here_finishes_is_found_by_one_who_looks_for_all() -> None:
    room, thing = WaitingRoom(100, 0.01), Thing()
    waiting = [asyncio.ensure_future(room.wait("a", 60, thing.look)) for _ in range(50)]
    for _ in range(3):
        await thing.looked.acquire()
    assert thing.looks < 10, "not each of them"
    thing.there = "it"
    assert set(await asyncio.gather(*waiting)) == {"it"}


async def test_what_was_finished_without_being_there_is_waited_for_still() -> None:
    room, thing = WaitingRoom(100, 60), Thing()
    waiting = asyncio.ensure_future(room.wait("a", 60, thing.look))
    await turn()
    room.finished("a")
    await turn()
    assert (waiting.done(), thing.looks) == (False, 1)
    thing.there = "it"
    room.finished("a")
    assert await waiting == "it"


async def test_who_looks_and_fails_fails_alone() -> None:
    async def fails() -> None:
        raise OSError

    room, thing = WaitingRoom(100, 60), Thing()
    waiting = [asyncio.ensure_future(room.wait("a", 60, look)) for look in (fails, thing.look)]
    await turn()
    thing.there = "it"
    room.finished("a")
    with pytest.raises(OSError):
        await waiting[0]
    assert await waiting[1] == "it"
