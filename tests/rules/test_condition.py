"""kind: condition passes requests of which an expression is true, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.pure.errors import Reason
from gateway.pure.expressions import VALUE_MAX
from gateway.rule import PASS, Deny, Place, RuleSettings
from gateway.rules.condition import Condition, Settings
from tests.conftest import make_exchange

PLACE = Place("r", "p", 2, "payments", "", egress=False, earlier=(RuleSettings(kind="jwt"),), params=frozenset())
VALUES = {"amount": "$.amount", "currency": "$.currency", "scopes": "scopes"}
EXPRESSION = "amount <= 10000 || (currency == 'EUR' && 'payments:large' in scopes)"
NOTHING: Any = None
FORM = "application/x-www-form-urlencoded"


def rule(**settings: Any) -> Condition:
    written = {"kind": "condition", "values": VALUES, "expression": EXPRESSION, **settings}
    return Condition.provision(Settings.model_validate(written), NOTHING, PLACE)


def ask(condition: Condition, body: bytes, scopes: str = "") -> Deny | None:
    x = make_exchange(headers={"Content-Type": "application/json"}, scopes=frozenset(scopes.split()), claims={})
    x.body = body
    verdict = condition.on_request(x)
    assert verdict is PASS or isinstance(verdict, Deny)
    return None if verdict is PASS else verdict


def test_what_it_is_true_of_passes() -> None:
    condition = rule()
    assert ask(condition, b'{"amount":10000,"currency":"USD"}') is None
    assert ask(condition, b'{"amount":10001,"currency":"EUR"}', "payments:large x") is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount":10001,"currency":"USD"}',
        b'{"amount":10001,"currency":"EUR"}',
        b'{"amount":"1","currency":"EUR"}',
        b'{"amount":null,"currency":"EUR"}',
        b'{"currency":"EUR"}',
        b'{"amount":{},"currency":"EUR"}',
        b'{"amount":[1],"currency":"EUR"}',
        b'{"amount":true,"currency":"EUR"}',
        b'{"amount":1,"currency":"%s"}' % (b"E" * (VALUE_MAX + 1)),
    ],
)
def test_what_it_is_not_true_of_or_cannot_be_asked_about_is_refused(body: bytes) -> None:
    deny = ask(rule(), body)
    assert deny is not None
    assert deny.reason is Reason.CONDITION_FAILED


def test_a_place_with_two_values_has_none() -> None:
    condition = rule(values={"amount": "$.items[*].amount"}, expression="amount < 5")
    assert ask(condition, b'{"items":[{"amount":1}]}') is None
    assert ask(condition, b'{"items":[{"amount":1},{"amount":2}]}') is not None


def test_a_default_stands_for_what_is_missing() -> None:
    condition = rule(values={"coupon": {"from": "$.coupon", "default": ""}}, expression="coupon in ['', 'X']")
    assert ask(condition, b"{}") is None
    assert ask(condition, b'{"coupon":null}') is None
    assert ask(condition, b'{"coupon":"Y"}') is not None


@pytest.mark.parametrize(("place", "good"), [("$.amount", "application/json"), ("form:amount", FORM)])
def test_a_default_does_not_stand_for_a_body_of_another_kind(place: str, good: str) -> None:
    condition = rule(values={"amount": {"from": place, "default": 0}}, expression="amount == 0")
    for media_type, body in ((FORM, b"amount=999999"), ("application/json", b'{"amount":999999}')):
        x = make_exchange(headers={"Content-Type": media_type})
        x.body = body
        verdict = condition.on_request(x)
        assert isinstance(verdict, Deny)
        expected = Reason.CONDITION_FAILED if media_type == good else Reason.MEDIA_TYPE_UNSUPPORTED
        assert verdict.reason is expected


def test_a_default_stands_for_a_body_that_is_not_there() -> None:
    condition = rule(values={"amount": {"from": "$.amount", "default": 0}}, expression="amount == 0")
    x = make_exchange("GET")
    x.body = b""
    assert condition.on_request(x) is PASS


def test_callers_are_told_what_the_operator_says_and_nothing_that_was_sent() -> None:
    deny = ask(rule(detail="Large payments need the scope payments:large."), b'{"amount":10001,"currency":"CANARY"}')
    assert deny is not None
    assert deny.detail == "Large payments need the scope payments:large."


def test_a_body_that_is_not_asked_about_is_not_read() -> None:
    assert rule().reads_request
    condition = rule(values={"method": "method"}, expression="method == 'POST'")
    assert not condition.reads_request
    assert not condition.needs_principal
    assert condition.on_request(make_exchange()) is PASS
    assert condition.on_request(make_exchange("GET")) is not PASS


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"expression": "amuont > 1"}, r"no value is called amuont \(did you mean 'amount'\?\)"),
        ({"expression": "scopes.all(s, s == 'x')"}, "all is not taken"),
        ({"expression": "amount > 1"}, "the expression does not use currency, scopes"),
        ({"values": {}}, "values"),
        ({"values": {f"v{n}": "method" for n in range(17)}}, "values"),
        ({"values": {"Amount": "$.amount"}}, "values"),
        ({"values": {"amount": "amount"}}, "is no place"),
        ({"values": {"amount": {"from": "$.amount", "default": "x" * (VALUE_MAX + 1)}}}, "default is"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=complaint):
        rule(**settings)
