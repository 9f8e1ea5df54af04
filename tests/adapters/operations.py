"""The operations of a store, with what a test does not care about filled in, and a way to hold its writer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway.adapters.postgres import PostgresStore
from gateway.operations import (
    Candidate,
    ClaimKey,
    DeliveryVerdict,
    DueDeliveries,
    DueRow,
    FinishKey,
    KeyRow,
    Operation,
    PutDelivery,
    PutToken,
    RecordAudit,
    RevealTokens,
    Row,
    Rows,
)
from gateway.ports import Store
from gateway.pure.audit import Entry, Event

NOW = 1_800_000_000.0
AUDIT_KEY = b"a" * 32


def put_token(
    *tokens: str,
    fingerprint: bytes | None = None,
    tenant: str = "shop",
    token_class: str = "pan",
    token_format: str = "6t4",
    mint: Callable[[int], Candidate] | None = None,
    **others: Any,
) -> PutToken:
    def of_the_list(n: int) -> Candidate:
        return Candidate(tokens[n], b"sealed for " + tokens[n].encode())

    put = (tenant, token_class, token_format, fingerprint, mint or of_the_list, NOW)
    return PutToken(*put, tries=len(tokens) or 1, **others)


def reveal(*tokens: str, tenant: str = "shop") -> RevealTokens:
    return RevealTokens(tenant, tokens)


def record(
    event: Event = "settled", exchange: str = "req-1", *, tenant: str = "shop", now: float = NOW, **texts: Any
) -> RecordAudit:
    return RecordAudit(tenant, AUDIT_KEY, (Entry(event, round(now * 1e6), exchange, **texts),))


def claim(scope: bytes = b"key", owner: str = "req-1", tenant: str = "shop", now: float = NOW) -> ClaimKey:
    return ClaimKey(tenant, scope, b"print of " + owner.encode(), owner, now)


def finish(owner: str = "req-1", response: bytes | Callable[[Rows], bytes] = b"200", keep: float = 60.0) -> FinishKey:
    render = (lambda _: response) if isinstance(response, bytes) else response
    return FinishKey("shop", b"key", owner, render, NOW, NOW + keep)


def delivery(
    name: str = "d1", digest: bytes = b"digest", *, key: str = "evt_1", route: str = "hooks", now: float = NOW
) -> PutDelivery:
    return PutDelivery("shop", name, route, "stripe", key, digest, b"sealed " + digest, now)


async def ask(store: Store, operation: Operation[Row]) -> Row:
    return (await store.commit([operation]))[operation]


async def key_row(store: Store, now: float = NOW) -> KeyRow:
    """What a second request with the same key learns."""
    row = await ask(store, claim(owner="req-9", now=now))
    assert isinstance(row, KeyRow)
    return row


async def due(store: Store, now: float = NOW, limit: int = 10, lease: float = 0.0) -> DueRow:
    row = await ask(store, DueDeliveries(now, limit, lease))
    assert isinstance(row, DueRow)
    return row


async def due_ids(store: Store, now: float = NOW) -> list[str]:
    return [item.id for item in (await due(store, now)).due]


async def verdict(store: Store, operation: PutDelivery) -> DeliveryVerdict:
    return (await store.commit([operation]))[operation].verdict


@contextlib.asynccontextmanager
async def row_held(store: PostgresStore) -> AsyncIterator[Awaitable[Rows]]:
    """As `writer_held`: somebody else has the row that the unit is about to write."""
    other, watch = [await store._connections.connect() for _ in range(2)]
    await other.execute("BEGIN")
    await other.execute("INSERT INTO tokens VALUES ('shop', 'tok_held', '', '', NULL, '', 0)")
    held = asyncio.ensure_future(store.commit([put_token("tok_held")]))
    while not await watch.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    try:
        yield held
        await asyncio.sleep(0)
    finally:
        await other.execute("ROLLBACK")
        for connection in (other, watch):
            await connection.close()


@contextlib.asynccontextmanager
async def writer_held(store: Store) -> AsyncIterator[Awaitable[Rows]]:
    """Inside, the store is busy with one unit; what is asked meanwhile gathers behind it. Yields that unit."""
    if isinstance(store, PostgresStore):
        async with row_held(store) as held:
            yield held
        return
    entered, released = threading.Event(), threading.Event()

    def mint(_: int) -> Candidate:
        entered.set()
        assert released.wait(30)
        return Candidate("tok_held", b"")

    held = asyncio.ensure_future(store.commit([put_token(mint=mint)]))
    assert await asyncio.to_thread(entered.wait, 30)
    try:
        yield held
        await asyncio.sleep(0)  # what the test has started gets into the queue
    finally:
        released.set()


def start(store: Store, *units: list[Operation[Row]]) -> list[asyncio.Future[Rows]]:
    return [asyncio.ensure_future(store.commit(unit)) for unit in units]
