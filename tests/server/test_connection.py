"""One connection on the wire: framing, deadlines, answers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason, Refused
from gateway.server.connection import Connection
from gateway.server.edge import Arrival
from gateway.server.request_body import HIGH_WATER
from tests.server.edge_world import GET, HOST, Pieces, Seen, post, turns, world


def answering(response: Callable[[], Response]) -> Callable[[Seen], Awaitable[Response]]:
    async def answer(_: Seen) -> Response:
        return response()

    return answer


# --- requests -----------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_and_the_connection_serves_the_next_one() -> None:
    async with world() as it:
        client = await it.client()
        first = await client.ask(post(b'{"a":1}', b"Content-Type: application/json"))
        second = await client.ask(GET)
        assert (first.status, first.body, second.status) == (200, b"ok", 200)
        assert [seen.body for seen in it.upstream.seen] == [b'{"a":1}', b""]


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with world() as it:
        client = await it.client()
        for byte in post(b"hello"):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200
        assert it.upstream.seen[0].body == b"hello"


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(b"".join(post(b"%d" % n) for n in range(100)))
        assert [(await client.answer()).status for _ in range(100)] == [200] * 100
        assert [seen.body for seen in it.upstream.seen] == [b"%d" % n for n in range(100)]


async def test_what_is_sent_ahead_is_bounded() -> None:
    async with world() as it:
        gate = asyncio.Event()

        async def wait(_: Seen) -> Response:
            await gate.wait()
            return Response(200)

        it.upstream.answer = wait
        client = await it.client()
        await client.send(GET)
        await turns(lambda: bool(it.upstream.seen))
        flood = asyncio.create_task(client.send(GET * 400_000))
        done, _ = await asyncio.wait([flood], timeout=0.2)
        assert not done
        client.writer.transport.abort()
        await asyncio.wait([flood])
        gate.set()


async def test_what_is_sent_ahead_stays_bounded_while_it_is_answered() -> None:
    async def after_a_while(_: Seen) -> Response:
        for _ in range(3):
            await asyncio.sleep(0)
        return Response(200)

    async with world() as it:
        it.upstream.answer = after_a_while
        client = await it.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        flood = asyncio.create_task(client.send(GET * 400_000))
        await turns(lambda: len(it.upstream.seen) > 100)
        (connection,) = it.listener._connections.all
        assert len(connection._pending) < 1_000_000
        client.writer.transport.abort()
        await asyncio.wait([flood])


async def test_a_large_body_that_nobody_read_keeps_no_later_request_waiting() -> None:
    async with world() as it:
        gate = asyncio.Event()

        class Unmoved:
            async def serve(self, connection: Connection, arrival: Arrival | Refused) -> None:
                await gate.wait()
                await connection.send("POST", Response(200, [], b"ok"), close=False)

        it.listener._edge.exchanges = Unmoved()
        client = await it.client()
        await client.send(post(b"x" * (HIGH_WATER + 1)))
        await turns(lambda: any(c._body is not None and c._body.is_whole for c in it.listener._connections.all))
        gate.set()
        assert (await client.answer()).status == 200
        assert (await client.ask(GET)).status == 200


async def test_a_client_that_half_closes_still_gets_its_answer() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(GET)
        client.writer.write_eof()
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_connection_close_and_http_1_0_are_heeded() -> None:
    async with world() as it:
        for request in (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), GET.replace(b"/1.1", b"/1.0")):
            client = await it.client()
            answer = await client.ask(request)
            assert (answer.status, answer.header(b"connection")) == (200, b"close")
            assert await client.rest() == b""


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed_request"),
        (b"GET /%2e HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target_not_canonical"),
        (b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n", 400, "target_not_canonical"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "target_too_long"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 7000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + HOST + (b"X-A: " + b"a" * 6000 + b"\r\n") * 20, 431, "headers_too_large"),
        (
            b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(80)) + b"\r\n",
            431,
            "headers_too_large",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, "host_invalid"),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method_not_supported"),
        (post(b"x", b"Content-Encoding: gzip"), 415, "content_encoding"),
        (b"\r\n\r\n" + GET, 400, "malformed_request"),
    ],
)
async def test_a_bad_head_is_answered_by_a_problem_and_ends_the_connection(
    raw: bytes, status: int, reason: str
) -> None:
    async with world() as it:
        client = await it.client()
        answer = await client.ask(raw)
        assert (answer.status, answer.reason) == (status, reason)
        assert answer.header(b"content-type") == b"application/problem+json"
        assert answer.header(b"connection") == b"close"
        assert answer.header(b"server") is None
        assert await client.rest() == b""
        assert it.upstream.seen == []


async def test_nothing_behind_a_refused_request_is_served() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(post(b"x", b"Transfer-Encoding: chunked") + GET)
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
        assert it.upstream.seen == []


async def test_trailers_reach_nobody() -> None:
    async with world() as it:
        request = b"POST /v1/payments HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = await it.ask(request + b"2\r\n{}\r\n0\r\nX-Role: admin\r\n\r\n")
        assert answer.reason == "malformed_request"
        assert it.upstream.seen == []


# --- deadlines ----------------------------------------------------------------------------------------------------


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    async with world() as it:
        client = await it.client()
        await turns(lambda: it.telemetry.counts.get(_connections()) == 1)
        it.pass_time(9)
        it.pass_time(2)
        assert await client.rest() == b""


def _connections() -> tuple[object, tuple[str, ...]]:
    from gateway.pure.metrics import Metric

    return Metric.CONNECTIONS, ("edge",)


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_slow_head_is_answered_408_also_on_a_later_request(before: bytes) -> None:
    async with world() as it:
        client = await it.client()
        if before:
            await client.ask(before)
        await client.send(GET[:20])
        await it.taken(20)
        it.pass_time(11)
        assert (await client.answer()).reason == "request_timeout"
        assert await client.rest() == b""


async def test_an_idle_connection_is_kept_for_its_time_and_then_closed() -> None:
    async with world() as it:
        client = await it.client()
        await client.ask(GET)
        it.pass_time(70)
        assert (await client.ask(GET)).status == 200
        it.pass_time(76)
        assert await client.rest() == b""


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async with world() as it:
        it.upstream.answer = answering(lambda: Response(200, [], b"x" * 50_000_000))
        client = await it.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await it.blocked()
        it.pass_time(31)
        await turns(lambda: bool(it.lines()))
        assert it.lines()[0]["sent"] is False


# --- answers ------------------------------------------------------------------------------------------------------


async def test_head_is_answered_without_a_body() -> None:
    async with world() as it:
        client = await it.client()
        await client.ask(GET.replace(b"GET", b"HEAD"), bodiless=True)
        assert (await client.ask(GET)).body == b"ok"


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_body_have_no_framing(status: int) -> None:
    async with world() as it:
        it.upstream.answer = answering(lambda: Response(status))
        client = await it.client()
        answer = await client.ask(GET)
        assert (answer.header(b"content-length"), answer.header(b"transfer-encoding")) == (None, None)
        assert (await client.ask(GET)).status == status


@pytest.mark.parametrize("length", [None, 6])
async def test_a_stream_passes_piece_by_piece_while_it_arrives(length: int | None) -> None:
    async with world() as it:
        gate = asyncio.Event()
        stream = Pieces(b"abc", gate, b"def", length=length)
        it.upstream.answer = answering(lambda: Response(200, stream=stream))
        client = await it.client()
        await client.send(GET)
        assert (await client.reader.readuntil(b"abc")).startswith(b"HTTP/1.1 200")
        gate.set()
        assert b"def" in await client.reader.readuntil(b"def" if length else b"0\r\n\r\n")
        assert (await client.ask(GET)).status == 200
        await turns(lambda: stream.closed)


@pytest.mark.parametrize(
    "stream",
    [
        lambda: Pieces(b"abc", UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_FAILED, "broke off")),
        lambda: Pieces(b"abc", UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_FAILED, "broke off"), length=6),
        lambda: Pieces(b"abc", length=6),
        lambda: Pieces(b"abcdefg", length=6),
    ],
)
async def test_a_stream_that_breaks_never_ends_cleanly(stream: Callable[[], Pieces]) -> None:
    async with world() as it:
        made = stream()
        it.upstream.answer = answering(lambda: Response(200, stream=made))
        client = await it.client()
        await client.send(GET)
        received = await client.rest()
        assert not received.endswith(b"0\r\n\r\n")
        assert b"abcdef" not in received
        await turns(lambda: bool(it.lines()))
        assert it.lines()[0]["sent"] is False
        assert made.closed


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    async with world() as it:
        it.upstream.answer = answering(lambda: Response(200, stream=Pieces(b"abc", b"def")))
        answer = await it.ask(GET.replace(b"/1.1", b"/1.0"))
        assert (answer.body, answer.header(b"transfer-encoding")) == (b"abcdef", None)


async def test_a_stream_to_http_1_0_that_breaks_ends_in_a_reset() -> None:
    async with world() as it:
        broken = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_FAILED, "broke off")
        it.upstream.answer = answering(lambda: Response(200, stream=Pieces(b"abc", broken)))
        with pytest.raises(ConnectionResetError):
            await it.ask(GET.replace(b"/1.1", b"/1.0"))


async def test_a_stream_waits_for_a_client_that_reads_slowly() -> None:
    async with world() as it:
        produced = 0

        class Endless(Pieces):
            async def __aiter__(self):  # type: ignore[no-untyped-def]
                nonlocal produced
                for _ in range(2000):
                    produced += 1
                    yield b"x" * 65536

        it.upstream.answer = answering(lambda: Response(200, stream=Endless()))
        client = await it.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET)
        await it.blocked()
        before = produced
        for _ in range(100):
            await asyncio.sleep(0)
        assert produced == before < 1000
        client.writer.transport.abort()
        await turns(lambda: bool(it.lines()))


# --- the end ------------------------------------------------------------------------------------------------------


async def test_a_closed_connection_leaves_nothing_to_the_cycle_collector() -> None:
    """Else TLS states pile up until it runs, and it seldom runs."""
    async with world() as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        (known,) = map(id, it.listener._connections.all)
        gc.disable()
        try:
            await client.close()
            await turns(lambda: known not in {id(o) for o in gc.get_objects() if type(o) is Connection})
        finally:
            gc.enable()
