"""Each fault of the network is what it says it is, and the upstream client makes the right outcome of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.upstream import HttpUpstream, Timeouts
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import call, failure, pool, whole
from tests.faults.tcp import Network, Way, proxied
from tests.upstreams import ScriptedUpstream, answering, scripted

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
HEAD = len(ANSWER) - 1000


@asynccontextmanager
async def world(**timeouts: float) -> AsyncIterator[tuple[ScriptedUpstream, Network, HttpUpstream]]:
    async with (
        scripted(answering(ANSWER)) as server,
        proxied(server.port) as network,
        pool(f"http://127.0.0.1:{network.port}", SystemClock(), timeouts=Timeouts(**timeouts)) as upstream,
    ):
        yield server, network, upstream


async def paid(upstream: HttpUpstream) -> bytes:
    return await whole(await call(upstream, body=b"{}"))


async def test_a_clear_network_changes_nothing() -> None:
    async with world() as (server, network, upstream):
        assert await paid(upstream) == await paid(upstream) == b"x" * 1000
        assert (len(server.requests), network.connections) == (2, 1)


@pytest.mark.parametrize("way", [Way(latency=0.05), Way(rate=10_000)], ids=["latency", "drip"])
async def test_a_slow_network_is_slow_and_loses_nothing(way: Way) -> None:
    async with world() as (_, network, upstream):
        network.become(back=way)
        began = asyncio.get_running_loop().time()
        assert await paid(upstream) == b"x" * 1000
        assert asyncio.get_running_loop().time() - began >= 0.05


async def test_who_is_not_let_in_has_sent_nothing() -> None:
    async with world() as (server, network, upstream):
        await network.refuse()
        assert await failure(paid(upstream)) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
        await network.admit()
        assert await paid(upstream) == b"x" * 1000
        assert len(server.requests) == 1


def reset_request(network: Network) -> None:
    network.become(there=Way(reset_after=20))


def reset_answer(network: Network) -> None:
    network.become(back=Way(reset_after=10))


def half_answer(network: Network) -> None:
    network.become(back=Way(close_after=10))


@pytest.mark.parametrize(("fault", "requests"), [(reset_request, 0), (reset_answer, 1), (half_answer, 1)])
async def test_a_connection_that_breaks_in_the_middle_leaves_the_outcome_unknown(
    fault: Callable[[Network], None], requests: int
) -> None:
    async with world() as (server, network, upstream):
        fault(network)
        assert await failure(paid(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_FAILED)
        assert (len(server.requests), network.connections) == (requests, 1)


async def test_half_a_body_is_not_taken_for_a_whole_one() -> None:
    async with world() as (_, network, upstream):
        network.become(back=Way(close_after=HEAD + 500))
        assert (await failure(paid(upstream)))[0] is Outcome.UNKNOWN


@pytest.mark.parametrize("direction", ["there", "back"])
async def test_a_black_hole_is_unknown_after_a_time_and_what_was_sent_into_it_may_still_arrive(direction: str) -> None:
    async with world(first_byte=0.1) as (server, network, upstream):
        network.become(**{direction: Way(hole=True)})
        assert await failure(paid(upstream)) == (Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT)
        assert len(server.requests) == (direction == "back")
        network.become()
        await asyncio.wait_for(server.until(lambda: len(server.requests) == 1), 60)


async def test_a_fault_reaches_connections_that_exist() -> None:
    async with world() as (server, network, upstream):
        await paid(upstream)
        network.become(back=Way(reset_after=len(ANSWER) + 100))
        with pytest.raises(UpstreamError):
            await paid(upstream)
        assert (len(server.requests), network.connections) == (2, 1)
