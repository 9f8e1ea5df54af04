"""Tests of the upstream client run on both event loops: each has transports and TLS of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from tests.conftest import HandClock


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
