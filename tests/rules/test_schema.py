"""kind: schema lets bodies through that are what the route declares."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny, Place
from gateway.rules.schema import Schema, Settings
from tests.conftest import make_exchange

PLACE = Place("route", "policy", 0, "payments", "", egress=False)
BODY = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}
JSON = "application/json"


def judge(sent: bytes, media_type: str | None = JSON, **settings: Any) -> Reason | None:
    nothing: Any = None
    rule = Schema.provision(Settings(**{"kind": "schema", "body": BODY, **settings}), nothing, PLACE)
    x = make_exchange(headers={} if media_type is None else {"Content-Type": media_type})
    x.body = sent
    verdict = rule.on_request(x)
    assert verdict is PASS or isinstance(verdict, Deny)
    return None if verdict is PASS else verdict.reason


def test_a_body_that_is_as_declared_passes() -> None:
    assert judge(b'{"amount":1,"note":"x"}') is None


@pytest.mark.parametrize("body", [b"{}", b'{"amount":1.0}', b'{"amount":"1"}', b"[]", b"null"])
def test_another_body_is_refused(body: bytes) -> None:
    assert judge(body) is Reason.SCHEMA_VIOLATED


def test_closed_refuses_members_that_are_not_declared() -> None:
    assert judge(b'{"amount":1,"note":"x"}', closed=True) is Reason.SCHEMA_VIOLATED


def test_what_cannot_be_read_in_one_way_is_refused_before_it_is_judged() -> None:
    assert judge(b'{"amount":1,"amount":2}') is Reason.BODY_MALFORMED


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_other_bodies_than_json_are_refused(media_type: str | None) -> None:
    assert judge(b"amount=1", media_type) is Reason.MEDIA_TYPE_UNSUPPORTED


def test_no_body_passes_unless_there_must_be_one() -> None:
    assert judge(b"", None) is None
    assert judge(b"", None, required=True) is Reason.MEDIA_TYPE_UNSUPPORTED


def test_a_schema_that_cannot_be_checked_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ValueError, match="body: the schema has keywords that are not checked here: if"):
        judge(b"{}", body={"if": {}})
