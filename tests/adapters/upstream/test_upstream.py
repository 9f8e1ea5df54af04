"""One upstream: what it is sent, when a connection is used again, what a call that fails says."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.ports import Outcome
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import (
    GET,
    POST,
    acquire,
    breaks_off,
    call,
    failure,
    in_turn,
    pool,
    resets,
    silence,
    then_hang_up,
    turns,
)
from tests.conftest import HandClock
from tests.upstreams import OK, Conversation, Script, answering, scripted

# --- what is sent


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        ("POST", b'{"a": 1}', b"Content-Length: 8\r\n\r\n"),
        ("POST", b"", b"Content-Length: 0\r\n\r\n"),
        ("PUT", b"", b"Content-Length: 0\r\n\r\n"),
        ("GET", b"", b"\r\n"),
        ("GET", b"q", b"Content-Length: 1\r\n\r\n"),
        ("DELETE", b"", b"\r\n"),
    ],
)
async def test_the_bytes_given_are_the_bytes_sent_and_only_framing_is_added(
    method: str, body: bytes, framing: bytes
) -> None:
    head = (
        method.encode()
        + b" /a/../b%2e?x=%zz HTTP/1.1\r\nHost: h\r\nx-lower:  two  spaces \r\nX-Twice: 1\r\nX-Twice: 2\r\n"
    )
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        connection = await acquire(upstream, safe=False)
        response = await connection.send(method, head, body)
    assert server.requests == [head + framing + body]
    assert (response.status, response.headers, response.body, response.stream) == (
        200,
        [(b"Content-Length", b"2")],
        b"ok",
        None,
    )


async def test_a_redirect_a_cookie_and_an_encoding_are_passed_back_and_not_acted_upon() -> None:
    answer = (
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    )
    async with scripted(answering(answer)) as server, pool(server.url) as upstream:
        response = await call(upstream, "GET")
        await call(upstream, "GET")
    assert (response.status, response.body) == (302, b"\x1f\x8b\x08\x00")
    assert server.requests == [GET + b"\r\n"] * 2


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://127.0.0.1:9000", b"127.0.0.1:9000"),
        ("http://Payments.Internal:80/", b"payments.internal"),
        ("http://[::1]:9000", b"[::1]:9000"),
        ("https://api.stripe.example", b"api.stripe.example"),
        ("https://api.stripe.example:8443", b"api.stripe.example:8443"),
    ],
)
def test_the_authority_is_host_and_port_without_a_default_port(url: str, authority: bytes) -> None:
    assert HttpUpstream("payments", url, clock=HandClock()).authority == authority


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "h:80", "http://", "http://h/path", "http://h?q", "http://u:p@h", "http://h:99999", "http://h#f", ""],
)
def test_an_origin_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        HttpUpstream("payments", url, clock=HandClock())


# --- when a connection is used again


async def test_a_connection_is_kept_and_used_again() -> None:
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        for _ in range(3):
            await call(upstream, "POST", b"x")
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize(("idle", "method", "connections"), [(1.9, "POST", 1), (2.0, "POST", 2), (14.0, "GET", 1)])
async def test_an_unsafe_request_uses_a_connection_only_within_its_time(
    clock: HandClock, idle: float, method: str, connections: int
) -> None:
    async with scripted(answering(OK)) as server, pool(server.url, clock) as upstream:
        await call(upstream, "POST")
        clock.advance(idle)
        await call(upstream, method)
    assert server.connections == connections


async def test_with_no_time_to_reuse_every_unsafe_request_has_its_own_connection() -> None:
    async with scripted(answering(OK)) as server, pool(server.url, timeouts=Timeouts(reuse_within=0)) as upstream:
        for _ in range(3):
            await call(upstream, "POST")
    assert server.connections == 3


async def test_with_no_time_to_reuse_who_waited_has_its_own_connection_too() -> None:
    timeouts, limits = Timeouts(reuse_within=0), Limits(max_connections=1)
    async with scripted(answering(OK)) as server, pool(server.url, timeouts=timeouts, limits=limits) as upstream:
        await asyncio.gather(*(call(upstream, "POST") for _ in range(3)))
    assert server.connections == 3


async def test_a_connection_that_is_taken_is_not_idle_however_long_the_gateway_prepares(clock: HandClock) -> None:
    async with scripted(answering(OK)) as server, pool(server.url, clock) as upstream:
        await call(upstream, "POST")
        connection = await acquire(upstream, safe=False)
        clock.advance(60)
        upstream.sweep()
        assert (await connection.send("POST", POST, b"")).body == b"ok"
    assert server.connections == 1


async def test_an_idle_connection_is_closed_when_its_time_is_over(clock: HandClock) -> None:
    async with scripted(answering(OK)) as server, pool(server.url, clock) as upstream:
        await call(upstream, "GET")
        clock.advance(14.9)
        upstream.sweep()
        await turns()
        assert server.open == 1
        clock.advance(0.2)
        upstream.sweep()
        await server.until(lambda: server.open == 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_the_upstream_closed_is_not_used(method: str) -> None:
    async with scripted(then_hang_up(OK)) as server, pool(server.url) as upstream:
        for n in (1, 2, 3):
            await call(upstream, method, b"")
            await server.until(lambda: server.open == 0)
            await turns()
            assert (server.connections, len(server.requests)) == (n, n)


async def test_an_idle_connection_on_which_the_upstream_speaks_is_not_used() -> None:
    async def chatty(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK)
        await spoken.wait()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
        await conversation.closed()

    spoken = asyncio.Event()
    async with scripted(in_turn(chatty, answering(OK))) as server, pool(server.url) as upstream:
        await call(upstream, "POST")
        spoken.set()
        await server.until(lambda: server.open == 0)
        assert (await call(upstream, "POST")).body == b"ok"
    assert server.connections == 2


async def test_a_connection_that_dies_while_the_gateway_prepares_carries_nothing() -> None:
    async with scripted(in_turn(then_hang_up(OK), answering(OK))) as server, pool(server.url) as upstream:
        await call(upstream, "POST")
        connection = await acquire(upstream, safe=False)
        await server.until(lambda: server.open == 0)
        await turns()
        assert await failure(connection.send("POST", POST, b"x")) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
        connection.release()
        await call(upstream, "POST", b"y")
    assert len(server.requests) == 2


async def test_a_connection_given_back_unused_serves_the_next() -> None:
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        for _ in range(3):
            (await acquire(upstream, safe=False)).release()
        await call(upstream, "POST")
    assert (server.connections, len(server.requests)) == (1, 1)


async def test_release_after_send_does_not_disturb_who_has_the_connection_now() -> None:
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        first = await acquire(upstream, safe=False)
        await first.send("POST", POST, b"1")
        second = await acquire(upstream, safe=False)
        first.release()
        third = await acquire(upstream, safe=False)
        await asyncio.gather(second.send("POST", POST, b"2"), third.send("POST", POST, b"3"))
    assert (server.connections, len(server.requests)) == (2, 3)


# --- what is never sent twice, and what is


@pytest.mark.parametrize("death", [breaks_off, resets])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_unsafe_request_is_never_sent_twice(death: Script, method: str) -> None:
    async with scripted(in_turn(death, answering(OK))) as server, pool(server.url) as upstream:
        await call(upstream, "POST")
        connection = await acquire(upstream, safe=False)
        head = method.encode() + b" /charges/1 HTTP/1.1\r\nHost: h\r\n"
        assert await failure(connection.send(method, head, b"")) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        connection.release()
        assert [r.startswith(head) for r in server.requests] == [False, True]


@pytest.mark.parametrize("death", [breaks_off, resets])
async def test_a_safe_request_on_a_connection_that_just_died_is_sent_once_more(death: Script) -> None:
    async with scripted(in_turn(death, answering(OK))) as server, pool(server.url) as upstream:
        await call(upstream, "GET")
        assert (await call(upstream, "GET")).body == b"ok"
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_safe_request_that_is_sent_once_more_takes_no_other_old_connection() -> None:
    script = in_turn(breaks_off, breaks_off, answering(OK))
    async with scripted(script) as server, pool(server.url) as upstream:
        await asyncio.gather(call(upstream, "GET"), call(upstream, "GET"))
        assert (await call(upstream, "GET")).body == b"ok"
    assert server.connections == 3


async def test_a_safe_request_is_not_sent_a_third_time() -> None:
    async with scripted(in_turn(breaks_off, then_hang_up(b""))) as server, pool(server.url) as upstream:
        await call(upstream, "GET")
        assert await failure(call(upstream, "GET")) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
    assert len(server.requests) == 3


async def test_a_safe_request_is_not_sent_again_once_an_answer_began() -> None:
    async with scripted(then_hang_up(OK, b"HTTP/1.1 2")) as server, pool(server.url) as upstream:
        await call(upstream, "GET")
        assert await failure(call(upstream, "GET")) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
    assert len(server.requests) == 2


# --- what a failed call says


async def test_nobody_listening_is_refused() -> None:
    async with scripted(answering(OK)) as server:
        url = server.url
    async with pool(url, limits=Limits(max_connections=1)) as upstream:
        for _ in range(3):
            assert await failure(acquire(upstream, safe=False)) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)


async def test_a_connection_that_does_not_come_about_in_time_is_refused() -> None:
    async def no_handshake(conversation: Conversation) -> None:
        await conversation.closed()

    async with scripted(no_handshake) as server:
        url = server.url.replace("http:", "https:")
        async with pool(url, timeouts=Timeouts(connect=0.02)) as upstream:
            assert await failure(acquire(upstream, safe=True)) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)


async def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown(clock: HandClock) -> None:
    async with scripted(silence) as server, pool(server.url, clock) as upstream:
        sending = asyncio.create_task(call(upstream, "POST", b"x"))
        await server.until(lambda: len(server.requests) == 1)
        clock.advance(9.9)
        upstream.sweep()
        assert not sending.done()
        clock.advance(0.1)
        upstream.sweep()
        assert await failure(sending) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
        await server.until(lambda: server.open == 0)


async def test_a_head_that_only_drips_does_not_gain_time(clock: HandClock) -> None:
    async def drip(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\n")
        dripped.set()
        await conversation.closed()

    dripped = asyncio.Event()
    async with scripted(drip) as server, pool(server.url, clock) as upstream:
        sending = asyncio.create_task(call(upstream, "POST", b"x"))
        await dripped.wait()
        clock.advance(9)
        await turns()
        clock.advance(1)
        upstream.sweep()
        assert await failure(sending) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


class RealClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def test_deadlines_are_looked_at_without_being_asked_for() -> None:
    async with (
        scripted(silence) as server,
        pool(server.url, RealClock(), timeouts=Timeouts(first_byte=0.02)) as upstream,
    ):
        assert await failure(call(upstream, "POST", b"x")) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)


async def test_idle_connections_are_closed_without_being_asked_for() -> None:
    async with (
        scripted(answering(OK)) as server,
        pool(server.url, RealClock(), timeouts=Timeouts(keep_alive=0.02)) as upstream,
    ):
        await call(upstream, "POST")
        await server.until(lambda: server.open == 0)


async def test_a_call_that_is_cancelled_ends_its_connection() -> None:
    script, limits = in_turn(silence, answering(OK)), Limits(max_connections=1)
    async with scripted(script) as server, pool(server.url, limits=limits) as upstream:
        sending = asyncio.create_task(call(upstream, "POST", b"x"))
        await server.until(lambda: len(server.requests) == 1)
        sending.cancel()
        await asyncio.wait((sending,))
        await server.until(lambda: server.open == 0)
        assert (await call(upstream, "POST")).body == b"ok"


async def test_a_call_cancelled_just_after_its_answer_leaves_the_connection_to_the_next() -> None:
    async with scripted(answering(OK)) as server, pool(server.url) as upstream:
        await call(upstream, "POST")
        sending = asyncio.create_task(call(upstream, "POST"))
        while not upstream.in_use:
            await turns(1)
        while upstream.in_use:
            await turns(1)
        sending.cancel()
        assert (await call(upstream, "POST")).body == b"ok"
    assert (server.connections, len(server.requests)) == (1, 3)
