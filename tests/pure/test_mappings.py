"""The shipped mappings, on what Stripe and a plain REST service really send: in any order, late and twice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.lifecycles import load_lifecycles
from gateway.config.mappings import load_mappings
from gateway.pure.body import parse
from gateway.pure.errors import Reason, Refused
from gateway.pure.lifecycle import Payment, Told, opened
from gateway.pure.mapping_words import Operation, ProviderMapping, compile_operation
from gateway.pure.mappings import (
    Asked,
    Known,
    News,
    NotKnown,
    Said,
    query_target,
    read_answer,
    read_event,
    read_payment,
    read_request,
)
from gateway.pure.reservations import hear
from tests.pure.lifecycles import card

MAPPINGS = load_mappings(Path("nowhere"), load_lifecycles(Path("nowhere"), {}), {})
STRIPE, REST = MAPPINGS["stripe"], MAPPINGS["rest"]
FORM = "application/x-www-form-urlencoded"


def operation(name: str, mapping: str = "stripe", **change: Any) -> Operation:
    words = MAPPINGS[mapping].operations[name].model_copy(update=change)
    return compile_operation(words, card())


def event(kind: str, /, **content: Any) -> bytes:
    return orjson.dumps({"id": "evt_1", "type": kind, "data": {"object": content}})


def intent(kind: str, amount: int, capturable: int, received: int) -> bytes:
    return event(
        f"payment_intent.{kind}",
        id="pi_1",
        amount=amount,
        amount_capturable=capturable,
        amount_received=received,
        currency="eur",
    )


def charge(kind: str, amount: int, captured: int, refunded: int) -> bytes:
    return event(
        f"charge.{kind}",
        id="ch_1",
        payment_intent="pi_1",
        amount=amount,
        amount_captured=captured,
        amount_refunded=refunded,
        captured=captured > 0,
        currency="eur",
    )


def dispute(kind: str, status: str, number: int = 1, amount: int = 20) -> bytes:
    return event(
        f"charge.dispute.{kind}", id=f"dp_{number}", payment_intent="pi_1", status=status, amount=amount, currency="eur"
    )


def heard(*messages: bytes) -> Payment:
    """What the messages make of a payment; what is told once is told once, as the store sees to."""
    payment, seen = opened(card(), "EUR"), set()
    for body in messages:
        for news in read_event(STRIPE, body):
            if news.once is None or news.once not in seen:
                seen.add(news.once)
                payment = hear(card(), payment, (), news.facts).payment
    return payment


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_form_of_stripe_is_read() -> None:
    document = parse(FORM, b"amount=500&payment_intent=pi_1&reason=duplicate")
    assert read_request(operation("refund"), document, {}, "expand[]=charge") == Asked("pi_1", 500, None)


def test_a_body_without_an_amount_asks_for_what_remains() -> None:
    assert read_request(operation("capture"), parse("", b""), {"id": "pi_1"}, "") == Asked("pi_1", None, None)


def test_a_new_payment_has_no_name_yet() -> None:
    document = parse(FORM, b"amount=500&currency=eur")
    assert read_request(operation("authorize"), document, {}, "") == Asked(None, 500, "EUR")


@given(st.text(max_size=12), st.text(max_size=4))
def test_every_request_is_read_or_refused_with_a_reason(amount: str, currency: str) -> None:
    document = parse("application/json", orjson.dumps({"amount": amount, "currency": currency}))
    reason = None
    try:
        asked = read_request(operation("authorize", "rest"), document, {}, "")
    except Refused as refused:
        reason = refused.reason
    assert reason is Reason.AMOUNT_INVALID if reason else asked == Asked(None, int(amount), currency.upper())


# --- answers ---------------------------------------------------------------------------------------------------------


def said(name: str, content: Any, code: int = 200, mapping: str = "stripe") -> Said:
    return read_answer(operation(name, mapping), code, orjson.dumps(content), "EUR")


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("requires_capture", "succeeded"),
        ("succeeded", "succeeded"),
        ("processing", "unknown"),
        ("requires_action", "unknown"),
        ("requires_confirmation", "failed"),
        ("requires_payment_method", "failed"),
        ("canceled", "failed"),
        ("a status of next year", "unknown"),
    ],
)
def test_the_statuses_of_a_payment_intent_mean_what_they_say(status: str, result: str) -> None:
    content = {"id": "pi_1", "status": status, "amount_capturable": 100, "amount_received": 0}
    assert (said("authorize", content).result, said("authorize", content).alias) == (result, "pi_1")


@pytest.mark.parametrize(
    ("code", "result"),
    [(400, "failed"), (402, "failed"), (404, "failed"), (409, "unknown"), (408, "unknown"), (429, "failed")]
    + [(code, "unknown") for code in (302, 500, 502, 503)],
)
def test_a_status_code_that_is_no_success_means_what_it_says(code: int, result: str) -> None:
    assert said("capture", {"error": {}}, code).result == result


def test_a_declined_payment_is_known_by_the_id_in_the_error() -> None:
    content = {"error": {"code": "card_declined", "payment_intent": {"id": "pi_1"}}}
    assert said("authorize", content, 402) == Said("failed", alias="pi_1")


def test_a_partial_authorisation_is_of_what_can_be_captured() -> None:
    content = {"id": "pi_1", "status": "requires_capture", "amount_capturable": 80, "amount_received": 0}
    assert said("authorize", content) == Said("succeeded", 80, "pi_1")


def test_what_was_captured_at_once_is_told_beside_it() -> None:
    content = {"id": "pi_1", "status": "succeeded", "amount_capturable": 0, "amount_received": 100}
    assert said("authorize", content) == Said("succeeded", 100, "pi_1", (Told("captured_reached", 100),))


def test_what_is_not_there_in_whole_is_not_told() -> None:
    assert said("capture", {"status": "succeeded"}) == Said("succeeded")


def test_what_is_there_and_no_amount_is_told_to_be_flagged() -> None:
    told = said("capture", {"status": "succeeded", "amount": 100, "amount_received": -1}).facts
    assert told == (Told("authorised_reached", 100), Told("captured_reached", None), Told("auth_expired", None))


def test_a_body_that_could_not_be_kept_says_nothing() -> None:
    assert read_answer(operation("refund"), 200, None, None) == Said("unknown")
    assert read_answer(operation("refund"), 402, None, None) == Said("failed")


@given(st.binary(max_size=60), st.integers(100, 599))
def test_no_answer_can_make_reading_fail(body: bytes, code: int) -> None:
    for name in STRIPE.operations:
        assert read_answer(operation(name), code, body, None).result in ("succeeded", "failed", "unknown")


# --- queries ---------------------------------------------------------------------------------------------------------


def asked(mapping: ProviderMapping, code: int = 200, **content: Any) -> Known | NotKnown:
    assert mapping.query is not None
    return read_payment(mapping.query, "pi_1", code, orjson.dumps({"id": "pi_1", "currency": "eur", **content}))


def adopted(mapping: ProviderMapping, **content: Any) -> tuple[int, ...]:
    """The amounts of a payment that is adopted."""
    said = asked(mapping, **content)
    assert isinstance(said, Known)
    return tuple(hear(card(), opened(card(), said.currency), (), said.facts).payment.amounts)


def test_a_payment_is_asked_for_by_its_id_and_by_nothing_else_that_an_id_could_say() -> None:
    assert STRIPE.query is not None
    assert query_target(STRIPE.query, "pi_1") == "/v1/payment_intents/pi_1?expand%5B%5D=latest_charge"
    assert query_target(STRIPE.query, "../a?b#c") == "/v1/payment_intents/..%2Fa%3Fb%23c?expand%5B%5D=latest_charge"


@pytest.mark.parametrize("alias", [".", ".."])
def test_an_id_that_would_lead_elsewhere_names_no_payment(alias: str) -> None:
    with pytest.raises(Refused) as raised:
        read_request(operation("refund"), parse(FORM, f"payment_intent={alias}&amount=1".encode()), {}, "")
    assert raised.value.reason is Reason.PAYMENT_UNKNOWN


def test_a_payment_intent_is_what_its_provider_says() -> None:
    charge = {"captured": True, "amount": 100, "amount_captured": 60, "amount_refunded": 65}
    whole = {"amount": 100, "amount_capturable": 0, "amount_received": 60}
    assert adopted(STRIPE, status="succeeded", **whole, latest_charge=charge) == (60, 60, 0, 25, 0)
    held = {"amount": 100, "amount_capturable": 100, "amount_received": 0, "latest_charge": {"captured": False}}
    assert adopted(STRIPE, status="requires_capture", **held) == (100, 0, 0, 0, 0)
    none = {"amount": 100, "amount_capturable": 0, "amount_received": 0, "latest_charge": None}
    assert adopted(STRIPE, status="requires_confirmation", **none) == (0, 0, 0, 0, 0)


def test_a_plain_payment_is_what_its_service_says() -> None:
    content = {"amount": 100, "captured": 60, "refunded": 10}
    assert adopted(REST, status="captured", **content) == (100, 60, 0, 10, 0)
    assert adopted(REST, status="voided", amount=100, captured=0, refunded=0) == (100, 0, 100, 0, 0)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (500, {}),
        (401, {}),
        (302, {}),
        (200, {"id": "pi_2"}),
        (200, {"id": None}),
        (200, {"currency": None}),
        (200, {"currency": "doubloons"}),
        (200, {"captured": None}),
        (200, {"captured": -1}),
        (200, {"captured": 1.5}),
        (200, {"captured": "many"}),
        (200, {"captured": 2**53}),
    ],
)
def test_an_answer_that_does_not_tell_it_all_tells_nothing(code: int, change: dict[str, Any]) -> None:
    content = {"amount": 100, "captured": 60, "refunded": 10, **change}
    assert asked(REST, code, **content) is NotKnown.UNCLEAR


def test_that_there_is_no_such_payment_is_said_by_a_status() -> None:
    assert asked(REST, 404) is NotKnown.NO_SUCH_PAYMENT


@given(st.binary(max_size=60), st.integers(100, 599))
def test_no_answer_to_a_query_can_make_reading_fail(body: bytes, code: int) -> None:
    assert REST.query is not None
    assert isinstance(read_payment(REST.query, "pi_1", code, body), NotKnown)


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_message_names_the_payment_and_what_happened() -> None:
    assert read_event(STRIPE, intent("amount_capturable_updated", 100, 100, 0)) == (
        News("pi_1", "EUR", None, (Told("authorised_reached", 100),)),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"type": 1}',
        b'{"type": "payment_intent.succeeded"}',
        event("customer.created", id="cus_1"),
        event("payment_intent.succeeded", id="pi_1", currency="eur"),
        event("charge.refunded", payment_intent=None, amount_refunded=1),
        charge("refunded", 100, 0, 100),
        dispute("created", "warning_needs_response"),
        dispute("closed", "warning_closed"),
    ],
)
def test_of_what_is_another_matter_or_incomplete_nothing_is_told(body: bytes) -> None:
    assert read_event(STRIPE, body) == ()


def test_amounts_of_no_currency_are_told_to_be_flagged() -> None:
    body = event("charge.captured", payment_intent="pi_1", amount=5, amount_captured=5, currency="doubloons")
    (news,) = read_event(STRIPE, body)
    assert {told.amount for told in news.facts} == {None}


def test_a_refund_does_not_count_what_a_partial_capture_released() -> None:
    assert heard(charge("refunded", 100, 60, 50)).amounts == (100, 60, 0, 10, 0)


def test_what_may_still_be_captured_is_not_taken_for_refunded() -> None:
    payment = heard(charge("refunded", 100, 60, 10))
    assert (payment.amounts, payment.violation) == ((100, 60, 0, 0, 0), "")


LIFE = {
    "authorised": intent("amount_capturable_updated", 100, 100, 0),
    "captured": charge("captured", 100, 60, 40),
    "succeeded": intent("succeeded", 100, 0, 60),
    "refunded 10": charge("refunded", 100, 60, 50),
    "refunded 30": charge("refunded", 100, 60, 70),
    "disputed": dispute("created", "needs_response"),
    "disputed again": dispute("created", "needs_response", 2, 5),
    "won": dispute("closed", "won"),
    "lost": dispute("closed", "lost", 2, 5),
}
OUTCOME = (100, 60, 40, 30, 5)


def test_the_messages_of_a_life_add_up_to_it() -> None:
    payment = heard(*LIFE.values())
    assert (payment.amounts, payment.violation) == (OUTCOME, "")


@settings(max_examples=200)
@given(st.permutations(sorted(LIFE)), st.lists(st.sampled_from(sorted(LIFE)), max_size=6))
def test_in_any_order_and_as_often_as_they_come(order: list[str], again: list[str]) -> None:
    payment = heard(*(LIFE[name] for name in (*order, *again)))
    assert payment.amounts == OUTCOME


@pytest.mark.parametrize("order", [*itertools.permutations(["authorised", "captured", "refunded"])])
def test_those_of_a_plain_service_too(order: tuple[str, ...]) -> None:
    totals = {"authorised": (100, 0, 0), "captured": (100, 70, 0), "refunded": (100, 70, 20)}
    payment = opened(card(), "EUR")
    for name in order:
        amount, captured, refunded = totals[name]
        content = {"id": "p_1", "currency": "EUR", "amount": amount, "captured": captured, "refunded": refunded}
        kind = {"authorised": "payment.authorized"}.get(name, f"payment.{name}")
        (news,) = read_event(REST, orjson.dumps({"type": kind, "data": content}))
        payment = hear(card(), payment, (), news.facts).payment
    assert payment.amounts == (100, 70, 0, 20, 0)
