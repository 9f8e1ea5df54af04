"""Both ends of a channel: questions cross, answers find who asked, and an end that is gone is noticed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.supervising.channel import Answer, Channel, Failed, Gone

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)


async def echo(about: Any) -> Any:
    return about


@asynccontextmanager
async def channels(one: Mapping[str, Answer], other: Mapping[str, Answer]) -> AsyncIterator[tuple[Channel, Channel]]:
    ends = socket.socketpair()
    pair = await Channel.over(ends[0], one), await Channel.over(ends[1], other)
    running = [asyncio.create_task(end.run()) for end in pair]
    try:
        yield pair
    finally:
        for end in pair:
            await end.close()
        await asyncio.wait(running, timeout=60)


@given(JSON)
def test_what_is_sent_arrives_as_it_was(about: Any) -> None:
    async def ask() -> Any:
        async with channels({}, {"echo": echo}) as (one, _):
            return await one.ask("echo", about)

    assert asyncio.run(ask()) == about


async def test_a_large_report_arrives_whole() -> None:
    async with channels({}, {"echo": echo}) as (one, _):
        about = list(range(200_000))
        assert await one.ask("echo", about) == about


async def test_both_ask_at_once_and_a_slow_answer_holds_up_no_other() -> None:
    released = asyncio.Event()

    async def slow(_: Any) -> str:
        await released.wait()
        return "slow"

    answers: Mapping[str, Answer] = {"echo": echo, "slow": slow}
    async with channels(answers, answers) as (one, other):
        waiting = asyncio.create_task(one.ask("slow"))
        assert await asyncio.gather(one.ask("echo", 1), other.ask("echo", 2)) == [1, 2]
        assert not waiting.done()
        released.set()
        assert await waiting == "slow"


async def test_what_fails_there_is_raised_here_by_its_name_alone() -> None:
    async def fail(_: Any) -> None:
        raise LookupError("a secret")

    async with channels({}, {"fail": fail}) as (one, _):
        with pytest.raises(Failed, match=r"^LookupError$"):
            await one.ask("fail")
        with pytest.raises(Failed, match=r"^KeyError$"):
            await one.ask("something else")


async def test_who_asks_an_end_that_goes_is_told_so_and_does_not_wait() -> None:
    asked = asyncio.Event()

    async def never(_: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with channels({}, {"never": never}) as (one, other):
        waiting = asyncio.create_task(one.ask("never"))
        await asked.wait()
        await other.close()
        with pytest.raises(Gone):
            await waiting
        with pytest.raises(Gone):
            await one.ask("never")
        one.tell("never")


async def test_an_answer_that_comes_too_late_is_for_nobody() -> None:
    released = asyncio.Event()

    async def slow(_: Any) -> None:
        await released.wait()

    async with channels({}, {"slow": slow, "echo": echo}) as (one, _):
        with pytest.raises(TimeoutError):
            await one.ask("slow", seconds=0.001)
        released.set()
        assert await one.ask("echo", 3) == 3


async def test_what_was_told_before_the_end_is_heard() -> None:
    heard: list[Any] = []

    async def hear(about: Any) -> None:
        heard.append(about)

    ends = socket.socketpair()
    one, other = await Channel.over(ends[0], {}), await Channel.over(ends[1], {"hear": hear})
    for n in range(100):
        one.tell("hear", n)
    await one.close()
    await other.run()
    await other.heard()
    assert heard == list(range(100))
    await other.close()
