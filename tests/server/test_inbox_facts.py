"""What verified deliveries tell of payments, in the commit that takes them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.operations import AdmitCommand, AdmitRow, EndCommand, FindPayment, PaymentRef, PaymentRow
from gateway.pure.metrics import Metric
from gateway.pure.webhooks import Arrival, Coverage, Verified
from gateway.snapshot import Facts
from gateway.telling import draft, new_id
from gateway.webhooks import stripe
from tests.inbox_world import InboxWorld, inbox_world
from tests.pure.lifecycles import card
from tests.pure.test_mappings import STRIPE, charge, dispute, intent


@dataclass
class Shop:
    """A payment at Stripe, and the deliveries that tell of it."""

    inbox: InboxWorld
    numbers: itertools.count[int]

    def change(self, **slots: Any) -> None:
        route = self.inbox.routes["stripe-hooks"]
        assert route.inbox is not None
        self.inbox.routes["stripe-hooks"] = replace(route, inbox=replace(route.inbox, **slots))

    async def hear(self, body: bytes, event: str | None = None) -> int:
        """Deliver a message under an event id of its own, or under this one; the status of the answer."""
        message = {**orjson.loads(body), "id": event or f"evt_{next(self.numbers)}"}
        return (await self.inbox.receive(orjson.dumps(message))).status

    async def ask(self, command: str, amount: int, owner: str, alias: str | None = None) -> bool:
        """Is it admitted?"""
        ports = self.inbox.ports
        admit = AdmitCommand(
            tenant="default",
            machine=card(),
            ref=PaymentRef("stripe", alias),
            command=command,
            amount=amount,
            currency="EUR",
            owner=owner,
            new_id=new_id(ports),
            now=0,
            on_missing="reject",
            event=draft(ports, "default"),
        )
        row: AdmitRow = (await ports.store.commit([admit]))[admit]
        return not row.refused

    async def answered(self, owner: str, result: Any = "succeeded") -> None:
        end = EndCommand(
            tenant="default",
            machine=card(),
            owner=owner,
            result=result,
            amount=None,
            alias="pi_1",
            facts=(),
            now=0,
            event=draft(self.inbox.ports, "default"),
        )
        assert (await self.inbox.store.commit([end])).refused is None

    async def known(self) -> PaymentRow:
        find = FindPayment("default", card(), PaymentRef("stripe", "pi_1"))
        return (await self.inbox.store.commit([find]))[find]

    async def amounts(self) -> tuple[int, ...]:
        """Authorised, captured, voided, refunded, disputed."""
        row = await self.known()
        assert row.record is not None
        return tuple(row.record.amounts)

    def counted(self, result: str) -> float:
        return self.inbox.telemetry.counts.get((Metric.PAYMENT_FACTS, ("stripe", result)), 0)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with inbox_world(tmp_path) as inbox:
        made = Shop(inbox, itertools.count(1))
        made.change(facts=Facts(STRIPE, "stripe"))
        yield made


AUTHORISED = intent("amount_capturable_updated", 100, 100, 0)
CAPTURED = charge("captured", 100, 60, 40)
REFUNDED = charge("refunded", 100, 60, 70)


async def test_what_a_delivery_tells_is_known_when_it_is_acknowledged(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    assert await shop.hear(CAPTURED) == 200
    assert await shop.amounts() == (100, 60, 0, 0, 0)
    assert shop.counted("applied") == 1
    assert (await shop.inbox.due()).pending == 1


async def test_what_is_told_of_a_payment_that_nobody_knows_waits_for_its_id(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    for message in (REFUNDED, CAPTURED, AUTHORISED, CAPTURED):
        assert await shop.hear(message) == 200
    assert (await shop.known()).record is None
    assert shop.counted("parked") == 4
    await shop.answered("req-1")
    assert await shop.amounts() == (100, 60, 0, 30, 0)


async def test_or_it_is_opened_by_what_is_told(shop: Shop) -> None:
    shop.change(facts=Facts(STRIPE, "stripe", opens=True))
    await shop.hear(intent("succeeded", 100, 0, 60))
    assert await shop.amounts() == (100, 60, 40, 0, 0)
    assert await shop.ask("refund", 60, "req-1", "pi_1")
    assert not await shop.ask("refund", 1, "req-2", "pi_1")


async def test_a_message_that_overtakes_the_answer_moves_nothing_twice(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    assert await shop.ask("capture", 60, "req-2", "pi_1")
    await shop.hear(CAPTURED)
    assert await shop.amounts() == (100, 0, 0, 0, 0)
    await shop.answered("req-2")
    assert await shop.amounts() == (100, 60, 0, 0, 0)


async def test_a_message_settles_an_authorisation_whose_outcome_nobody_knew(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1", "unknown")
    await shop.hear(AUTHORISED)
    row = await shop.known()
    assert row.standing is not None
    assert (await shop.amounts(), row.standing.overlays, row.standing.pending) == ((100, 0, 0, 0, 0), (), {})


async def test_a_delivery_that_comes_again_tells_nothing_more(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    for _ in range(3):
        await shop.hear(CAPTURED)
        assert await shop.hear(dispute("created", "needs_response"), "evt_dispute") == 200
    assert await shop.amounts() == (100, 60, 0, 0, 20)


async def test_what_two_messages_tell_of_one_thing_is_told_once(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    await shop.hear(CAPTURED)
    await shop.hear(dispute("closed", "won"))
    await shop.hear(dispute("created", "needs_response"))
    await shop.hear(dispute("created", "needs_response"))
    assert await shop.amounts() == (100, 60, 0, 0, 0)
    assert shop.counted("duplicate") == 2


async def test_a_body_in_quarantine_moves_no_money(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    assert await shop.hear(CAPTURED, "evt_1") == 200
    assert await shop.hear(charge("refunded", 100, 60, 100), "evt_1") == 409
    assert await shop.amounts() == (100, 60, 0, 0, 0)


async def test_an_amount_that_is_none_puts_the_payment_under_review(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    assert await shop.hear(charge("captured", 100, -60, 0)) == 200
    row = await shop.known()
    assert row.standing is not None
    assert row.standing.overlays == ("review",)
    assert await shop.amounts() == (100, 0, 0, 0, 0)
    assert shop.counted("violation") == 1
    assert not await shop.ask("capture", 1, "req-2", "pi_1")


async def test_amounts_in_another_currency_are_not_taken_for_the_payments(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    body = orjson.loads(CAPTURED)
    body["data"]["object"]["currency"] = "jpy"
    await shop.hear(orjson.dumps(body))
    row = await shop.known()
    assert row.standing is not None
    assert (await shop.amounts(), row.standing.overlays) == ((100, 0, 0, 0, 0), ("review",))


async def test_more_than_is_possible_is_recorded_and_stops_further_commands(shop: Shop) -> None:
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    await shop.hear(charge("captured", 100, 100, 0))
    assert await shop.ask("refund", 100, "req-2", "pi_1")
    await shop.answered("req-2")
    await shop.hear(dispute("created", "needs_response"))
    assert await shop.amounts() == (100, 100, 0, 100, 20)
    assert shop.counted("violation") == 1


async def test_messages_in_company_of_answers_add_up_in_every_order(shop: Shop) -> None:
    async def refund() -> None:
        assert await shop.ask("refund", 30, "req-3", "pi_1")
        await asyncio.sleep(0)
        await shop.answered("req-3")

    steps: list[Callable[[], Awaitable[object]]] = [
        refund,
        lambda: shop.hear(REFUNDED),
        lambda: shop.hear(charge("captured", 100, 60, 40)),
        lambda: shop.hear(charge("refunded", 100, 60, 50)),
    ]
    await shop.ask("authorize", 100, "req-1")
    await shop.answered("req-1")
    await shop.ask("capture", 60, "req-2", "pi_1")
    await shop.answered("req-2")
    await asyncio.gather(*(step() for step in steps))
    assert await shop.amounts() == (100, 60, 0, 30, 0)


class PartlySigned:
    """Stripe's scheme, if its signatures covered only a part of the body."""

    parse_secret = staticmethod(stripe.parse_secret)

    @staticmethod
    def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        return replace(stripe.verify(arrival, keys, tolerance), coverage=Coverage.PARTIAL)


async def test_a_body_that_is_not_signed_whole_tells_nothing(shop: Shop) -> None:
    shop.change(scheme=PartlySigned)
    assert await shop.hear(CAPTURED) == 200
    assert shop.counted("parked") == 0


async def test_without_facts_a_delivery_tells_no_payment_anything(shop: Shop) -> None:
    shop.change(facts=None)
    assert await shop.hear(CAPTURED) == 200
    assert shop.counted("parked") == 0
