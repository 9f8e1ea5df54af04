"""Work is done in its order, one piece at a time; chores are for idle moments; there is an end."""

from __future__ import annotations

import threading

from gateway.adapters.writer import WriterThread


async def test_work_is_done_in_the_order_it_came_by_one_thread_that_ends() -> None:
    done: list[tuple[int, str]] = []
    writer = WriterThread("store of a test")
    for n in range(100):
        writer.put(lambda n=n: done.append((n, threading.current_thread().name)))  # type: ignore[misc]
    writer.put(None)
    await writer.join()
    assert done == [(n, "store of a test") for n in range(100)]


async def test_a_chore_is_done_once_when_nobody_comes() -> None:
    chores: list[str] = []
    rested = threading.Event()
    writer = WriterThread("store of a test")

    def chore() -> None:
        chores.append("swept")
        rested.set()

    writer.put(lambda: chore)
    assert rested.wait(30)
    writer.put(None)
    await writer.join()
    assert chores == ["swept"]


async def test_a_chore_gives_way_to_work() -> None:
    chores: list[str] = []
    free = threading.Event()
    writer = WriterThread("store of a test")
    writer.put(lambda: (free.wait(30), lambda: chores.append("swept"))[1])
    writer.put(lambda: None)
    writer.put(None)
    free.set()
    await writer.join()
    assert chores == []
