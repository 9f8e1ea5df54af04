"""A call in doubt ends key, call and payment alike, or none of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.operations import EventLag, FindPayment, OnMissing, PaymentRef, PaymentRow, RecordFacts
from gateway.pipeline import BodyLimits, Placed
from gateway.pure.lifecycle import Told
from gateway.pure.resolving import Doubts
from gateway.recorded import RecordedPipeline
from gateway.rules import idempotency
from gateway.rules.lifecycle import Lifecycle, Settings
from gateway.telling import facts
from tests.pure.lifecycles import card
from tests.rules.payments import PLACE
from tests.workers.resolver_scene import IN_FLIGHT_MAX, LOST, MANUAL, QUERY, REPLAY, Scene, answer, reason, scene

SALE = b'{"reference":"r1","amount":100,"currency":"EUR"}'
MADE = orjson.dumps({"id": "p_1", "status": "captured", "amount": 80})


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        yield made


async def lost(it: Scene, doubts: Doubts, **settings: Any) -> None:
    """A sale was sent, and its answer never came."""
    words = Settings.model_validate({"kind": "lifecycle", "mapping": "rest", "operation": "sale", **settings})
    key = idempotency.Settings(kind="idempotency", required=True)
    placed = [
        Placed("idempotency", idempotency.Idempotency.provision(key, it.ports, PLACE)),
        Placed("lifecycle", Lifecycle.provision(words, it.ports, PLACE)),
    ]
    limits = BodyLimits(4096, 4096)
    it.recorded["pay"] = RecordedPipeline(placed, it.client, it.ports, limits, doubts=doubts, rescue=it.provider)
    it.client.says = [LOST]
    assert (await it.send(body=SALE)).status == 504
    ((doubt),) = await it.unknown()
    assert (doubt.payment[:4], doubt.command, doubt.amount) == ("pay_", "sale", 100)


async def payment(it: Scene, ours: str) -> PaymentRow:
    find = FindPayment("default", card(), PaymentRef("psp", payment=ours))
    return (await it.ports.store.commit([find]))[find]


async def stands(it: Scene, ours: str) -> tuple[tuple[int, ...], dict[str, int]]:
    """Amounts, and what is pending."""
    row = await payment(it, ours)
    assert row.record is not None
    assert row.standing is not None
    return tuple(row.record.amounts), dict(row.standing.pending)


@pytest.mark.parametrize("key", ["two words", "k" * 256, '"open', ""])
async def test_a_key_that_is_none_reserves_nothing_and_opens_no_payment(it: Scene, key: str) -> None:
    await lost(it, MANUAL)
    sent, events = len(it.client.got), await lag(it)
    refused = await it.send(key, SALE)
    assert (refused.status, reason(refused)) == (400, "idempotency_key_invalid")
    assert (len(it.client.got), len(await it.unknown()), await lag(it)) == (sent, 1, events)


async def lag(it: Scene) -> int:
    """How many events are not published."""
    asked = EventLag()
    return (await it.ports.store.commit([asked]))[asked].pending


async def test_the_answer_to_the_same_request_sent_again_ends_all_three(it: Scene) -> None:
    await lost(it, REPLAY)
    ((doubt),) = await it.unknown()
    it.provider.says = [answer(201, MADE)]
    await it.look(2)
    assert await it.unknown() == ()
    assert (await it.send(body=SALE)).body == MADE
    assert await stands(it, doubt.payment) == ((80, 80, 0, 0, 0), {})


async def test_a_status_that_settles_nothing_ends_none_of_them(it: Scene) -> None:
    await lost(it, REPLAY, codes={402: "unknown"})
    ((doubt),) = await it.unknown()
    it.provider.says = [answer(402, b"{}")]
    await it.look(2)
    assert len(await it.unknown()) == 1
    assert reason(await it.send(body=SALE)) == "outcome_unknown"
    assert await stands(it, doubt.payment) == ((0, 0, 0, 0, 0), {"sale": 100})


async def test_what_a_query_finds_is_booked(it: Scene) -> None:
    await lost(it, QUERY)
    ((doubt),) = await it.unknown()
    it.provider.says = [answer(200, b'{"payments":[' + MADE + b"]}")]
    await it.look(2)
    assert await it.unknown() == ()
    assert await stands(it, doubt.payment) == ((80, 80, 0, 0, 0), {})


async def test_what_a_query_does_not_find_once_nothing_is_under_way_is_released(it: Scene) -> None:
    await lost(it, QUERY)
    ((doubt),) = await it.unknown()
    it.provider.says = [answer(200, b'{"payments":[]}')]
    await it.look(2)
    assert await stands(it, doubt.payment) == ((0, 0, 0, 0, 0), {"sale": 100})
    await it.look(IN_FLIGHT_MAX)
    assert await it.unknown() == ()
    assert await stands(it, doubt.payment) == ((0, 0, 0, 0, 0), {})


def told_of(it: Scene, alias: str, on_missing: OnMissing = "reject") -> RecordFacts:
    """A message about a payment."""
    return facts(
        it.ports,
        card(),
        tenant="default",
        upstream="psp",
        alias=alias,
        told=[Told("refunded_reached", 30)],
        on_missing=on_missing,
        currency="EUR",
        source="evt_1",
    )


async def test_a_person_names_the_payment_that_was_made_and_what_was_told_of_it_counts_at_once(it: Scene) -> None:
    await lost(it, MANUAL)
    ((doubt),) = await it.unknown()
    assert doubt.alias is None
    await it.ports.store.commit([told_of(it, "p_1")])
    assert await it.resolver.decide("default", doubt.call.owner, "done", "seen", "p_1") == ""
    find = FindPayment("default", card(), PaymentRef("psp", "p_1"))
    row = (await it.ports.store.commit([find]))[find]
    assert row.record is not None
    assert (row.payment, tuple(row.record.amounts)) == (doubt.payment, (100, 100, 0, 30, 0))


async def test_an_id_that_is_another_payments_is_noticed(it: Scene) -> None:
    await it.ports.store.commit([told_of(it, "p_1", "observe")])
    await lost(it, MANUAL)
    ((doubt),) = await it.unknown()
    assert await it.resolver.decide("default", doubt.call.owner, "done", "seen", "p_1") == ""
    row = await payment(it, doubt.payment)
    assert row.standing is not None
    assert (row.standing.overlays, row.standing.allowed) == (("review",), ())


@pytest.mark.parametrize(("decision", "amounts"), [("done", (100, 100, 0, 0, 0)), ("failed", (0, 0, 0, 0, 0))])
async def test_a_person_ends_all_three(it: Scene, decision: Any, amounts: tuple[int, ...]) -> None:
    await lost(it, MANUAL)
    ((doubt),) = await it.unknown()
    assert await it.resolver.decide("default", doubt.call.owner, decision, "asked them") == ""
    assert await it.unknown() == ()
    assert await stands(it, doubt.payment) == (amounts, {})
