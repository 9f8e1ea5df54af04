"""Bodies toward an upstream: framed, with back-pressure, and never complete unless they are."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.adapters.upstream import HttpUpstream
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason, Refused
from tests.adapters.upstream.calls import (
    MIB,
    POST,
    call,
    turns,
    whole,
)
from tests.conftest import Body, HandClock
from tests.upstreams import OK, Conversation, answering, scripted


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (Body(b"ab", b"", b"cde", length=5), b"Content-Length: 5\r\n\r\nabcde"),
        (Body(length=0), b"Content-Length: 0\r\n\r\n"),
        (
            Body(b"ab", b"", b"c" * 17),
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n11\r\n" + b"c" * 17 + b"\r\n0\r\n\r\n",
        ),
        (Body(), b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
)
async def test_a_streamed_body_is_sent_with_its_framing(
    upstreams: Callable[..., HttpUpstream], body: Body, sent: bytes
) -> None:
    async with scripted(answering(OK)) as server:
        upstream = upstreams(server.url)
        assert await whole(await call(upstream, "POST", body)) == b"ok"
        assert await whole(await call(upstream, "POST", b"y")) == b"ok"
    assert server.requests[0] == POST + sent
    assert server.connections == 1


class Broken(Body):
    """A body that breaks off after its pieces."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        raise Refused(Reason.REQUEST_TIMEOUT, "Send the body faster.")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (Broken(b"ab", length=5), Reason.REQUEST_TIMEOUT),
        (Broken(b"ab"), Reason.REQUEST_TIMEOUT),
        (Body(b"abcdef", length=5), Reason.MALFORMED_REQUEST),
        (Body(b"abc", length=5), Reason.MALFORMED_REQUEST),
    ],
)
async def test_a_body_that_breaks_off_is_never_complete_to_the_upstream(
    upstreams: Callable[..., HttpUpstream], body: Body, reason: Reason
) -> None:
    async def remember(conversation: Conversation) -> None:
        await conversation.head()
        while piece := await conversation.reader.read(100):
            received.append(piece)

    received: list[bytes] = []
    async with scripted(remember) as server:
        upstream = upstreams(server.url)
        with pytest.raises(Refused) as raised:
            await call(upstream, "POST", body)
        assert raised.value.reason is reason
        await server.until(lambda: server.open == 0)
        assert upstream.in_use == 0
    assert b"".join(received) in (b"", b"ab", b"2\r\nab\r\n", b"abc")


async def test_a_body_that_breaks_off_before_its_first_byte_sends_nothing(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async with scripted(answering(OK)) as server:
        with pytest.raises(Refused):
            await call(upstreams(server.url), "POST", Broken(length=5))
        await server.until(lambda: server.connections == 1 and server.open == 0)
    assert server.requests == []


class Stuck(Body):
    """A body whose client sends one piece and then nothing, until it is given up."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.Event().wait()


async def test_an_early_answer_is_returned_and_the_rest_is_not_sent(upstreams: Callable[..., HttpUpstream]) -> None:
    async def early(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await conversation.closed()

    async with scripted(early) as server:
        upstream = upstreams(server.url)
        response = await call(upstream, "POST", Stuck(length=MIB))
        assert (response.status, await whole(response)) == (413, b"big")
        await server.until(lambda: server.open == 0)
        assert upstream.in_use == 0


async def test_an_early_answer_that_streams_is_read_to_its_end_and_ends_the_connection(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async def early(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\n")
        await answered.wait()
        await conversation.send(b"big")
        await conversation.closed()

    answered = asyncio.Event()
    async with scripted(early) as server:
        response = await call(upstreams(server.url), "POST", Stuck())
        answered.set()
        assert await whole(response) == b"big"
        await server.until(lambda: server.open == 0)


async def test_a_connection_that_still_holds_bytes_of_a_request_carries_no_other(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async def early(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await done.wait()

    done = asyncio.Event()
    async with scripted(early) as server:
        upstream = upstreams(server.url)
        for _ in range(2):
            assert await whole(await call(upstream, "POST", bytes(16 * MIB))) == b"big"
        done.set()
    assert server.connections == 2


async def test_a_connection_that_dies_while_a_body_is_sent_leaves_the_outcome_unknown(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async def die(conversation: Conversation) -> None:
        await conversation.head()
        conversation.reset()

    async with scripted(die) as server:
        upstream = upstreams(server.url)
        with pytest.raises(UpstreamError) as raised:
            await call(upstream, "POST", Stuck())
        assert (raised.value.outcome, raised.value.reason) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        assert upstream.in_use == 0


class Endless(Body):
    """A body of `count` fresh pieces of 64 KiB, without a pause of its own."""

    def __init__(self, count: int) -> None:
        super().__init__(length=count * 65536)
        self.count = count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            yield bytes(65536)


async def test_a_large_upload_waits_for_a_slow_upstream(upstreams: Callable[..., HttpUpstream]) -> None:
    async def slow(conversation: Conversation) -> None:
        await conversation.head()
        left = 16 * MIB
        while left:
            left -= len(await conversation.reader.read(65536))
            await asyncio.sleep(0)
        await conversation.send(OK)

    async with scripted(slow) as server:
        tracemalloc.start()
        try:
            assert await whole(await call(upstreams(server.url), "POST", Endless(256))) == b"ok"
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * MIB


async def test_an_upstream_that_stops_reading_is_given_up_in_time(
    upstreams: Callable[..., HttpUpstream], clock: HandClock
) -> None:
    async def deaf(conversation: Conversation) -> None:
        conversation.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connected.set()
        await done.wait()

    connected, done = asyncio.Event(), asyncio.Event()
    async with scripted(deaf) as server:
        upstream = upstreams(server.url, idle=5.0, total=1000.0)
        body = Counting(1024)
        sending = asyncio.create_task(call(upstream, "POST", body))
        await connected.wait()
        before = -1
        while body.yielded != before:
            before = body.yielded
            await turns(200)
        clock.advance(5)
        upstream.sweep()
        with pytest.raises(UpstreamError) as raised:
            await sending
        done.set()
    assert (raised.value.outcome, raised.value.reason) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
    assert body.yielded < 1024


class Counting(Endless):
    """Counts the pieces that were asked for."""

    yielded = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            self.yielded += 1
            yield bytes(65536)


async def test_after_a_streamed_body_the_answer_is_waited_for_as_after_any_other(
    upstreams: Callable[..., HttpUpstream], clock: HandClock
) -> None:
    async def silence(conversation: Conversation) -> None:
        await conversation.request()
        received.set()
        await conversation.closed()

    received = asyncio.Event()
    async with scripted(silence) as server:
        upstream = upstreams(server.url, first_byte=5.0, total=1000.0)
        sending = asyncio.create_task(call(upstream, "POST", Body(b"ab", b"cd")))
        await received.wait()
        clock.advance(5)
        upstream.sweep()
        with pytest.raises(UpstreamError) as raised:
            await sending
    assert (raised.value.outcome, raised.value.reason) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
