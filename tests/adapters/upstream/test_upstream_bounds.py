"""The pool is bounded, its slots are never lost, and at its end nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.ports import BodyStream, Connection, Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import (
    POST,
    acquire,
    call,
    failure,
    in_turn,
    pool,
    silence,
    turns,
)
from tests.conftest import Body, HandClock
from tests.upstreams import OK, Conversation, answering, scripted

# --- bounds


async def test_more_connections_than_allowed_are_never_open() -> None:
    limits = Limits(max_connections=2)
    async with scripted(answering(OK)) as server, pool(server.url, limits=limits) as upstream:
        responses = await asyncio.gather(*(call(upstream, "POST") for _ in range(20)))
    assert {r.body for r in responses} == {b"ok"}
    assert server.connections == 2


async def test_an_idle_connection_too_old_for_an_unsafe_request_makes_room_for_a_new_one(clock: HandClock) -> None:
    async with scripted(answering(OK)) as server, pool(server.url, clock, limits=Limits(max_connections=1)) as upstream:
        await call(upstream, "POST")
        clock.advance(3)
        await call(upstream, "POST")
        await server.until(lambda: server.open == 1)
    assert server.connections == 2


async def test_who_waits_gets_the_next_connection_in_the_order_of_coming() -> None:
    async with scripted(answering(OK)) as server, pool(server.url, limits=Limits(max_connections=1)) as upstream:
        held = await acquire(upstream, safe=False)
        first = asyncio.create_task(acquire(upstream, safe=False))
        second = asyncio.create_task(acquire(upstream, safe=False))
        await turns()
        assert not first.done()
        held.release()
        connection = await first
        await turns()
        assert not second.done()
        connection.release()
        (await second).release()
    assert server.connections == 1


async def test_when_too_many_wait_the_next_is_refused_at_once() -> None:
    limits = Limits(max_connections=1, max_waiting=1)
    async with scripted(answering(OK)) as server, pool(server.url, limits=limits) as upstream:
        held = await acquire(upstream, safe=False)
        waiting = asyncio.create_task(acquire(upstream, safe=False))
        await turns()
        assert await failure(acquire(upstream, safe=True)) == (Outcome.REFUSED, Reason.UPSTREAM_BUSY)
        held.release()
        (await waiting).release()


async def test_waiting_for_a_connection_ends_in_time() -> None:
    limits, timeouts = Limits(max_connections=1), Timeouts(pending=0.02)
    async with scripted(answering(OK)) as server, pool(server.url, limits=limits, timeouts=timeouts) as upstream:
        held = await acquire(upstream, safe=False)
        assert await failure(acquire(upstream, safe=False)) == (Outcome.REFUSED, Reason.UPSTREAM_BUSY)
        held.release()
        (await acquire(upstream, safe=False)).release()


@pytest.mark.parametrize("moment", ["waiting", "meanwhile", "served"])
async def test_a_caller_that_gives_up_waiting_leaves_its_place_to_others(moment: str) -> None:
    limits = Limits(max_connections=1, max_waiting=1)
    async with scripted(answering(OK)) as server, pool(server.url, limits=limits) as upstream:
        held = await acquire(upstream, safe=False)
        waiting = asyncio.create_task(acquire(upstream, safe=False))
        await turns()
        if moment == "served":
            held.release()
        waiting.cancel()
        if moment == "meanwhile":
            held.release()
        await asyncio.wait((waiting,))
        assert waiting.cancelled()
        next_in_line = asyncio.create_task(acquire(upstream, safe=False))
        await turns()
        held.release()
        (await next_in_line).release()
    assert server.connections == 1


# --- clients that do not move


async def endless(conversation: Conversation) -> None:
    """An answer of which there is always more."""
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        await conversation.send(bytes(65536))


class Stalling(Body):
    """A body of which a piece comes, and then no more."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()


async def clients_awaited(upstream: HttpUpstream, count: int = 1) -> None:
    """Until so many exchanges go on only if their clients do."""
    async with asyncio.timeout(60):
        while sum(wire.awaits_client for wire in upstream._wires) < count:  # noqa: ASYNC110 - no code signals it
            await asyncio.sleep(0)


async def unread(upstream: HttpUpstream, count: int = 1) -> BodyStream:
    """An answer that nobody reads, the `count`th, so that no more of it is taken from the upstream."""
    stream = (await call(upstream)).stream
    assert stream is not None
    await clients_awaited(upstream, count)
    return stream


async def test_who_reads_nothing_for_a_second_makes_room_for_who_waits(clock: HandClock) -> None:
    only_one = Limits(max_connections=1)
    async with (
        scripted(in_turn(endless, answering(OK))) as server,
        pool(server.url, clock, limits=only_one, timeouts=Timeouts(pending=60)) as upstream,
    ):
        stream = await unread(upstream)
        waiting = asyncio.create_task(call(upstream))
        await turns()
        clock.advance(0.9)
        upstream.sweep()
        await turns()
        assert not waiting.done()
        clock.advance(0.1)
        upstream.sweep()
        assert (await waiting).body == b"ok"
        with pytest.raises(UpstreamError) as broken_off:
            await anext(aiter(stream))  # not what was on its way to who did not read: that would stay in memory
    assert (broken_off.value.outcome, broken_off.value.blameless) == (Outcome.UNKNOWN, True)


async def test_who_reads_nothing_keeps_the_connection_as_long_as_nobody_waits(clock: HandClock) -> None:
    async with (
        scripted(in_turn(endless, answering(OK))) as server,
        pool(server.url, clock, limits=Limits(max_connections=2)) as upstream,
    ):
        stream = await unread(upstream)
        clock.advance(20)
        upstream.sweep()
        assert (await call(upstream)).body == b"ok"
        assert await anext(aiter(stream))


async def test_of_those_who_read_nothing_the_one_who_has_not_for_longest_makes_room(clock: HandClock) -> None:
    async with (
        scripted(in_turn(endless, endless, answering(OK))) as server,
        pool(server.url, clock, limits=Limits(max_connections=2), timeouts=Timeouts(pending=60)) as upstream,
    ):
        older = await unread(upstream)
        clock.advance(1)
        younger = await unread(upstream, 2)
        clock.advance(1)
        assert (await call(upstream)).body == b"ok"
        assert await anext(aiter(younger))
        with pytest.raises(UpstreamError):
            await anext(aiter(older))


async def test_who_sends_nothing_for_a_second_makes_room_for_who_waits(clock: HandClock) -> None:
    async with (
        scripted(in_turn(silence, answering(OK))) as server,
        pool(server.url, clock, limits=Limits(max_connections=1), timeouts=Timeouts(pending=60)) as upstream,
    ):
        sending = asyncio.create_task(failure(call(upstream, "POST", Stalling(length=2))))
        await clients_awaited(upstream)
        clock.advance(1)
        assert (await call(upstream)).body == b"ok"
        assert (await sending)[0] is Outcome.UNKNOWN


async def test_an_upstream_that_is_slow_itself_gives_nobody_up(clock: HandClock) -> None:
    async with (
        scripted(silence) as server,
        pool(server.url, clock, limits=Limits(max_connections=1), timeouts=Timeouts(pending=0.02)) as upstream,
    ):
        asked = asyncio.create_task(call(upstream, "POST", b"x"))
        await server.until(lambda: len(server.requests) == 1)
        clock.advance(5)
        assert await failure(call(upstream)) == (Outcome.REFUSED, Reason.UPSTREAM_BUSY)
        assert not asked.done()
        asked.cancel()


# --- the end


async def test_a_drained_pool_keeps_no_connection_but_lets_exchanges_end() -> None:
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        under_way = await acquire(upstream, safe=False)
        await call(upstream, "POST")
        upstream.drain()
        await server.until(lambda: server.open == 1)
        assert (await under_way.send("POST", POST, b"")).body == b"ok"
        await server.until(lambda: server.open == 0)


async def test_closing_breaks_off_what_is_under_way_and_leaves_nothing_open() -> None:
    async with scripted(silence) as server, pool(server.url) as upstream:
        sending = asyncio.create_task(call(upstream, "POST", b"x"))
        await server.until(lambda: len(server.requests) == 1)
        await upstream.close()
        assert await failure(sending) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        await server.until(lambda: server.open == 0)
        assert (await failure(acquire(upstream, safe=False)))[0] is Outcome.REFUSED


@pytest.mark.parametrize("moment", range(8))
async def test_a_connection_given_up_while_it_is_made_is_not_waited_for_at_the_end(moment: int) -> None:
    async with scripted(answering(OK)) as server:
        upstream = HttpUpstream("payments", server.url, clock=HandClock())
        taking = asyncio.create_task(acquire(upstream, safe=False))
        await turns(moment)
        taking.cancel()
        await asyncio.wait((taking,))
        if not taking.cancelled():
            taking.result().release()
        assert upstream.in_use == 0
        await asyncio.wait_for(upstream.close(), 1)


# --- no slot is ever lost


STEPS = st.lists(
    st.sampled_from(
        ["take", "take_safe", "send", "broken", "release", "cancel", "advance", "sweep", "hang_up", "turn"]
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
async def test_whatever_happens_every_slot_comes_back(steps: list[str]) -> None:
    clock, limits = HandClock(), Limits(max_connections=3, max_waiting=5)
    conversations: list[Conversation] = []

    async def script(conversation: Conversation) -> None:
        conversations.append(conversation)
        while True:
            request = await conversation.request()
            await conversation.send(b"nonsense" if b"broken" in request else OK)

    async with scripted(script) as server, pool(server.url, clock, limits=limits) as upstream:
        run = _Run(upstream, clock, conversations)
        for step in steps:
            await run.step(step)
        await run.finish()
        assert upstream.in_use == 0
        clock.advance(3)
        held = [await acquire(upstream, safe=False) for _ in range(3)]
        assert (await asyncio.gather(*(c.send("POST", POST, b"") for c in held)))[0].body == b"ok"


class _Run:
    """Plays one list of steps against a pool, and gives everything back at the end."""

    def __init__(self, upstream: HttpUpstream, clock: HandClock, conversations: list[Conversation]) -> None:
        self.upstream, self.clock, self.conversations = upstream, clock, conversations
        self.taking: list[asyncio.Task[Connection]] = []
        self.held: list[Connection] = []
        self.sending: dict[asyncio.Task[Response], Connection] = {}

    async def step(self, step: str) -> None:
        plays: dict[str, Callable[[], None]] = {
            "take": lambda: self.taking.append(asyncio.create_task(acquire(self.upstream, safe=False))),
            "take_safe": lambda: self.taking.append(asyncio.create_task(acquire(self.upstream, safe=True))),
            "send": lambda: self._send(b"x"),
            "broken": lambda: self._send(b"broken"),
            "release": lambda: self.held.pop().release() if self.held else None,
            "cancel": self._cancel,
            "advance": lambda: self.clock.advance(3),
            "sweep": self.upstream.sweep,
            "hang_up": self._hang_up,
        }
        if step == "turn":
            await turns(4)
        else:
            plays[step]()
        self._collect()
        assert self.upstream.in_use <= 3

    async def finish(self) -> None:
        for _ in range(20):
            while self.held:
                self.held.pop().release()
            pending = [t for t in (*self.taking, *self.sending) if not t.done()]
            if not pending:
                break
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            self._collect()
        self._collect()
        while self.held:
            self.held.pop().release()

    def _send(self, body: bytes) -> None:
        if self.held:
            connection = self.held.pop()
            self.sending[asyncio.create_task(connection.send("POST", POST, body))] = connection

    def _cancel(self) -> None:
        for task in (*self.taking[-1:], *list(self.sending)[-1:]):
            task.cancel()

    def _hang_up(self) -> None:
        for conversation in self.conversations:
            conversation.reset()

    def _collect(self) -> None:
        for task in [t for t in self.taking if t.done()]:
            self.taking.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.held.append(task.result())
        for sent in [t for t in self.sending if t.done()]:
            self.sending.pop(sent).release()
            assert sent.cancelled() or isinstance(sent.exception(), UpstreamError | None)
