"""Bodies as they arrive: asked for, bounded in size and time, whole or refused."""

from __future__ import annotations

import gc

import pytest

from gateway.exchange import Request
from gateway.server.edge import Limits
from gateway.server.request_body import HIGH_WATER
from tests.server.edge_world import GET, HOST, post, turns, world


async def test_a_chunked_body_is_put_together() -> None:
    async with world() as it:
        request = b"POST /v1/payments HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = await it.ask(request + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
        assert answer.status == 200
        assert it.upstream.seen[0].body == b"hello"


async def test_a_body_that_ends_early_reaches_no_upstream_as_whole() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(post(b"hello")[:-1])
        client.writer.write_eof()
        assert (await client.answer()).reason == "malformed_request"
        assert it.upstream.seen == []


async def test_100_continue_is_sent_when_the_body_is_first_read() -> None:
    async with world() as it:
        client = await it.client()
        request = post(b"hello", b"Expect: 100-continue")
        await client.send(request[:-5])
        assert (await client.answer()).status == 100
        await client.send(b"hello")
        assert (await client.answer()).status == 200


async def test_a_client_that_did_not_wait_is_not_told_to_go_on() -> None:
    async with world() as it:
        assert (await it.ask(post(b"hello", b"Expect: 100-continue"))).status == 200


async def test_no_100_continue_precedes_a_refusal() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(post(b"hello", b"Expect: 100-continue").replace(b"/v1/payments", b"/nowhere")[:-5])
        assert (await client.answer()).status == 404
        assert await client.rest() == b""


async def test_a_body_over_the_listeners_bound_is_refused_before_it_is_asked_for() -> None:
    async with world(Limits(body=4)) as it:
        client = await it.client()
        await client.send(post(b"hello", b"Expect: 100-continue")[:-5])
        answer = await client.answer()
        assert (answer.status, answer.reason) == (413, "body_too_large")


async def test_a_chunked_body_is_bounded_as_it_arrives() -> None:
    async with world(Limits(body=4)) as it:
        request = b"POST /v1/payments HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        assert (await it.ask(request + b"5\r\nhello\r\n0\r\n\r\n")).status == 413
        assert it.upstream.seen == []


async def test_a_body_that_nobody_reads_does_not_become_the_next_request() -> None:
    async with world() as it:
        client = await it.client()
        smuggled = b"GET /v1/payments/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
        whole = post(smuggled).replace(b"POST /v1/payments", b"POST /nowhere")
        assert (await client.ask(whole)).status == 404
        assert (await client.ask(GET)).status == 200
        assert [b"smuggled" in seen.head for seen in it.upstream.seen] == [False]


async def test_a_large_body_that_nobody_reads_ends_the_connection_after_the_answer() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(post(b"x" * 1_000_000).replace(b"POST /v1/payments", b"POST /nowhere"))
        answer = await client.answer()
        assert (answer.status, answer.header(b"connection")) == (404, b"close")
        assert await client.rest() == b""


async def test_a_body_that_stalls_is_answered_408() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(post(b"hello")[:-1])
        await it.taken(4)
        it.pass_time(11)
        assert (await client.answer()).reason == "request_timeout"
        assert it.upstream.seen == []


async def test_a_body_that_drips_is_answered_408_in_the_end() -> None:
    async with world() as it:
        client = await it.client()
        head = post(b"x" * 100)[:-100]
        await client.send(head)
        for dripped in range(1, 5):
            await client.send(b"x")
            await it.taken(dripped)
            it.pass_time(9)
        assert (await client.answer()).reason == "request_timeout"


async def test_who_sends_slowly_keeps_no_connection_to_the_upstream_from_others() -> None:
    async with world() as it:
        client = await it.client()
        request = post(b"hello")
        for byte in request[:-1]:
            await client.send(bytes([byte]))
        await it.taken(4)
        assert it.upstream.acquired == 0
        await client.send(request[-1:])
        assert (await client.answer()).status == 200
        assert (it.upstream.acquired, it.upstream.seen[0].body) == (1, b"hello")


async def test_a_body_larger_than_what_is_held_of_it_goes_on_as_it_arrives() -> None:
    body = bytes(3 * HIGH_WATER)
    async with world() as it:
        client = await it.client()
        await client.send(post(body)[:-1])
        await turns(lambda: it.upstream.acquired == 1)
        await client.send(b"\0")
        assert (await client.answer()).status == 200
        assert it.upstream.seen[0].body == body


async def test_a_body_that_is_waited_for_in_many_pieces_is_late_in_the_end() -> None:
    async with world(Limits(body_time=30, body_stall=10)) as it:
        client = await it.client()
        await client.send(post(b"x" * 100)[:-100])
        for number in range(4):
            await client.send(b"x")
            await it.taken(number + 1)
            it.pass_time(8)
        answer = await client.answer()
        assert (answer.reason, it.upstream.acquired) == ("request_timeout", 0)


def requests_in_memory() -> int:
    return sum(isinstance(each, Request) for each in gc.get_objects())


@pytest.mark.parametrize("broken_off_by", ["time", "the client", "a wrong chunk"])
async def test_a_request_whose_body_broke_off_is_gone_without_the_cycle_collector(broken_off_by: str) -> None:
    """Slow senders come by the thousand, and the collector looks at what is old once an hour."""
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"5\r\nhel"
    async with world() as it:
        gc.collect()
        gc.disable()
        try:
            before = requests_in_memory()
            for _ in range(3):
                client = await it.client()
                await client.send(head)
                await it.taken(3)
                if broken_off_by == "time":
                    it.pass_time(11)
                elif broken_off_by == "the client":
                    client.writer.write_eof()
                else:
                    await client.send(b"loX\r\n")
                assert (await client.answer()).status in {400, 408}
                await client.close()
                await turns(lambda: not it.listener._connections.all)
            assert requests_in_memory() == before
        finally:
            gc.enable()
