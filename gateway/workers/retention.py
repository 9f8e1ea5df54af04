"""Forgets what has outlived its promise, kind by kind, a bounded batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.operations import Operation, PurgeAudit, PurgedRow, PurgeEvents, PurgeFacts, PurgeKeys
from gateway.ports import Clock, Keys, Store, Telemetry, Unavailable
from gateway.pure.audit import sealed_end

Purge = Callable[[float, int], Operation[PurgedRow]]
"""The operation that deletes, by Unix time, at most so many of one kind."""

FACTS_KEPT: Final = 90 * 86400.0
"""Seconds. A message that is delivered again later than this would count once more."""


def expired_keys(now: float, limit: int) -> PurgeKeys:
    """Idempotency keys, each at the end of its own time."""
    return PurgeKeys(now=now, limit=limit)


def old_events(keep: float, *, unsent: bool) -> Purge:
    """Events `keep` seconds after they were written: those that were sent, or with `unsent` all."""
    return lambda now, limit: PurgeEvents(before=now - keep, limit=limit, unsent=unsent)


def old_facts(now: float, limit: int) -> PurgeFacts:
    """What is remembered of messages from providers, when none of them delivers again any more."""
    return PurgeFacts(before=now - FACTS_KEPT, limit=limit)


def old_audit(keep: float, keys: Keys) -> Purge:
    """What the audit chains say of what is longer ago than `keep` seconds; where they begin then is sealed."""
    return lambda now, limit: PurgeAudit(
        now - keep, limit, lambda place, end: sealed_end("base", place, end, keys.mac(place.tenant, "audit"))
    )


def all_purges(keep: float, *, unsent: bool) -> dict[str, Purge]:
    """What is forgotten, by what it is; the arguments are those of `old_events`."""
    return {"keys": expired_keys, "events": old_events(keep, unsent=unsent), "facts": old_facts}


async def run_retention(
    store: Store,
    clock: Clock,
    telemetry: Telemetry,
    purges: Mapping[str, Purge],
    *,
    interval: float = 60.0,
    batch: int = 500,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Run all `purges` (by what they delete) every `interval` seconds until cancelled; a store that is away is tried
    again the next time.
    """
    while True:
        for what, purge in purges.items():
            try:
                count = await purged(store, purge, clock.now(), batch)
            except Unavailable:
                telemetry.log("retention_failed", level="warning", what=what)
            else:
                if count:
                    telemetry.log(f"{what}_purged", count=count)
        await sleep(interval)


async def purged(store: Store, purge: Purge, now: float, batch: int) -> int:
    """Delete all there is to delete, at most `batch` to a commit; how many. Raises `Unavailable`."""
    total = 0
    while True:
        operation = purge(now, batch)
        count = (await store.commit([operation]))[operation].count
        total += count
        if count < batch:
            return total
