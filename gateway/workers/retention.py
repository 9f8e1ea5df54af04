"""Forgets idempotency keys that have outlived their promise, a bounded batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.operations import PurgeKeys
from gateway.ports import Clock, Store, Telemetry, Unavailable


async def run_retention(
    store: Store,
    clock: Clock,
    telemetry: Telemetry,
    *,
    interval: float = 60.0,
    batch: int = 500,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Purge every `interval` seconds until cancelled; a store that is away is tried again the next time."""
    while True:
        try:
            count = await purge_expired_keys(store, clock.now(), batch)
        except Unavailable:
            telemetry.log("retention_failed", level="warning")
        else:
            if count:
                telemetry.log("keys_purged", count=count)
        await sleep(interval)


async def purge_expired_keys(store: Store, now: float, batch: int) -> int:
    """Delete all keys expired before `now`, at most `batch` to a commit; how many. Raises `Unavailable`."""
    total = 0
    while True:
        purge = PurgeKeys(now=now, limit=batch)
        count = (await store.commit([purge]))[purge].count
        total += count
        if count < batch:
            return total
