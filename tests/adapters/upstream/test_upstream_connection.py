"""Bodies from an upstream: streamed with back-pressure, bounded in time, and never taken for complete."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream import HttpUpstream
from gateway.ports import Outcome, Response
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import (
    MIB,
    call,
    failure,
    turns,
    whole,
)
from tests.conftest import HandClock
from tests.upstreams import Conversation, scripted


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
            response = await call(upstream)
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
            assert await whole(await call(upstream)) == b"helloworld"
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
        assert await failure(whole(await call(upstream))) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
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
        response = await call(upstreams(server.url))
        begun.set()
        assert await failure(whole(response)) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)


async def test_a_chunk_that_is_malformed_breaks_the_stream(upstreams: Callable[..., HttpUpstream]) -> None:
    async def lie(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await begun.wait()
        await conversation.send(b"zz\r\n")
        await conversation.closed()

    begun = asyncio.Event()
    async with scripted(lie) as server:
        response = await call(upstreams(server.url))
        begun.set()
        assert await failure(whole(response)) == (Outcome.UNKNOWN, Reason.UPSTREAM_INVALID)
        await server.until(lambda: server.open == 0)


async def test_a_body_that_stalls_is_given_up_in_time(upstreams: Callable[..., HttpUpstream], clock: HandClock) -> None:
    async with scripted(begins) as server:
        upstream = upstreams(server.url, idle=5.0)
        response = await call(upstream)
        clock.advance(5)
        upstream.sweep()
        assert await failure(whole(response)) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
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
        response = await call(upstream)
        assert response.stream is not None
        stream = aiter(response.stream)
        for _ in range(7):
            clock.advance(4)
            upstream.sweep()
            tick.set()
            assert await anext(stream) == b"."
        clock.advance(2)
        upstream.sweep()
        assert await failure(whole(response)) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


async def test_a_stream_that_is_closed_early_breaks_off_the_upstream(upstreams: Callable[..., HttpUpstream]) -> None:
    async with scripted(begins) as server:
        upstream = upstreams(server.url)
        response = await call(upstream)
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
        first = await call(upstream)
        assert await whole(first) == b"ok"
        second = asyncio.create_task(call(upstream))
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
            response = await call(upstreams(server.url))
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
        response = await call(upstream)
        await turns(2000)
        clock.advance(20)
        upstream.sweep()
        assert await read_slowly(response) == 8 * MIB


# --- segments


@settings(max_examples=40)
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
            response = await call(upstream)
            assert (response.status, await whole(response)) == (200, b"hello world")
        await upstream.close()
    assert server.connections == 1
