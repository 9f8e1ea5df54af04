"""Clusters of real upstreams for tests: each endpoint a server of its own on loopback."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.adapters.upstream_call import Lane
from gateway.adapters.upstream_cluster import Endpoint, HttpCluster, Resilience
from gateway.adapters.upstream_origin import Lookup, system_lookup
from gateway.ports import BodyStream, Clock, Response, settled
from tests.adapters.upstream.calls import GET, POST
from tests.conftest import HandClock, Recorder


class Cluster(HttpCluster):
    """`told` is its telemetry."""

    told: Recorder

    def count(self, metric: Any, *labels: str) -> float:
        return self.told.counts.get((metric, ("payments", *labels)), 0)

    def lines(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.told.lines if line["event"] == event]


@asynccontextmanager
async def cluster(
    *urls: str,
    clock: Clock | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    weights: Sequence[int] = (),
    checked: bool = False,
    lookup: Lookup = system_lookup,
    **resilience: Any,
) -> AsyncIterator[Cluster]:
    """One endpoint for each URL, closed at the end."""
    clock, telemetry = clock or HandClock(), Recorder()

    def pool(url: str) -> HttpUpstream:
        parts = urlsplit(url)
        place = parts.hostname or "", parts.port or 0
        return HttpUpstream(
            "payments", urls[0], clock=clock, timeouts=timeouts, limits=limits, address=place, lookup=lookup
        )

    endpoints = [
        Endpoint(pool(url), pool(url), pool(url) if checked else None, (weights or [1] * len(urls))[place])
        for place, url in enumerate(urls)
    ]
    made = Cluster(
        "payments",
        endpoints,
        clock=clock,
        telemetry=telemetry,
        chance=random.Random(7).random,
        resilience=Resilience(**resilience),
    )
    made.told = telemetry
    made.tell()
    try:
        yield made
    finally:
        await made.close()


async def ask(lane: Lane, method: str = "POST", body: bytes | BodyStream = b"x") -> Response:
    """One call, as the pipeline makes it."""
    connection = await settled(lane.acquire(safe=method == "GET"))
    try:
        return await connection.send(method, POST if method == "POST" else GET, b"" if method == "GET" else body)
    finally:
        connection.release()
