"""Handshakes that cost more than they bring: those that fail, and those that never end."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from gateway.pure.metrics import Metric
from gateway.server.edge import Limits
from gateway.server.tls import server_context
from tests.certificates import Authority
from tests.server.edge_world import GET, World, handshakes, turns, world

FAILED = ("", "listener", "too_many_failed_credentials", "enforce")
CROWDED = ("", "listener", "too_many_connections", "enforce")


def serving(authority: Authority) -> ssl.SSLContext:
    server = authority.server()
    return server_context(server.certificate, server.key, authority.file, "optional")


def calling(authority: Authority, by: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if by is not None:
        pair = by.client("caller", "spiffe://shop.example/checkout")
        context.load_cert_chain(pair.certificate, pair.key)
    return context


async def fails(it: World, context: ssl.SSLContext) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await it.client(context)).ask(GET)
    await turns(lambda: not it.listener._acceptor._welcoming)


async def test_an_address_whose_handshakes_fail_is_hung_up_on_until_that_is_over(
    authority: Authority, stranger: Authority
) -> None:
    async with world(Limits(failed_credentials_per_address=3), context=serving(authority)) as it:
        for _ in range(3):
            await fails(it, calling(authority, stranger))
        assert it.telemetry.counts.get((Metric.BLOCKED, FAILED)) is None
        await fails(it, calling(authority))
        assert it.telemetry.counts[Metric.BLOCKED, FAILED] == 1
        it.pass_time(20)
        assert (await (await it.client(calling(authority))).ask(GET)).status == 200


async def test_connections_that_exist_are_served_while_their_address_cannot_make_more(
    authority: Authority, stranger: Authority
) -> None:
    async with world(Limits(failed_credentials_per_address=1), context=serving(authority)) as it:
        before = await it.client(calling(authority))
        await fails(it, calling(authority, stranger))
        await fails(it, calling(authority))
        assert (await before.ask(GET)).status == 200


async def test_a_caller_who_hangs_up_has_failed_nothing(authority: Authority) -> None:
    async with world(Limits(failed_credentials_per_address=1), context=serving(authority)) as it:
        for _ in range(3):
            await (await it.client()).close()
            await turns(lambda: not it.listener._acceptor._welcoming)
        assert (await (await it.client(calling(authority))).ask(GET)).status == 200


async def test_a_handshake_that_is_not_ended_in_time_has_failed(authority: Authority) -> None:
    async with world(Limits(failed_credentials_per_address=1, handshake=0.05), context=serving(authority)) as it:
        silent = await it.client()
        assert await silent.rest() == b""
        await turns(lambda: not it.listener._acceptor._welcoming)
        await fails(it, calling(authority))
        assert it.telemetry.counts[Metric.BLOCKED, FAILED] == 1


async def test_an_address_has_no_more_handshakes_at_once_than_connections(authority: Authority) -> None:
    async with world(Limits(connections_per_address=2), context=serving(authority)) as it:
        silent = [await it.client() for _ in range(2)]
        await turns(lambda: len(it.listener._acceptor._welcoming) == 2)
        await fails_at_once(it)
        assert it.telemetry.counts[Metric.BLOCKED, CROWDED] == 1
        await silent[0].close()
        await turns(lambda: len(it.listener._acceptor._welcoming) == 1)
        assert (await (await it.client(calling(authority))).ask(GET)).status == 200


async def fails_at_once(it: World) -> None:
    assert await (await it.client()).rest() == b""


def test_all_addresses_together_have_no_more_than_the_listener_has_connections() -> None:
    under_way = handshakes(Limits(connections=2, connections_per_address=1))
    assert under_way.begin("192.0.2.1")
    assert not under_way.begin("192.0.2.1")
    assert under_way.begin("192.0.2.2")
    assert not under_way.begin("192.0.2.3")
    under_way.ended("192.0.2.1")
    assert under_way.begin("192.0.2.3")


def test_of_ipv6_a_network_counts_as_one() -> None:
    under_way = handshakes(Limits(failed_credentials_per_address=1))
    under_way.failed("2001:db8::1")
    assert not under_way.begin("2001:db8::2")
    assert under_way.begin("2001:db8:0:1::1")
