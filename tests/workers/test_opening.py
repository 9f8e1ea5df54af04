"""What was told of a payment that might have been a new one's is not left until somebody tells more of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.ports import Unavailable
from gateway.snapshot import Facts, Route
from gateway.workers.opening import open_parked, run_opening
from tests.adapters.payments import Till
from tests.inbox_world import InboxWorld, inbox_world
from tests.pure.test_mappings import STRIPE, intent


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[InboxWorld]:
    async with inbox_world(tmp_path) as made:
        change(made, opens=True)
        yield made


def change(inbox: InboxWorld, *, opens: bool) -> Route:
    route = inbox.routes["stripe-hooks"]
    assert route.inbox is not None
    inbox.routes["stripe-hooks"] = replace(route, inbox=replace(route.inbox, facts=Facts(STRIPE, "stripe", opens)))
    return inbox.routes["stripe-hooks"]


def till_of(inbox: InboxWorld) -> Till:
    return Till(inbox.store, "default", "stripe")


async def told_while_another_is_awaited(inbox: InboxWorld) -> Till:
    """pi_1 of 100 is told of, by an event, while the answer to a request for a new payment is missing."""
    till = till_of(inbox)
    await till.admit("authorize", 50)
    assert (await inbox.receive(intent("amount_capturable_updated", 100, 100, 0))).status == 200
    return till


async def amount(till: Till) -> int | None:
    record = (await till.find(None, "pi_1")).record
    return None if record is None else record.amounts.authorised


async def test_it_is_opened_when_the_other_one_is_known(inbox: InboxWorld) -> None:
    till = await told_while_another_is_awaited(inbox)
    route = inbox.routes["stripe-hooks"]
    await open_parked(inbox.ports, route)
    assert await amount(till) is None
    await till.end(alias="pi_2")
    await open_parked(inbox.ports, route)
    assert await amount(till) == 100
    assert (await till.admit("capture", 100, owner="req-2", alias="pi_1")).refused is False


async def test_it_is_applied_once_where_it_was_the_other_one(inbox: InboxWorld) -> None:
    till = await told_while_another_is_awaited(inbox)
    await till.end(amount=100, alias="pi_1")
    await open_parked(inbox.ports, inbox.routes["stripe-hooks"])
    assert (await till.find(None, "pi_1")).payment == "pay_1"
    assert await amount(till) == 100


async def test_an_inbox_that_opens_no_payments_leaves_it_parked(inbox: InboxWorld) -> None:
    till = await told_while_another_is_awaited(inbox)
    await till.end(alias="pi_2")
    await open_parked(inbox.ports, change(inbox, opens=False))
    assert await amount(till) is None


async def test_a_store_that_is_away_ends_nothing(inbox: InboxWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    till = await told_while_another_is_awaited(inbox)
    await till.end(alias="pi_2")
    alive, rounds = inbox.store.commit, 0

    async def dead(unit: Any) -> Any:
        raise Unavailable("store")

    async def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        monkeypatch.setattr(inbox.store, "commit", alive)
        if rounds == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(inbox.store, "commit", dead)
    with pytest.raises(asyncio.CancelledError):
        await run_opening(inbox.ports, lambda: inbox.routes, sleep=sleep)
    assert await amount(till) == 100
