"""What every store promises of payments: amounts that are right, whoever comes first, and an event for each change."""

from __future__ import annotations

import asyncio

import pytest

from gateway.operations import AdmitCommand, AdmitRow, EndRow, PaymentRef
from gateway.ports import Store
from gateway.pure.currencies import BadAmount
from gateway.pure.lifecycle import ANSWER_INVALID, Refusal, Told
from gateway.pure.reservations import ALIAS_TAKEN
from tests.adapters.operations import NOW
from tests.adapters.payments import Till, draft, kinds, published, told_in
from tests.pure.lifecycles import card


@pytest.fixture
def till(store: Store) -> Till:
    return Till(store)


# --- commands --------------------------------------------------------------------------------------------------------


async def test_a_new_payment_is_opened_with_its_reservation(till: Till) -> None:
    row = await till.admit("authorize")
    assert (row.refused, row.payment) == (False, "pay_1")
    assert row.admitted is not None
    assert (await till.record()) == row.admitted.payment
    assert (await till.standing()).pending == {"authorize": 100}


async def test_a_new_payment_needs_a_currency(till: Till) -> None:
    row = await till.admit("authorize", currency=None)
    assert row == AdmitRow(refused=True, payment="", why=BadAmount.CURRENCY_UNKNOWN)
    assert (await till.find()).payment == ""


@pytest.mark.parametrize("amount", [0, -1, 2**53])
async def test_an_amount_that_is_none_opens_no_payment(till: Till, amount: int) -> None:
    row = await till.admit("authorize", amount)
    assert isinstance(row.why, BadAmount)
    assert (await till.find()).payment == ""
    assert await published(till.store) == []


async def test_a_command_that_the_payment_does_not_allow_is_refused_with_its_standing_and_changes_nothing(
    till: Till,
) -> None:
    await till.captured(100)
    before = await till.record()
    row = await till.admit("refund", 101, payment="pay_1")
    assert (row.refused, row.why, row.payment) == (True, Refusal.NOT_NOW, "pay_1")
    assert row.standing is not None
    assert row.standing.remaining["refund"] == 100
    assert await till.record() == before


async def test_a_command_in_another_currency_is_refused(till: Till) -> None:
    await till.captured()
    assert (await till.admit("refund", 1, payment="pay_1", currency="USD")).why is BadAmount.CURRENCY_DIFFERS


async def test_without_an_amount_all_that_remains_is_reserved(till: Till) -> None:
    await till.captured(70)
    row = await till.admit("refund", None, payment="pay_1", currency=None)
    assert row.admitted is not None
    assert row.admitted.reservation.amount == 70


@pytest.mark.parametrize("ref", [{"payment": "pay_none"}, {"alias": "pi_none"}])
async def test_a_payment_that_nobody_knows_is_refused(till: Till, ref: dict[str, str]) -> None:
    assert await till.admit("capture", **ref) == AdmitRow(refused=True, payment="")  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [{"tenant": "rival"}, {"upstream": "other"}])
@pytest.mark.parametrize("ref", [{"payment": "pay_1"}, {"alias": "pi_1"}])
async def test_a_payment_is_known_only_to_its_tenant_and_at_its_upstream(
    till: Till, other: dict[str, str], ref: dict[str, str]
) -> None:
    await till.captured()
    stranger = Till(till.store, **other)
    assert (await stranger.admit("refund", 1, **ref)).payment == ""  # type: ignore[arg-type]
    assert (await stranger.find(**{"payment": None, **ref})).record is None


async def test_our_own_id_is_never_observed(till: Till) -> None:
    assert (await till.admit("capture", payment="pay_none", on_missing="observe")).refused


async def test_an_alias_that_nobody_knows_may_pass_without_a_judgement_and_leaves_nothing(till: Till) -> None:
    row = await till.admit("capture", alias="pi_1", currency=None, on_missing="observe")
    assert row == AdmitRow(payment="")
    assert (await till.end(observed=True)) == EndRow()
    assert await published(till.store) == []


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_success_moves_the_amount_and_failure_moves_nothing(till: Till) -> None:
    await till.admit("authorize", 100)
    assert (await till.end(alias="pi_1")).state == "authorized"
    await till.admit("capture", 60, owner="req-2", alias="pi_1")
    await till.end("failed", owner="req-2")
    record = await till.record()
    assert (record.amounts.authorised, record.amounts.captured, sum(record.pending)) == (100, 0, 0)


async def test_a_partial_approval_counts_what_was_approved(till: Till) -> None:
    await till.admit("authorize", 100)
    await till.end(amount=40)
    assert (await till.record()).amounts.authorised == 40


async def test_an_unknown_outcome_keeps_the_amount_until_it_is_known(till: Till) -> None:
    await till.captured(100)
    await till.admit("refund", 100, payment="pay_1")
    assert not (await till.end("unknown")).refused
    assert (await till.admit("refund", 1, owner="req-2", payment="pay_1")).why is Refusal.NOT_NOW
    assert (await till.standing()).overlays == ("unknown",)
    await till.end("failed")
    assert not (await till.admit("refund", 1, owner="req-2", payment="pay_1")).refused


async def test_an_end_that_is_told_as_unknown_again_tells_nobody(till: Till) -> None:
    await till.admit("authorize")
    await till.end("unknown")
    await till.end("unknown")
    assert kinds(await published(till.store)) == ["authorize.requested", "authorize.unknown"]


async def test_only_the_first_end_counts(till: Till) -> None:
    await till.admit("authorize")
    await till.end()
    before = await till.record()
    assert (await till.end("failed")).refused
    assert await till.record() == before


async def test_an_owner_of_another_tenant_ends_nothing(till: Till) -> None:
    await till.admit("authorize")
    assert (await Till(till.store, tenant="rival").end()).refused


@pytest.mark.parametrize("amount", [-1, 2**53])
async def test_an_answer_whose_amount_is_none_leaves_everything_reserved_and_is_for_review(
    till: Till, amount: int
) -> None:
    await till.admit("authorize")
    assert (await till.end(amount=amount)).violation == ANSWER_INVALID
    assert (await till.standing()).pending == {"authorize": 100}
    assert not (await till.end()).refused


async def test_an_answer_without_what_it_promised_is_unknown_and_for_review(till: Till) -> None:
    await till.admit("authorize")
    assert (await till.end(invalid=True)).violation == ANSWER_INVALID
    assert (await till.standing()).overlays == ("unknown", "review")
    assert (await till.end(invalid=True)).violation is None
    assert kinds(await published(till.store)) == ["authorize.requested", "authorize.unknown", "review.required"]


async def test_an_answer_in_another_currency_books_nothing_and_is_for_review(till: Till) -> None:
    await till.admit("authorize", 100)
    row = await till.end(amount=70, alias="pi_1", currency="USD", facts=[Told("captured_reached", 70)])
    assert row.violation == ANSWER_INVALID
    record = await till.record()
    assert (sum(record.amounts), sum(record.pending), record.unknown) == (0, 100, 1)
    assert (await till.find(None, "pi_1")).payment == "pay_1"


async def test_a_payment_is_found_by_each_alias_it_was_given(till: Till) -> None:
    await till.captured(100, alias="pi_1")
    await till.admit("refund", 10, alias="pi_1")
    await till.end(alias="re_1")
    for alias in ("pi_1", "re_1"):
        assert (await till.find(None, alias)).payment == "pay_1"


async def test_an_alias_of_another_payment_puts_the_second_under_review(till: Till) -> None:
    await till.captured(100, alias="pi_1")
    await till.admit("authorize", owner="req-2", new_id="pay_2")
    assert (await till.end(owner="req-2", alias="pi_1")).violation == ALIAS_TAKEN
    assert (await till.find(None, "pi_1")).payment == "pay_1"
    assert (await till.standing("pay_2")).overlays == ("review",)


async def test_facts_of_an_answer_are_applied_after_its_result(till: Till) -> None:
    await till.admit("authorize", 100)
    await till.end(alias="pi_1", facts=[Told("captured_total", 30)])
    assert (await till.record()).amounts[:2] == (100, 30)


# --- together --------------------------------------------------------------------------------------------------------


async def test_a_unit_that_is_refused_leaves_neither_payment_nor_event(till: Till) -> None:
    first, second = (
        AdmitCommand(
            "shop",
            card(),
            PaymentRef("psp", payment=known),
            "authorize",
            100,
            "EUR",
            owner,
            "pay_1",
            NOW,
            "reject",
            draft(),
        )
        for owner, known in (("req-1", None), ("req-2", "pay_1"))
    )
    rows = await till.store.commit([first, second])
    assert rows.refused == 1
    assert (await till.find()).payment == ""
    assert await published(till.store) == []


async def test_refunds_at_the_same_time_refund_what_was_captured_and_no_more(till: Till) -> None:
    await till.captured(1000)
    rows = await asyncio.gather(
        *(till.admit("refund", 7 + n % 5, owner=f"refund-{n}", payment="pay_1") for n in range(200))
    )
    admitted = {n for n, row in enumerate(rows) if not row.refused}
    rest = 1000 - sum(7 + n % 5 for n in admitted)
    assert 0 <= rest < 7
    await asyncio.gather(*(till.end(owner=f"refund-{n}") for n in admitted))
    if rest:
        await till.admit("refund", rest, owner="rest", payment="pay_1")
        await till.end(owner="rest")
    assert (await till.record()).amounts.refunded == 1000
    assert (await till.standing()).state == "closed"


async def test_every_change_is_told_in_order_and_the_changes_add_up_to_the_payment(till: Till) -> None:
    await till.captured(100)
    await asyncio.gather(*(till.admit("refund", 30, owner=f"r{n}", payment="pay_1") for n in range(5)))
    await asyncio.gather(*(till.end("failed" if n == 1 else "succeeded", owner=f"r{n}") for n in range(3)))
    await till.hear(Told("chargeback", 5))
    events = await published(till.store)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.id for event in events}) == len(events)
    record = await till.record()
    for name, amount in record.amounts._asdict().items():
        assert sum(told_in(event)["change"].get(name, 0) for event in events) == amount
        assert told_in(events[-1])[name] == amount
    assert told_in(events[-1])["version"] == record.version
