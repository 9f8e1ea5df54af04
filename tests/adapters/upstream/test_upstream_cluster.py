"""Endpoints that fail, and what keeps the others going: balancing, ejection, health checks, names that move."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.upstream_cluster import Care
from gateway.ports import settled
from gateway.pure.health import HealthSettings
from gateway.pure.metrics import Metric
from gateway.pure.retries import RetrySettings
from tests.adapters.upstream.calls import failure, pool
from tests.adapters.upstream.clusters import ask, cluster
from tests.conftest import HandClock
from tests.e2e.harness import free_port
from tests.upstreams import OK, Conversation, ScriptedUpstream, answering, scripted

SICK = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
EAGER = HealthSettings(consecutive_5xx=2, unhealthy_threshold=2, healthy_threshold=1)
AT_ONCE = RetrySettings(base_interval=0.001, max_interval=0.001)


async def until(happened: Callable[[], bool]) -> None:
    """Let real time pass, a moment at a time, until it has happened."""
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - any state may be awaited, no code signals it
            await asyncio.sleep(0.001)


async def sent(*servers: ScriptedUpstream) -> list[int]:
    return [len(server.requests) for server in servers]


async def test_calls_go_to_the_endpoint_that_has_less_to_do() -> None:
    async with scripted(answering(OK)) as a, scripted(answering(OK)) as b, cluster(a.url, b.url) as both:
        held = [await settled(both.lane("").acquire(safe=False)) for _ in range(6)]
        assert [endpoint.front.slots.load for endpoint in both.endpoints] == [3, 3]
        for connection in held:
            connection.release()


async def test_weights_are_shares() -> None:
    async with scripted(answering(OK)) as a, scripted(answering(OK)) as b, cluster(a.url, b.url, weights=[9, 1]) as it:
        for _ in range(200):
            await ask(it.lane(""))
        assert 5 <= (await sent(a, b))[1] <= 40


async def test_an_endpoint_that_fails_in_a_row_is_ejected_and_comes_back(clock: HandClock) -> None:
    async with (
        scripted(answering(SICK)) as a,
        scripted(answering(OK)) as b,
        cluster(a.url, b.url, clock=clock, health=EAGER) as both,
    ):
        lane = both.lane("")
        while len(a.requests) < 2:
            await ask(lane)
        for _ in range(20):
            assert (await ask(lane)).status == 200
        assert len(a.requests) == 2
        assert both.count(Metric.UPSTREAM_EJECTIONS) == 1
        assert [both.count(Metric.UPSTREAM_ENDPOINTS, state) for state in ("available", "ejected")] == [1, 1]
        assert both.lines("endpoint_ejected")[0]["endpoint"] == a.url.removeprefix("http://")
        clock.advance(30)
        for _ in range(20):
            await ask(lane)
        assert len(a.requests) > 2


async def test_an_endpoint_that_refuses_connections_costs_no_call() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with scripted(answering(OK)) as b, cluster(dead, b.url, health=EAGER, retries=AT_ONCE) as both:
        assert {(await ask(both.lane(""))).status for _ in range(20)} == {200}
        assert len(b.requests) == 20
        assert both.count(Metric.UPSTREAM_EJECTIONS) == 1


async def test_a_call_that_is_made_again_goes_to_another_endpoint() -> None:
    dead, once = f"http://127.0.0.1:{free_port()}", RetrySettings(num_retries=1, min_retries_per_second=100)
    patient = HealthSettings(consecutive_5xx=1000)
    async with scripted(answering(OK)) as b, cluster(dead, b.url, health=patient, retries=once) as both:
        assert {(await ask(both.lane(""))).status for _ in range(20)} == {200}


async def test_a_health_check_that_fails_takes_an_endpoint_out_and_one_that_passes_brings_it_back() -> None:
    answers = {"well": OK, "sick": SICK}
    state = "sick"

    async def script(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            await conversation.send(answers[state] if request.startswith(b"GET /healthz") else OK)

    care = Care(path="/healthz", interval=0.005)
    async with (
        scripted(script) as a,
        scripted(answering(OK)) as b,
        cluster(a.url, b.url, checked=True, care=care, health=EAGER) as both,
    ):
        caring = asyncio.create_task(both.care())
        await until(lambda: bool(both.lines("endpoint_unhealthy")))
        before = sum(request.startswith(b"POST") for request in a.requests)
        for _ in range(20):
            assert (await ask(both.lane(""))).status == 200
        assert sum(request.startswith(b"POST") for request in a.requests) == before
        assert both.count(Metric.UPSTREAM_ENDPOINTS, "unhealthy") == 1
        state = "well"
        await until(lambda: bool(both.lines("endpoint_healthy")))
        assert both.count(Metric.UPSTREAM_ENDPOINTS, "available") == 2
        caring.cancel()
        await asyncio.wait((caring,))


async def test_a_health_check_takes_no_connection_that_requests_could_use() -> None:
    async with scripted(answering(OK)) as a, cluster(a.url, checked=True, care=Care(path="/healthz")) as one:
        held = await settled(one.lane("").acquire(safe=False))
        caring = asyncio.create_task(one.care())
        await a.until(lambda: any(request.startswith(b"GET /healthz HTTP/1.1\r\nHost: 127") for request in a.requests))
        assert one.endpoints[0].front.in_use == 1
        held.release()
        caring.cancel()
        await asyncio.wait((caring,))


# --- names that move


@asynccontextmanager
async def at(host: str, port: int) -> AsyncIterator[list[str]]:
    """A server that notes each request it answers."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\nx"):
                seen.append(host)
                writer.write(OK)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield seen
    finally:
        server.close()
        await server.wait_closed()


class Names:
    """A resolver that a test sets."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if not self.addresses:
            raise socket.gaierror
        return self.addresses


async def test_new_addresses_of_a_name_are_used_and_connections_to_old_ones_end() -> None:
    port, names = free_port(), Names("127.0.0.1")
    async with (
        at("127.0.0.1", port) as old,
        at("127.0.0.2", port) as new,
        pool(f"http://payments.test:{port}", lookup=names) as upstream,
    ):
        await upstream.resolve()
        under_way = await settled(upstream.acquire(safe=False))
        first = await settled(upstream.acquire(safe=False))
        await first.send("POST", b"POST / HTTP/1.1\r\n", b"x")
        names.addresses = ("127.0.0.2",)
        await upstream.resolve()
        assert len(upstream._idle) == 0, "what is idle is closed at once"
        await under_way.send("POST", b"POST / HTTP/1.1\r\n", b"x")
        assert (old, new) == (["127.0.0.1"] * 2, [])
        assert len(upstream._idle) == 0, "what was under way, when it is done"
        again = await settled(upstream.acquire(safe=False))
        await again.send("POST", b"POST / HTTP/1.1\r\n", b"x")
        assert new == ["127.0.0.2"]


async def test_addresses_stay_as_they_are_while_nobody_can_say_others() -> None:
    port, names = free_port(), Names("127.0.0.1")
    async with at("127.0.0.1", port), pool(f"http://payments.test:{port}", lookup=names) as upstream:
        await upstream.resolve()
        names.addresses = ()
        await upstream.resolve()
        (await settled(upstream.acquire(safe=False))).release()


async def test_an_address_that_takes_no_connection_is_tried_last_from_then_on() -> None:
    port, names = free_port(), Names("127.0.0.3", "127.0.0.2")
    async with at("127.0.0.2", port), pool(f"http://payments.test:{port}", lookup=names) as upstream:
        await upstream.resolve()
        (await settled(upstream.acquire(safe=False))).release()
        assert upstream.addresses == ("127.0.0.2", "127.0.0.3")


async def test_if_no_address_takes_a_connection_nothing_was_sent() -> None:
    names = Names("127.0.0.3", "127.0.0.2")
    async with pool(f"http://payments.test:{free_port()}", lookup=names) as upstream:
        await upstream.resolve()
        outcome, reason = await failure(settled(upstream.acquire(safe=False)))
        assert (outcome.value, reason.label) == ("refused", "upstream_unreachable")
        assert upstream.in_use == 0


async def test_names_are_looked_up_again_and_again() -> None:
    port, names = free_port(), Names("127.0.0.1")
    async with at("127.0.0.1", port), at("127.0.0.2", port):
        url = f"http://payments.test:{port}"
        async with cluster(url, lookup=names, care=Care(dns_refresh=0.001)) as one:
            caring, front = asyncio.create_task(one.care()), one.endpoints[0].front
            for address in ("127.0.0.1", "127.0.0.2"):
                names.addresses = (address,)
                await until(lambda: front.addresses == (address,))  # noqa: B023
            caring.cancel()
            await asyncio.wait((caring,))


@pytest.mark.parametrize("gone", [True, False])
async def test_gauges_of_an_upstream_that_is_gone_say_nothing(gone: bool) -> None:
    async with scripted(answering(OK)) as a, cluster(a.url) as one:
        one.lane("capture")
        if gone:
            one.drain()
        assert one.count(Metric.UPSTREAM_ENDPOINTS, "available") == (0 if gone else 1)
