"""Whatever is wrong with what is asked, answered or told: it is said what happens, and no amount goes wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.operations import FactsRow
from gateway.pure.lifecycle import Told
from gateway.telling import facts
from tests.pure.lifecycles import card
from tests.rules.payments import FORM, PaymentWorld, answer, problem, reason

MODES = ("reject", "observe", "adopt_by_query")
AMOUNTS = (-1, 1.5, "1.5", "1e2", str(2**53), str(10**30), "ten", "", True, [1], {"of": 1}, "\uff11")
CODES = ("USD", "usd", "EURO", "", 978)


@pytest.fixture
async def world() -> AsyncIterator[PaymentWorld]:
    made = PaymentWorld()
    yield made
    await made.store.close()


async def told(world: PaymentWorld, payment: str, *news: Told, source: str, currency: str | None = "EUR") -> FactsRow:
    """By a webhook."""
    told = facts(
        world.ports,
        card(),
        tenant="default",
        upstream="psp",
        alias=payment,
        told=news,
        on_missing="reject",
        currency=currency,
        source=source,
    )
    return (await world.store.commit([told]))[told]


@pytest.mark.parametrize("mode", MODES)
async def test_an_amount_that_is_none_moves_nothing_in_any_mode_whoever_knows_the_payment(
    world: PaymentWorld, mode: str
) -> None:
    rule = world.rule("refund", mapping="rest", on_missing=mode)
    known, foreign = await world.captured(), world.made_elsewhere(captured=100)
    heard = world.wire.heard
    for amount, payment in itertools.product(AMOUNTS, (known, foreign, "pay_of_nobody")):
        refused = await world.ask("refund", {"amount": amount}, payment, rule=rule)
        assert (refused.status, reason(refused)) == (422, "amount_invalid"), (amount, payment)
    assert (world.wire.heard - heard, world.rescue.heard, world.wire.moved("refund")) == (0, 0, 0)
    assert await world.amounts(known) == (100, 100, 0, 0, 0)
    assert not (await world.known(foreign)).payment


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("mode", MODES)
async def test_a_currency_that_is_none_or_not_the_payments_moves_nothing_in_any_mode(
    world: PaymentWorld, mode: str, code: Any
) -> None:
    rule = world.rule("refund", mapping="rest", on_missing=mode, currency="$.currency")
    payment = await world.captured()
    heard = world.wire.heard
    refused = await world.ask("refund", {"amount": 1, "currency": code}, payment, rule=rule)
    assert (refused.status, reason(refused), world.wire.heard) == (422, "amount_invalid", heard)
    assert await world.amounts(payment) == (100, 100, 0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
async def test_an_amount_of_nothing_is_refused_wherever_it_is_judged(world: PaymentWorld, mode: str) -> None:
    rule, payment = world.rule("refund", mapping="rest", on_missing=mode), await world.captured()
    heard = world.wire.heard
    assert reason(await world.ask("refund", {"amount": 0}, payment, rule=rule)) == "amount_invalid"
    assert world.wire.heard == heard


@pytest.mark.parametrize(
    ("mode", "status", "forwarded", "amounts"),
    [
        ("reject", 404, 0, None),
        ("observe", 200, 1, None),
        ("adopt_by_query", 200, 1, (100, 100, 0, 40, 0)),
    ],
)
async def test_of_a_payment_that_nobody_knows_what_was_told_before_counts_once_and_not_before_it_is_known(
    world: PaymentWorld, mode: str, status: int, forwarded: int, amounts: tuple[int, ...] | None
) -> None:
    payment = world.made_elsewhere(captured=100)
    reached = (Told("authorised_reached", 100), Told("captured_reached", 100))
    for _ in range(2):
        assert not (await told(world, payment, *reached, source="evt_1")).known
    refund = await world.ask(
        "refund", {"amount": 40}, payment, rule=world.rule("refund", mapping="rest", on_missing=mode)
    )
    assert (refund.status, world.wire.heard) == (status, forwarded)
    found = (await world.known(payment)).record
    assert (None if found is None else tuple(found.amounts)) == amounts


async def test_a_message_before_the_answer_twice_and_after_it_counts_once(world: PaymentWorld) -> None:
    payment = await world.authorized()
    reached = Told("captured_reached", 60)
    world.wire.may_answer.clear()
    world.wire.acted.clear()
    capture = asyncio.ensure_future(world.ask("capture", {"amount": 60}, payment))
    await world.wire.acted.wait()
    for source in ("evt_1", "evt_1", "evt_2"):
        await told(world, payment, reached, source=source)
    world.wire.may_answer.set()
    assert (await capture).status == 200
    for source in ("evt_2", "evt_0"):
        await told(world, payment, reached, source=source)
    assert await world.amounts(payment) == (100, 60, 0, 0, 0)


async def test_messages_in_the_wrong_order_move_nothing_back(world: PaymentWorld) -> None:
    payment = await world.captured()
    for number, amount in enumerate((70, 30, 50, 70)):
        await told(world, payment, Told("refunded_reached", amount), source=f"evt_{number}")
    assert await world.amounts(payment) == (100, 100, 0, 70, 0)
    refused = await world.ask("refund", {"amount": 31}, payment)
    assert (refused.status, problem(refused)["remaining"]["refund"]) == (409, 30)


@pytest.mark.parametrize("operation", ["capture", "refund"])
async def test_an_answer_in_another_currency_is_not_booked_and_puts_the_payment_under_review(
    world: PaymentWorld, operation: str
) -> None:
    payment = await world.captured() if operation == "refund" else await world.authorized()
    before = await world.amounts(payment)
    said = {"id": "re_1", "currency": "usd", "amount": 10, "amount_received": 10, "status": "succeeded"}
    world.wire.bend = lambda _: answer(200, said)
    form = {"capture": b"amount_to_capture=10", "refund": b"amount=10&payment_intent=" + payment.encode()}[operation]
    done = await world.ask(operation, form, payment, rule=world.stripe(operation), media_type=FORM)
    assert done.status == 200
    row = await world.known(payment)
    assert row.standing is not None
    assert (await world.amounts(payment), row.standing.overlays) == (before, ("unknown", "review"))
    assert row.standing.pending == {operation: 10}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "said", [b"", b"[]", b"<html>", b'{"status": "refunded", "status": "failed"}', b'{"status": 1}']
)
async def test_an_answer_that_lacks_what_it_promised_releases_nothing(
    world: PaymentWorld, mode: str, said: bytes
) -> None:
    payment = await world.captured()
    world.wire.bend = lambda _: answer(200, said)
    rule = world.rule("refund", mapping="rest", on_missing=mode)
    assert (await world.ask("refund", {"amount": 100}, payment, rule=rule)).status == 200
    world.wire.bend = lambda response: response
    refused = await world.ask("refund", {"amount": 1}, payment, rule=rule)
    assert (refused.status, problem(refused)["pending"]) == (409, {"refund": 100})
