"""`on_missing: adopt_by_query`: a payment that nobody here knows is asked for before anything is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.ports import Outcome, Response, Unavailable, UpstreamError
from gateway.pure.errors import Reason
from gateway.rules.lifecycle import Lifecycle, Settings
from tests.faults.bank import Temper
from tests.rules.payments import BankWire, PaymentWorld, answer, problem, reason

LATE = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "No answer.")
ADOPTING_REFUND = Settings(kind="lifecycle", operation="refund", mapping="rest", on_missing="adopt_by_query")
BUSY = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_BUSY, "No connection.")


@pytest.fixture
async def world() -> AsyncIterator[PaymentWorld]:
    made = PaymentWorld()
    yield made
    await made.store.close()


def adopting(world: PaymentWorld, operation: str, **settings: Any) -> Lifecycle:
    return world.rule(operation, **{"mapping": "rest", "on_missing": "adopt_by_query", **settings})


async def test_it_is_asked_for_once_and_then_judged_like_any_other(world: PaymentWorld) -> None:
    payment = world.made_elsewhere(captured=60)
    refused = await world.ask("refund", {"amount": 61}, payment, rule=adopting(world, "refund"))
    assert (refused.status, problem(refused)["remaining"]["refund"], world.wire.heard) == (409, 60, 0)
    assert (await world.ask("refund", {"amount": 60}, payment, rule=adopting(world, "refund"))).status == 200
    assert await world.amounts(payment) == (100, 60, 0, 60, 0)
    assert (world.rescue.heard, world.wire.heard) == (1, 1)
    assert world.counted("refund", "adopted") == 1


async def test_what_is_adopted_is_told_in_an_event_that_names_the_query(world: PaymentWorld) -> None:
    payment = world.made_elsewhere()
    await world.ask("capture", {"amount": 10}, payment, rule=adopting(world, "capture"))
    assert await world.events() == ["payment.facts.recorded.v1"]
    await world.publish()
    assert await world.events() == ["payment.capture.requested.v1"]


async def test_requests_that_adopt_at_once_adopt_one_payment_and_spend_it_once(world: PaymentWorld) -> None:
    payment, rule = world.made_elsewhere(captured=100), adopting(world, "refund")
    world.rescue.may_answer.clear()
    asked = [asyncio.ensure_future(world.ask("refund", {"amount": 40}, payment, rule=rule)) for _ in range(20)]
    await world.rescue.acted.wait()
    world.rescue.may_answer.set()
    answers = await asyncio.gather(*asked)
    assert sorted(response.status for response in answers) == [200] * 2 + [409] * 18
    assert world.wire.moved("refund") == 80
    assert await world.amounts(payment) == (100, 100, 0, 80, 0)


async def test_a_word_that_was_overtaken_moves_nothing_back(world: PaymentWorld) -> None:
    payment, rule = world.made_elsewhere(captured=100), adopting(world, "refund")
    world.rescue.may_answer.clear()
    slow = asyncio.ensure_future(world.ask("refund", {"amount": 40}, payment, rule=rule))
    await world.rescue.acted.wait()
    beside = BankWire(Temper(), world.wire.bank)
    other = Lifecycle.provision(ADOPTING_REFUND, world.ports, replace(world.place, rescue=beside))
    assert (await world.ask("refund", {"amount": 70}, payment, rule=other)).status == 200
    world.rescue.may_answer.set()
    assert (await slow).status == 409
    assert await world.amounts(payment) == (100, 100, 0, 70, 0)


@pytest.mark.parametrize(
    "says",
    [
        LATE,
        BUSY,
        answer(500, {}),
        answer(401, {}),
        answer(200, b"<html>"),
        answer(200, {"id": "another"}),
        answer(302, {}),
    ],
)
async def test_where_it_could_not_be_asked_for_nothing_is_sent(
    world: PaymentWorld, says: Response | UpstreamError
) -> None:
    payment = world.made_elsewhere(captured=100)
    world.rescue.bend = lambda _: says
    refused = await world.ask("refund", {"amount": 1}, payment, rule=adopting(world, "refund"))
    assert (refused.status, reason(refused), refused.header(b"retry-after")) == (503, "payment_unverified", b"1")
    assert world.wire.heard == 0
    assert not (await world.known(payment)).payment


async def test_a_provider_that_cannot_be_reached_says_nothing_either(world: PaymentWorld) -> None:
    world.rescue.unreachable = BUSY
    refused = await world.ask("refund", {"amount": 1}, "pay_1", rule=adopting(world, "refund"))
    assert (refused.status, reason(refused), world.wire.heard) == (503, "payment_unverified", 0)


async def test_a_provider_that_says_nothing_is_waited_for_so_long_and_no_longer(
    world: PaymentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.rules.lifecycle.ASKING_SECONDS_MAX", 0.01)
    world.rescue.may_answer.clear()
    refused = await world.ask("refund", {"amount": 1}, "pay_1", rule=adopting(world, "refund"))
    assert (refused.status, reason(refused), world.wire.heard) == (503, "payment_unverified", 0)


async def test_a_payment_that_the_provider_does_not_have_is_not_known(world: PaymentWorld) -> None:
    refused = await world.ask("refund", {"amount": 1}, "pay_nobody", rule=adopting(world, "refund"))
    assert (refused.status, reason(refused), world.wire.heard) == (404, "payment_unknown", 0)
    assert refused.header(b"retry-after") is None


async def test_while_the_store_is_away_nobody_is_asked(world: PaymentWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dead(unit: Any) -> Any:
        raise Unavailable("store")

    rule = adopting(world, "refund")
    monkeypatch.setattr(world.store, "commit", dead)
    refused = await world.ask("refund", {"amount": 1}, "pay_1", rule=rule)
    assert (refused.status, world.rescue.heard, world.wire.heard) == (503, 0, 0)


async def test_an_amount_that_is_none_asks_nobody(world: PaymentWorld) -> None:
    refused = await world.ask("refund", {"amount": -1}, "pay_1", rule=adopting(world, "refund"))
    assert (refused.status, world.rescue.heard) == (422, 0)


async def test_an_amount_of_another_currency_than_the_adopted_payments_is_refused(world: PaymentWorld) -> None:
    payment = world.made_elsewhere(captured=100)
    rule = adopting(world, "refund", currency="$.currency")
    refused = await world.ask("refund", {"amount": 1, "currency": "USD"}, payment, rule=rule)
    assert (refused.status, reason(refused), world.wire.heard) == (422, "amount_invalid", 0)


async def test_the_question_carries_the_callers_credentials_and_nothing_of_the_request(world: PaymentWorld) -> None:
    payment = world.made_elsewhere(captured=100)
    await world.ask("refund", {"amount": 1}, payment, rule=adopting(world, "refund"))
    head = world.rescue.heads[0]
    assert head.startswith(b"GET /v1/payments/" + payment.encode() + b" HTTP/1.1\r\n")
    assert b"Host: psp.internal\r\n" in head
    assert b"content-type" not in head.lower()


async def test_a_policy_may_say_how_to_ask(world: PaymentWorld) -> None:
    payment = world.made_elsewhere(captured=100)
    query = {"path": "/v1/payments/{id}", "says": [{"tells": {"authorised_total": "$.captured"}}]}
    rule = adopting(world, "capture", query=query)
    assert (await world.ask("capture", {"amount": 101}, payment, rule=rule)).status == 409
    assert await world.amounts(payment) == (100, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"operation": "refund", "mapping": None, "payment": "path:id"}, "needs a query: there is no mapping"),
        ({"operation": "authorize"}, "is for payments that exist"),
        (
            {"operation": "refund", "query": {"path": "/p/{id}", "says": [{"tells": {"captured": "$.a"}}]}},
            "card has no such fact",
        ),
    ],
)
async def test_what_could_not_be_asked_is_refused_when_the_policy_is_loaded(
    world: PaymentWorld, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        adopting(world, **settings)


def test_a_query_that_nobody_asks_is_refused() -> None:
    query = {"path": "/v1/payments/{id}", "says": [{"tells": {"captured_total": "$.captured"}}]}
    with pytest.raises(ValidationError, match="query is for on_missing: adopt_by_query"):
        Settings.model_validate({"kind": "lifecycle", "operation": "refund", "mapping": "rest", "query": query})
