"""Opens the payments that messages have told of while any of them might have been a new one that awaited its id.

What is told of a payment that nobody knows opens it where the inbox says so; but as long as the answer to some request
for a new payment is missing, it may be that one's. Once no such answer is missing any more, it was another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from gateway.operations import ParkedFacts
from gateway.ports import Ports, Unavailable
from gateway.snapshot import Route
from gateway.telling import facts

OPENED_AT_ONCE = 100


async def run_opening(
    ports: Ports,
    inboxes: Callable[[], Mapping[str, Route]],
    *,
    interval: float = 1.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Look every `interval` seconds until cancelled; a store that is away is asked again the next time."""
    while True:
        for route in inboxes().values():
            try:
                await open_parked(ports, route)
            except Unavailable:
                break
        await sleep(interval)


async def open_parked(ports: Ports, route: Route) -> None:
    """Open what waits at one inbox, OPENED_AT_ONCE payments at the most. Raises `Unavailable`."""
    told = None if route.inbox is None else route.inbox.facts
    if told is None or not told.opens:
        return
    asked = ParkedFacts(route.tenant, told.upstream, OPENED_AT_ONCE)
    for alias, currency in (await ports.store.commit([asked]))[asked].payments:
        nothing_more = facts(
            ports,
            told.mapping.machine,
            tenant=route.tenant,
            upstream=told.upstream,
            alias=alias,
            told=(),
            on_missing="observe",
            currency=currency,
        )
        await ports.store.commit([nothing_more])
