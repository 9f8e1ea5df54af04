"""Bodies over one connection: streamed both ways with back-pressure, bounded in time, and never taken for complete."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable
from socket import SO_LINGER, SOL_SOCKET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason, Refused
from tests.conftest import Body, HandClock
from tests.upstreams import OK, Conversation, answering, scripted

HEAD = b"POST /v1/payments HTTP/1.1\r\nHost: api.example\r\n"
MIB = 1024 * 1024


@pytest.fixture
async def upstreams(clock: HandClock) -> AsyncIterator[Callable[..., HttpUpstream]]:
    """Makes pools of one connection, so that a slot that is not given back is noticed; closes them."""
    made: list[HttpUpstream] = []

    def make(url: str, **timeouts: float) -> HttpUpstream:
        limits = Limits(max_connections=1)
        made.append(HttpUpstream("payments", url, clock=clock, timeouts=Timeouts(**timeouts), limits=limits))
        return made[-1]

    yield make
    for upstream in made:
        await upstream.close()


async def post(upstream: HttpUpstream, body: bytes | Body = b"x") -> Response:
    connection = await upstream.acquire(safe=False)
    try:
        return await connection.send("POST", HEAD, body)
    finally:
        connection.release()


async def whole(response: Response) -> bytes:
    """The body, however it arrived."""
    if response.stream is None:
        return response.body
    pieces = [piece async for piece in response.stream]
    await response.stream.aclose()
    return response.body + b"".join(pieces)


async def failure(response: Response) -> tuple[Outcome, Reason]:
    with pytest.raises(UpstreamError) as raised:
        await whole(response)
    return raised.value.outcome, raised.value.reason


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- the request's body


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
        assert await whole(await post(upstream, body)) == b"ok"
        assert await whole(await post(upstream, b"y")) == b"ok"
    assert server.requests[0] == HEAD + sent
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
            await post(upstream, body)
        assert raised.value.reason is reason
        await server.until(lambda: server.open == 0)
        assert upstream.in_use == 0
    assert b"".join(received) in (b"", b"ab", b"2\r\nab\r\n", b"abc")


async def test_a_body_that_breaks_off_before_its_first_byte_sends_nothing(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async with scripted(answering(OK)) as server:
        with pytest.raises(Refused):
            await post(upstreams(server.url), Broken(length=5))
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
        response = await post(upstream, Stuck(length=MIB))
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
        response = await post(upstreams(server.url), Stuck())
        answered.set()
        assert await whole(response) == b"big"
        await server.until(lambda: server.open == 0)


async def test_a_connection_that_dies_while_a_body_is_sent_leaves_the_outcome_unknown(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async def die(conversation: Conversation) -> None:
        await conversation.head()
        conversation.reset()

    async with scripted(die) as server:
        upstream = upstreams(server.url)
        with pytest.raises(UpstreamError) as raised:
            await post(upstream, Stuck())
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
            assert await whole(await post(upstreams(server.url), Endless(256))) == b"ok"
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
        sending = asyncio.create_task(post(upstream, body))
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
        sending = asyncio.create_task(post(upstream, Body(b"ab", b"cd")))
        await received.wait()
        clock.advance(5)
        upstream.sweep()
        with pytest.raises(UpstreamError) as raised:
            await sending
    assert (raised.value.outcome, raised.value.reason) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


# --- the response's body


@pytest.mark.parametrize(
    ("pieces", "length"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"hello", b"world"), 10),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"lo\r\n5\r\nworld\r\n", b"0\r\n\r\n"),
            None,
        ),
    ],
)
async def test_a_body_that_comes_later_is_streamed_and_the_connection_used_again(
    upstreams: Callable[..., HttpUpstream], pieces: tuple[bytes, ...], length: int | None
) -> None:
    async def stepwise(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(pieces[0])
            await begun.wait()
            await conversation.send(*pieces[1:])

    begun = asyncio.Event()
    async with scripted(stepwise) as server:
        upstream = upstreams(server.url)
        for _ in range(2):
            begun.clear()
            response = await post(upstream)
            assert response.stream is not None
            assert response.stream.length == length
            begun.set()
            assert await whole(response) == b"helloworld"
    assert server.connections == 1


async def test_a_body_without_framing_ends_with_the_connection(upstreams: Callable[..., HttpUpstream]) -> None:
    async def close_delimited(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.0 200 OK\r\n\r\nhello", b"world")

    async with scripted(close_delimited) as server:
        upstream = upstreams(server.url)
        for _ in range(2):
            assert await whole(await post(upstream)) == b"helloworld"
    assert server.connections == 2


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_body_that_is_cut_off_is_an_error_and_not_an_end(
    upstreams: Callable[..., HttpUpstream], start: bytes
) -> None:
    async def cut(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(start)

    async with scripted(cut) as server:
        upstream = upstreams(server.url)
        assert await failure(await post(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        assert upstream.in_use == 0


async def test_a_reset_is_no_end_of_a_body_without_framing(upstreams: Callable[..., HttpUpstream]) -> None:
    async def reset(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await begun.wait()
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        conversation.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        conversation.reset()

    begun = asyncio.Event()
    async with scripted(reset) as server:
        response = await post(upstreams(server.url))
        begun.set()
        assert await failure(response) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)


async def test_a_chunk_that_is_malformed_breaks_the_stream(upstreams: Callable[..., HttpUpstream]) -> None:
    async def lie(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await begun.wait()
        await conversation.send(b"zz\r\n")
        await conversation.closed()

    begun = asyncio.Event()
    async with scripted(lie) as server:
        response = await post(upstreams(server.url))
        begun.set()
        assert await failure(response) == (Outcome.UNKNOWN, Reason.UPSTREAM_INVALID)
        await server.until(lambda: server.open == 0)


async def test_a_body_that_stalls_is_given_up_in_time(upstreams: Callable[..., HttpUpstream], clock: HandClock) -> None:
    async with scripted(begins) as server:
        upstream = upstreams(server.url, idle=5.0)
        response = await post(upstream)
        clock.advance(5)
        upstream.sweep()
        assert await failure(response) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
        await server.until(lambda: server.open == 0)


async def begins(conversation: Conversation) -> None:
    await conversation.request()
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")
    await conversation.closed()


async def test_a_body_that_always_moves_is_still_bounded_in_time(
    upstreams: Callable[..., HttpUpstream], clock: HandClock
) -> None:
    async def trickle(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await tick.wait()
            tick.clear()
            await conversation.send(b".")

    tick = asyncio.Event()
    async with scripted(trickle) as server:
        upstream = upstreams(server.url, idle=5.0, total=30.0)
        response = await post(upstream)
        assert response.stream is not None
        stream = aiter(response.stream)
        for _ in range(7):
            clock.advance(4)
            upstream.sweep()
            tick.set()
            assert await anext(stream) == b"."
        clock.advance(2)
        upstream.sweep()
        assert await failure(response) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


async def test_a_stream_that_is_closed_early_breaks_off_the_upstream(upstreams: Callable[..., HttpUpstream]) -> None:
    async with scripted(begins) as server:
        upstream = upstreams(server.url)
        response = await post(upstream)
        assert response.stream is not None
        await response.stream.aclose()
        await server.until(lambda: server.open == 0)
        assert upstream.in_use == 0


async def test_closing_a_stream_that_ended_does_not_disturb_the_next_exchange(
    upstreams: Callable[..., HttpUpstream],
) -> None:
    async def halves(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", b"k")

    async with scripted(halves) as server:
        upstream = upstreams(server.url)
        first = await post(upstream)
        assert await whole(first) == b"ok"
        second = asyncio.create_task(post(upstream))
        await asyncio.sleep(0)
        if first.stream is not None:
            await first.stream.aclose()
        assert await whole(await second) == b"ok"
    assert server.connections == 1


async def test_a_large_download_waits_for_a_slow_reader(upstreams: Callable[..., HttpUpstream]) -> None:
    async def large(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (16 * MIB))
        for _ in range(256):
            await conversation.send(bytes(65536))

    async with scripted(large) as server:
        tracemalloc.start()
        try:
            response = await post(upstreams(server.url))
            await turns(2000)
            assert await read_slowly(response) == 16 * MIB
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * MIB


async def read_slowly(response: Response) -> int:
    """Bytes of the body."""
    assert response.stream is not None
    total = 0
    async for piece in response.stream:
        total += len(piece)
        await asyncio.sleep(0)
    return total


async def test_a_reader_that_takes_its_time_is_not_the_upstreams_fault(
    upstreams: Callable[..., HttpUpstream], clock: HandClock
) -> None:
    async def large(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
        for _ in range(128):
            await conversation.send(bytes(65536))

    async with scripted(large) as server:
        upstream = upstreams(server.url, idle=5.0, total=30.0)
        response = await post(upstream)
        await turns(2000)
        clock.advance(20)
        upstream.sweep()
        assert await read_slowly(response) == 8 * MIB


# --- segments


@settings(max_examples=40, deadline=None)
@given(st.data())
async def test_segments_do_not_change_a_response(data: st.DataObject) -> None:
    raw = data.draw(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
            ]
        )
    )
    cuts = data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=8).map(sorted))
    segments = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(*segments)

    async with scripted(script) as server:
        upstream = HttpUpstream("payments", server.url, clock=HandClock())
        for _ in range(2):
            response = await post(upstream)
            assert (response.status, await whole(response)) == (200, b"hello world")
        await upstream.close()
    assert server.connections == 1
