"""`kind: lifecycle` in a real pipeline over a real store: no more money moves than the payment has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.exchange import Exchange
from gateway.operations import Row
from gateway.pipeline import BodyLimits
from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.resolving import Decided, Ended
from gateway.rule import PASS, Deny, Rule, Stage, Verdict
from gateway.rules.lifecycle import Lifecycle, Settings
from tests.conftest import Body, make_exchange
from tests.rules.payments import FORM, PLACE, Bend, PaymentWorld, answer, problem, reason

NEW = {"amount": 100, "currency": "EUR"}


@pytest.fixture
async def world() -> AsyncIterator[PaymentWorld]:
    made = PaymentWorld()
    yield made
    await made.store.close()


# --- what a payment allows -------------------------------------------------------------------------------------------


async def test_a_payment_is_authorised_captured_and_refunded_and_known_by_the_id_the_provider_gave_it(
    world: PaymentWorld,
) -> None:
    payment = await world.authorized()
    assert await world.amounts(payment) == (100, 0, 0, 0, 0)
    assert (await world.ask("capture", {"amount": 60}, payment)).status == 200
    assert (await world.ask("refund", {"amount": 25}, payment)).status == 200
    assert await world.amounts(payment) == (100, 60, 0, 25, 0)
    row = await world.known(payment)
    assert row.payment.startswith("pay_")
    assert row.record is not None
    assert sum(row.record.pending) == 0


async def test_more_than_was_authorised_is_refused_before_the_provider_hears_of_it(world: PaymentWorld) -> None:
    payment = await world.authorized()
    assert (await world.ask("capture", {"amount": 60}, payment)).status == 200
    heard = world.wire.heard
    refused = await world.ask("capture", {"amount": 41}, payment)
    assert (refused.status, reason(refused)) == (409, "illegal_transition")
    assert {key: problem(refused)[key] for key in ("state", "requested", "allowed", "remaining", "pending")} == {
        "state": "partially_captured",
        "requested": "capture",
        "allowed": ["increment", "capture", "void", "refund"],
        "remaining": {"capture": 40, "void": 40, "refund": 60},
        "pending": {},
    }
    assert world.wire.heard == heard
    assert await world.amounts(payment) == (100, 60, 0, 0, 0)


async def test_what_is_in_flight_is_reserved(world: PaymentWorld) -> None:
    payment = await world.captured()
    world.wire.may_answer.clear()
    world.wire.acted.clear()
    first = asyncio.create_task(world.ask("refund", {"amount": 70}, payment))
    await world.wire.acted.wait()
    refused = await world.ask("refund", {"amount": 31}, payment)
    assert (refused.status, problem(refused)["remaining"]["refund"]) == (409, 30)
    assert problem(refused)["pending"] == {"refund": 70}
    world.wire.may_answer.set()
    assert (await first).status == 200
    assert await world.amounts(payment) == (100, 100, 0, 70, 0)


async def test_many_refunds_at_once_refund_exactly_what_was_captured(world: PaymentWorld) -> None:
    payment = await world.captured(100)
    answers = await asyncio.gather(*(world.ask("refund", {"amount": 7}, payment) for _ in range(200)))
    last = await world.ask("refund", {"amount": 2}, payment)
    assert sorted(response.status for response in answers) == [200] * 14 + [409] * 186
    assert last.status == 200
    assert world.wire.moved("refund") == 100
    assert await world.amounts(payment) == (100, 100, 0, 100, 0)


async def test_without_an_amount_it_is_all_that_remains(world: PaymentWorld) -> None:
    payment = await world.authorized()
    assert (await world.ask("void", None, payment)).status == 200
    assert await world.amounts(payment) == (100, 0, 100, 0, 0)
    refused = await world.ask("capture", {"amount": 1}, payment)
    assert problem(refused)["state"] == "voided"


async def test_payments_of_one_tenant_are_unknown_to_another(world: PaymentWorld) -> None:
    payment = await world.captured()
    refused = await world.ask("refund", {"amount": 1}, payment, tenant="other")
    assert (refused.status, reason(refused)) == (404, "payment_unknown")


async def test_what_only_reads_passes(world: PaymentWorld) -> None:
    response = await world.ask("capture", None, "pay_000009", method="GET")
    assert world.wire.heard == 1
    assert response.status == 404
    assert "state" not in problem(response)


# --- what a request says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"amount": -1}, "Correct $.amount: the amount is negative."),
        ({"amount": 0}, "Correct the amount: the amount is zero."),
        ({"amount": 1.5}, "Correct $.amount: the amount is not a whole number of the currency's minor unit."),
        (b'{"amount": 1.0}', "Correct $.amount: the amount is not a whole number of the currency's minor unit."),
        (b'{"amount": 1e2}', "Correct $.amount: the amount is not a decimal number."),
        ({"amount": str(2**53)}, "Correct $.amount: the amount is too large."),
        ({"amount": "ten"}, "Correct $.amount: the amount is not a decimal number."),
        ({"amount": "010"}, "Correct $.amount: the amount is not a decimal number."),
        ({"amount": True}, "Correct $.amount: expected text or a number."),
        ({"amount": [10]}, "Correct $.amount: expected text or a number."),
    ],
)
async def test_an_amount_that_is_none_is_refused_and_nothing_is_sent(
    world: PaymentWorld, body: Any, detail: str
) -> None:
    payment = await world.captured()
    heard = world.wire.heard
    refused = await world.ask("refund", body, payment)
    assert (refused.status, reason(refused), problem(refused)["detail"]) == (422, "amount_invalid", detail)
    assert world.wire.heard == heard
    assert await world.amounts(payment) == (100, 100, 0, 0, 0)


@pytest.mark.parametrize("body", [{"currency": "EUR"}, {"amount": 100}, {"amount": 100, "currency": "EURO"}])
async def test_a_new_payment_needs_an_amount_and_a_currency(world: PaymentWorld, body: Any) -> None:
    refused = await world.ask("authorize", body)
    assert (refused.status, reason(refused), world.wire.heard) == (422, "amount_invalid", 0)


async def test_a_number_that_readers_of_json_take_differently_is_refused(world: PaymentWorld) -> None:
    payment = await world.captured()
    heard = world.wire.heard
    refused = await world.ask("refund", {"amount": 2**53}, payment)
    assert (refused.status, reason(refused), world.wire.heard) == (400, "body_malformed", heard)


async def test_an_amount_of_another_currency_than_the_payments_is_refused(world: PaymentWorld) -> None:
    payment = await world.captured()
    rule = world.rule("refund", mapping="rest", currency="$.currency")
    heard = world.wire.heard
    refused = await world.ask("refund", {"amount": 1, "currency": "USD"}, payment, rule=rule)
    assert (refused.status, reason(refused)) == (422, "amount_invalid")
    assert problem(refused)["detail"] == "Correct the amount: the currency is not the payment's."
    assert world.wire.heard == heard
    assert (await world.ask("refund", {"amount": 1, "currency": "eur"}, payment, rule=rule)).status == 200


async def test_major_units_are_read_by_the_currency(world: PaymentWorld) -> None:
    rule = world.rule(
        "authorize", unit="major", payment="response:$.id", amount="$.value.amount", currency="$.value.currency"
    )
    world.wire.bend = lambda _: answer(200, {"id": "p_1"})
    body = {"amount": 1, "currency": "EUR", "value": {"amount": "10.5", "currency": "KWD"}}
    assert (await world.ask("authorize", body, rule=rule)).status == 200
    assert await world.amounts("p_1") == (10500, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "form", [b"payment_intent=a&amount=10&amount=1000", b"amount=10&payment_intent=a&payment_intent=b"]
)
async def test_what_stands_twice_in_a_form_is_refused(world: PaymentWorld, form: bytes) -> None:
    refused = await world.ask("refund", form, rule=world.stripe("refund"), media_type=FORM)
    assert (refused.status, reason(refused), world.wire.heard) == (422, "amount_invalid", 0)


async def test_what_the_query_says_as_well_is_refused(world: PaymentWorld) -> None:
    form, rule = b"payment_intent=pi_1&amount=10", world.stripe("refund")
    refused = await world.ask("refund", form, rule=rule, media_type=FORM, query="?Amount=1000")
    assert (refused.status, reason(refused), world.wire.heard) == (422, "amount_invalid", 0)


async def test_a_body_of_another_kind_than_the_one_the_amounts_are_in_is_refused(world: PaymentWorld) -> None:
    body, rule = {"payment_intent": "pi_1", "amount": 10}, world.stripe("refund")
    refused = await world.ask("refund", body, rule=rule)
    assert (refused.status, world.wire.heard) == (415, 0)


async def test_a_request_that_names_no_payment_is_refused(world: PaymentWorld) -> None:
    refused = await world.ask("refund", b"amount=10", rule=world.stripe("refund"), media_type=FORM)
    assert (refused.status, problem(refused)["detail"]) == (404, "Name the payment in payment_intent.")


# --- what an answer says ---------------------------------------------------------------------------------------------


def says(status: int, content: Any) -> Bend:
    return lambda _: answer(status, content)


def breaks_off(_: Response) -> UpstreamError:
    return UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "late")


async def test_what_the_provider_refused_is_released(world: PaymentWorld) -> None:
    payment = await world.authorized()
    world.wire.bend = says(402, {"error": "declined"})
    assert (await world.ask("capture", {"amount": 60}, payment)).status == 402
    assert await world.amounts(payment) == (100, 0, 0, 0, 0)
    world.wire.bend = lambda response: response
    row = await world.known(payment)
    assert row.standing is not None
    assert (row.standing.remaining["capture"], row.standing.overlays) == (100, ())


@pytest.mark.parametrize(
    "bend",
    [
        breaks_off,
        says(500, {"error": "oops"}),
        says(302, {}),
        says(408, {}),
        says(200, {"status": "pending"}),
        says(200, {"status": "a word of next year"}),
    ],
)
async def test_what_nobody_knows_stays_reserved(world: PaymentWorld, bend: Bend) -> None:
    payment = await world.authorized()
    world.wire.bend = bend
    await world.ask("capture", {"amount": 60}, payment)
    row = await world.known(payment)
    assert row.standing is not None
    assert row.standing.pending == {"capture": 60}
    assert row.standing.overlays == ("unknown",)
    refused = await world.ask("capture", {"amount": 41}, payment)
    assert (refused.status, problem(refused)["remaining"]["capture"]) == (409, 40)


async def test_what_was_not_sent_is_released_whatever_the_gateway_answers(world: PaymentWorld) -> None:
    payment = await world.authorized()
    world.wire.bend = lambda _: UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "gone")
    assert (await world.ask("capture", {"amount": 60}, payment)).status == 502
    row = await world.known(payment)
    assert row.standing is not None
    assert (row.standing.pending, row.standing.remaining["capture"]) == ({}, 100)


class Denies(Rule):
    """A rule of a stage before, that says no once all is durable, or only when the answer is there."""

    stage = Stage.ADMIT

    def __init__(self, at: str) -> None:
        self._at = at

    def on_request(self, exchange: Exchange) -> Verdict:
        if self._at == "prepared":
            exchange.fresh_sad.append(("token", b"737"))
        return PASS

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:
        return Deny(Reason.SAD_EXPIRED, "no")

    def on_response(self, exchange: Exchange) -> Verdict:
        return Deny(Reason.RESPONSE_UNREADABLE, "no") if self._at == "response" else PASS


@pytest.mark.parametrize("settings", [{}, {"mapping": "rest", "on_missing": "observe"}])
async def test_a_rule_that_denies_once_all_is_durable_releases_the_amount(
    world: PaymentWorld, settings: dict[str, Any]
) -> None:
    payment = await world.authorized()
    heard, rule = world.wire.heard, world.rule("capture", **settings)
    for alias in (payment, "pay_nobody_knows"):
        refused = await world.ask("capture", {"amount": 60}, alias, rule=rule, before=(Denies("prepared"),))
        assert refused.status == (422 if settings or alias == payment else 404)
    assert world.wire.heard == heard
    row = await world.known(payment)
    assert row.standing is not None
    assert row.standing.pending == {}


async def test_it_is_the_providers_answer_that_counts_not_the_one_that_is_given_instead(world: PaymentWorld) -> None:
    payment = await world.authorized()
    refused = await world.ask("capture", {"amount": 60}, payment, before=(Denies("response"),))
    assert refused.status == 502
    assert await world.amounts(payment) == (100, 60, 0, 0, 0)


async def test_an_answer_too_large_to_be_read_leaves_the_outcome_unknown_without_blaming_the_provider(
    world: PaymentWorld,
) -> None:
    payment = await world.authorized()
    world.wire.bend = lambda said: Response(200, said.headers, b"", Body(b" " * 65))
    refused = await world.ask("capture", {"amount": 60}, payment, limits=BodyLimits(response=64))
    assert (refused.status, reason(refused)) == (502, "response_too_large")
    row = await world.known(payment)
    assert row.standing is not None
    assert (row.standing.pending, row.standing.overlays) == ({"capture": 60}, ("unknown",))


async def test_the_amount_that_was_approved_counts_not_the_one_that_was_asked_for(world: PaymentWorld) -> None:
    world.wire.bend = says(201, {"id": "p_1", "status": "authorized", "amount": 80})
    assert (await world.ask("authorize", NEW)).status == 201
    assert await world.amounts("p_1") == (80, 0, 0, 0, 0)


async def test_an_answer_tells_totals_besides(world: PaymentWorld) -> None:
    world.wire.bend = says(201, {"id": "p_1", "status": "captured", "amount": 100, "captured": 70})
    await world.ask("authorize", NEW)
    assert await world.amounts("p_1") == (100, 70, 0, 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        {"status": "authorized", "amount": 100},
        {"id": None, "status": "authorized", "amount": 100},
        {"id": "with a blank", "status": "authorized", "amount": 100},
        {"id": "p" * 256, "status": "authorized", "amount": 100},
        b"no JSON",
        b'{"id": "p_1", "id": "p_2", "status": "authorized", "amount": 100}',
    ],
)
async def test_a_promised_id_that_is_not_in_the_answer_is_no_guess(world: PaymentWorld, content: Any) -> None:
    world.wire.bend = says(201, content)
    assert (await world.ask("authorize", NEW)).status == 201
    assert world.counted("authorize", "unknown") == 1
    assert await world.events() == ["payment.authorize.requested.v1"]
    await world.publish()
    assert await world.events() == ["payment.authorize.unknown.v1"]
    await world.publish()
    assert await world.events() == ["payment.review.required.v1"]


@pytest.mark.parametrize("lacking", [{"status": "authorized"}, {"amount": 100}, {"status": "authorized", "amount": -1}])
async def test_a_promised_amount_or_status_that_is_not_in_the_answer_is_no_guess(
    world: PaymentWorld, lacking: dict[str, Any]
) -> None:
    world.wire.bend = says(201, {"id": "p_1", **lacking})
    await world.ask("authorize", NEW)
    row = await world.known("p_1")
    assert row.standing is not None
    assert (row.standing.overlays, row.standing.pending) == (("unknown", "review"), {"authorize": 100})
    world.wire.bend = lambda said: said
    refused = await world.ask("capture", {"amount": 1}, "p_1")
    assert (refused.status, problem(refused)["allowed"]) == (409, [])


async def test_the_id_of_another_payment_in_the_answer_is_noticed(world: PaymentWorld) -> None:
    payment = await world.authorized()
    world.wire.bend = says(201, {"id": payment, "status": "authorized", "amount": 30})
    await world.ask("authorize", {"amount": 30, "currency": "EUR"})
    assert await world.amounts(payment) == (100, 0, 0, 0, 0)


async def test_an_operation_without_a_command_only_tells(world: PaymentWorld) -> None:
    world.wire.bend = says(200, {"id": "pi_1", "status": "requires_confirmation"})
    await world.ask("authorize", b"amount=100&currency=eur", rule=world.stripe("authorize"), media_type=FORM)
    assert await world.amounts("pi_1") == (0, 0, 0, 0, 0)
    world.wire.bend = says(
        200, {"id": "pi_1", "status": "requires_capture", "amount_capturable": 100, "amount_received": 0}
    )
    await world.ask("confirm", b"", "pi_1", rule=world.stripe("confirm"))
    assert await world.amounts("pi_1") == (100, 0, 0, 0, 0)


# --- payments that are not known -------------------------------------------------------------------------------------


async def test_a_payment_that_is_not_known_is_refused(world: PaymentWorld) -> None:
    refused = await world.ask("refund", {"amount": 1}, "pay_nobody_knows")
    assert (refused.status, reason(refused), world.wire.heard) == (404, "payment_unknown", 0)


async def test_or_it_is_observed_and_learnt_from_the_answer(world: PaymentWorld) -> None:
    rule = world.stripe("capture", on_missing="observe")
    told = {"status": "succeeded", "currency": "eur", "amount": 100, "amount_received": 60}
    world.wire.bend = says(200, told)
    assert (await world.ask("capture", b"amount_to_capture=60", "pi_1", rule=rule, media_type=FORM)).status == 200
    assert world.counted("capture", "observed") == 1
    assert await world.amounts("pi_1") == (100, 60, 40, 0, 0)
    refused = await world.ask("refund", b"payment_intent=pi_1&amount=61", rule=world.stripe("refund"), media_type=FORM)
    assert (refused.status, problem(refused)["remaining"]["refund"]) == (409, 60)


# --- calls in doubt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "amounts", "pending"),
    [
        ({"outcome": Outcome.ANSWERED, "response": answer(200, {"status": "captured"})}, (100, 60, 0, 0, 0), {}),
        ({"outcome": Outcome.ANSWERED, "response": answer(402, {})}, (100, 0, 0, 0, 0), {}),
        ({"decided": Decided(Ended.EXECUTED)}, (100, 60, 0, 0, 0), {}),
        ({"decided": Decided(Ended.NOT_EXECUTED)}, (100, 0, 0, 0, 0), {}),
        ({"outcome": Outcome.UNKNOWN}, (100, 0, 0, 0, 0), {"capture": 60}),
    ],
)
async def test_a_call_that_is_resolved_long_after_ends_what_it_reserved(
    world: PaymentWorld, slots: dict[str, Any], amounts: tuple[int, ...], pending: dict[str, int]
) -> None:
    payment, rule = await world.authorized(), world.rule("capture")
    world.wire.bend = breaks_off
    await world.ask("capture", {"amount": 60}, payment, rule=rule)
    response = slots.get("response")
    status = None if response is None else response.status
    x = make_exchange(id=world.last_id, upstream_status=status, kept=dict(world.last_kept), **slots)
    assert rule.on_resume(x) is PASS
    assert rule.on_response(x) is PASS
    assert (await world.store.commit(x.settlement)).refused is None
    assert await world.amounts(payment) == amounts
    row = await world.known(payment)
    assert row.standing is not None
    assert row.standing.pending == pending


async def test_a_status_that_settles_nothing_leaves_key_and_call_open_as_well(world: PaymentWorld) -> None:
    x = make_exchange(body=b"", params={"id": "pi_1"})
    x.body = b""
    assert world.stripe("capture").on_request(x) is PASS
    assert x.judgement.of(409) is Ended.UNKNOWN


# --- what cannot be meant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"operation": "captur"}, r"command: card has no such command"),
        ({"operation": "capture"}, r"needs payment: where the payment's id stands"),
        ({"operation": "capture", "mapping": "strip"}, "no mapping is called strip; there are rest, stripe"),
        ({"operation": "captur", "mapping": "stripe"}, "no operation of mapping stripe is called captur; there are"),
        ({"operation": "capture", "lifecycle": "cards", "payment": "path:id"}, "no life cycle is called cards"),
        ({"operation": "capture", "mapping": "rest", "lifecycle": "card"}, "leave lifecycle out"),
        ({"operation": "capture", "payment": "path:number"}, r"the path of route pay has no \{number\}"),
        ({"operation": "authorize", "payment": "response:$.id"}, "needs currency: that of the new payment"),
    ],
)
def test_words_that_cannot_be_meant_here_are_refused(
    world_of_words: PaymentWorld, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        world_of_words.rule(**{"mapping": None, **settings})


@pytest.fixture
async def world_of_words(world: PaymentWorld) -> PaymentWorld:
    return world


def test_a_policy_has_one_such_rule(world_of_words: PaymentWorld) -> None:
    settings = Settings(kind="lifecycle", operation="capture", mapping="rest")
    with pytest.raises(ValueError, match="a policy has one rule lifecycle"):
        Lifecycle.provision(settings, world_of_words.ports, replace(PLACE, earlier=(settings,)))


def test_a_setting_replaces_what_the_mapping_says(world_of_words: PaymentWorld) -> None:
    rule = world_of_words.rule("capture", mapping="rest", status=None, results={})
    assert not rule.reads_response
    assert world_of_words.rule("capture").reads_response


@pytest.mark.parametrize("source", ["$.", "path:", "response:id", "a[", "path:a b"])
def test_a_source_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "lifecycle", "operation": "capture", "payment": source})
