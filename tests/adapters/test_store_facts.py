"""What every store promises of facts: each counts once, early ones wait, and none is refused or forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.operations import DeliveryVerdict, FactsRow, ParkedFacts, PurgeFacts
from gateway.ports import Store
from gateway.pure.lifecycle import FACT_INVALID, Refusal, Told
from gateway.pure.reservations import ANSWER_DIFFERS
from tests.adapters.operations import NOW, delivery
from tests.adapters.payments import Till, kinds, published


@pytest.fixture
def till(store: Store) -> Till:
    return Till(store)


async def test_the_same_message_counts_once(till: Till) -> None:
    await till.captured(100)
    first = await till.hear(Told("chargeback", 40), source="evt_1")
    again = await till.hear(Told("chargeback", 40), source="evt_1")
    assert (first.known, first.duplicate, again.known, again.duplicate) == (True, False, True, True)
    assert (await till.record()).amounts.disputed == 40


async def test_the_same_message_about_two_payments_counts_for_each(till: Till) -> None:
    await till.captured(100, alias="pi_1")
    await till.admit("sale", owner="req-2", new_id="pay_2")
    await till.end(owner="req-2", alias="pi_2")
    for alias in ("pi_1", "pi_2"):
        assert not (await till.hear(Told("chargeback", 5), alias=alias, source="evt_1")).duplicate


async def test_what_is_told_before_the_answer_waits_for_it_and_counts_once(till: Till) -> None:
    await till.admit("authorize", 100)
    early = await till.hear(Told("captured_total", 25), source="evt_1")
    assert (early.known, early.duplicate) == (False, False)
    assert await till.hear(Told("captured_total", 25), source="evt_1") == FactsRow(known=False, duplicate=True)
    await till.end(alias="pi_1")
    assert (await till.record()).amounts[:2] == (100, 25)
    assert (await till.hear(Told("captured_total", 25), source="evt_1")).known


async def test_messages_that_waited_are_heard_in_their_order(till: Till) -> None:
    await till.hear(Told("disputed_total", 30), source="evt_1", now=NOW)
    await till.hear(Told("disputed_total", 10), source="evt_2", now=NOW + 1)
    await till.captured(100)
    assert (await till.record()).amounts.disputed == 10


async def test_facts_may_open_a_payment_but_not_while_one_awaits_its_alias(till: Till) -> None:
    total = Told("authorised_total", 100)
    await till.admit("authorize", 100)
    assert not (await till.hear(total, on_missing="observe")).known
    await till.end(alias="pi_1")
    assert (await till.record()).amounts.authorised == 100
    row = await till.hear(total, alias="pi_2", on_missing="observe")
    assert (row.known, row.payment) == (True, "pay_9")


async def test_payments_that_facts_are_parked_for_are_named_once_no_new_payment_awaits_its_alias(till: Till) -> None:
    async def parked(limit: int = 10) -> tuple[tuple[str, str], ...]:
        asked = ParkedFacts(till.tenant, till.upstream, limit)
        return (await till.store.commit([asked]))[asked].payments

    await till.admit("authorize", 100)
    await till.admit("authorize", 100, owner="req-2", new_id="pay_2")
    for source in ("evt_1", "evt_2"):
        await till.hear(Told("external_authorize", 60), alias="pi_9", on_missing="observe", source=source)
    await till.hear(Told("external_authorize", 60), alias="pi_8", source="evt_3", currency=None)
    await till.hear(Told("external_authorize", 60), alias="pi_7", source="evt_4")
    await till.end(alias="pi_1")
    await till.end("unknown", owner="req-2")
    assert await parked() == ()
    await till.end("failed", owner="req-2")
    assert sorted(await parked()) == [("pi_7", "EUR"), ("pi_9", "EUR")]
    assert len(await parked(1)) == 1
    assert (await till.hear(alias="pi_9", on_missing="observe")).known
    found = await till.find(None, "pi_9")
    assert found.record is not None
    assert found.record.amounts.authorised == 120
    assert await parked() == (("pi_7", "EUR"),)


async def test_facts_without_a_currency_open_no_payment(till: Till) -> None:
    assert not (await till.hear(Told("authorised_total", 1), on_missing="observe", currency=None)).known


async def test_a_fact_of_another_currency_is_not_counted_and_for_review(till: Till) -> None:
    await till.captured(100)
    assert (await till.hear(Told("chargeback", 40), currency="USD")).violation == FACT_INVALID
    assert (await till.record()).amounts.disputed == 0
    assert (await till.admit("refund", 1, owner="req-2", payment="pay_1")).why is Refusal.UNDER_REVIEW


async def test_a_fact_that_breaks_an_invariant_counts_and_freezes_until_somebody_looked(till: Till) -> None:
    await till.captured(100)
    row = await till.hear(Told("chargeback", 101))
    assert (row.refused, row.violation) == (False, "refunds_fit")
    assert (await till.record()).amounts.disputed == 101
    assert kinds(await published(till.store))[2:] == ["facts.recorded", "review.required"]
    assert (await till.admit("refund", 1, owner="req-2", payment="pay_1")).why is Refusal.UNDER_REVIEW
    assert not (await till.review()).refused
    assert (await till.admit("refund", 1, owner="req-2", payment="pay_1")).why is Refusal.NOT_NOW
    assert (await till.review()).refused


async def test_a_review_of_a_payment_that_nobody_knows_is_refused(till: Till) -> None:
    assert (await till.review("pay_none")).refused


async def test_an_outcome_that_is_heard_of_first_counts_once_and_its_answer_ends_it_quietly(till: Till) -> None:
    await till.captured(100)
    await till.admit("refund", 30, payment="pay_1")
    await till.hear(Told("external_refund", 30), source="evt_1")
    assert (await till.record()).amounts.refunded == 30
    row = await till.end()
    assert (row.refused, row.violation) == (False, None)
    assert (await till.record()).amounts.refunded == 30
    assert (await till.end()).refused


@pytest.mark.parametrize(("result", "amount"), [("failed", None), ("succeeded", 29)])
async def test_an_answer_that_contradicts_what_was_heard_is_for_review(
    till: Till, result: str, amount: int | None
) -> None:
    await till.captured(100)
    await till.admit("refund", 30, payment="pay_1")
    await till.hear(Told("external_refund", 30))
    assert (await till.end(result, amount)).violation == ANSWER_DIFFERS  # type: ignore[arg-type]
    assert (await till.record()).amounts.refunded == 30


@pytest.mark.parametrize(("first", "counted"), [(DeliveryVerdict.ACCEPTED, 40), (DeliveryVerdict.DUPLICATE, 0)])
async def test_facts_of_a_delivery_count_only_if_it_was_accepted(
    till: Till, first: DeliveryVerdict, counted: int
) -> None:
    await till.captured(100)
    if first is DeliveryVerdict.DUPLICATE:
        await till.store.commit([delivery("d0")])
    taken = delivery("d1")
    told = replace(till.facts(Told("chargeback", 40)), given=taken)
    rows = await till.store.commit([taken, told])
    assert rows[told].duplicate is (first is DeliveryVerdict.DUPLICATE)
    assert (await till.record()).amounts.disputed == counted


async def test_what_is_known_already_is_told_to_nobody(till: Till) -> None:
    await till.captured(100)
    before = await published(till.store)
    row = await till.hear(Told("captured_total", 100), source="evt_1")
    assert (row.known, row.violation) == (True, None)
    assert len(before) == 2
    assert await published(till.store) == []


async def test_of_two_requests_for_the_same_amount_a_message_settles_the_earlier(till: Till) -> None:
    await till.captured(100)
    await till.admit("refund", 30, owner="req-9", payment="pay_1", now=NOW)
    await till.admit("refund", 30, owner="req-1", payment="pay_1", now=NOW + 1)
    await till.hear(Told("external_refund", 30))
    assert (await till.end("failed", owner="req-1")).violation is None
    assert (await till.end("failed", owner="req-9")).violation == ANSWER_DIFFERS


async def test_sources_are_forgotten_when_they_are_old(till: Till) -> None:
    await till.captured(100)
    for number in range(3):
        await till.hear(Told("authorised_total", 100), source=f"evt_{number}", now=NOW + number)
    purge = PurgeFacts(NOW + 2, limit=10)
    assert (await till.store.commit([purge]))[purge].count == 2
    assert (await till.hear(Told("authorised_total", 100), source="evt_2")).duplicate
    assert not (await till.hear(Told("authorised_total", 100), source="evt_0")).duplicate
