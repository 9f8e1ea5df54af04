"""What every store promises of payments that are adopted: as their provider says they are, once, whoever asked."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ports import Store
from gateway.pure.lifecycle import Refusal, Told
from gateway.pure.reservations import ALIAS_TAKEN
from tests.adapters.payments import Till, kinds, published, told_in

TOTALS = (Told("authorised_total", 80), Told("captured_total", 0), Told("refunded_total", 0))


@pytest.fixture
def till(store: Store) -> Till:
    return Till(store)


async def test_an_adopted_payment_is_as_its_provider_says_and_is_judged_by_that(till: Till) -> None:
    row = await till.adopt(*TOTALS, source="query:req-1")
    assert (row.payment, row.record and row.record.amounts.authorised) == ("pay_9", 80)
    assert (await till.admit("capture", 81, alias="pi_1")).why is Refusal.NOT_NOW
    assert (await till.admit("capture", 80, alias="pi_1")).payment == "pay_9"
    events = await published(till.store)
    assert kinds(events) == ["facts.recorded", "capture.requested"]
    assert told_in(events[0])["told_in"] == "query:req-1"


async def test_all_who_adopt_the_same_payment_get_one_and_a_late_word_changes_nothing(till: Till) -> None:
    rows = await asyncio.gather(*(till.adopt(*TOTALS, new_id=f"pay_{n}") for n in range(20)))
    assert len({row.payment for row in rows}) == 1
    ours = rows[0].payment
    await till.admit("capture", 60, payment=ours)
    await till.end()
    row = await till.adopt(*TOTALS, new_id="pay_late")
    assert (row.payment, row.record and row.record.amounts.captured) == (ours, 60)


async def test_what_was_told_before_is_judged_together_with_what_the_provider_says(till: Till) -> None:
    await till.hear(Told("refund_failed", 10), source="evt_1")
    await till.hear(Told("chargeback", 5), source="evt_2")
    row = await till.adopt(Told("authorised_total", 80), Told("captured_total", 80), Told("refunded_total", 30))
    assert row.record is not None
    assert (tuple(row.record.amounts), row.record.violation) == ((80, 80, 0, 30, 5), "")
    assert (await till.hear(Told("chargeback", 5), source="evt_2")).duplicate


async def test_what_was_told_before_in_another_currency_puts_an_adopted_payment_under_review(till: Till) -> None:
    await till.hear(Told("captured_reached", 10), source="evt_1", currency="USD")
    await till.adopt(*TOTALS)
    assert (await till.admit("capture", 1, alias="pi_1")).why is Refusal.UNDER_REVIEW


async def test_an_authorisation_in_doubt_that_turns_out_to_be_an_adopted_payment_is_reviewed_and_spends_nothing(
    till: Till,
) -> None:
    await till.admit("authorize", 80)
    await till.end("unknown")
    await till.adopt(*TOTALS)
    assert (await till.end(alias="pi_1")).violation == ALIAS_TAKEN
    assert (await till.admit("capture", 1, owner="req-2", payment="pay_1")).why is Refusal.UNDER_REVIEW
    assert (await till.admit("capture", 80, owner="req-3", alias="pi_1")).payment == "pay_9"
