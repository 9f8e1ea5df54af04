"""kind: owner lets callers name what is theirs and nothing else, and keeps back what is another's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.exchange import Exchange
from gateway.pipeline import Placed
from gateway.ports import Header, Outcome, Response
from gateway.pure.errors import Reason
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.rules.owner import Owner, Settings
from tests.conftest import make_exchange
from tests.server.edge_world import HOST, Seen, world

IDENTIFIED = (RuleSettings(kind="mtls"), RuleSettings(kind="jwt"))
PLACE = Place("r", "p", 2, "payments", "", egress=False, earlier=IDENTIFIED, params=frozenset({"account"}))
JSON = {"Content-Type": "application/json"}
NOTHING: Any = None


def rule(**settings: Any) -> Owner:
    return Owner.provision(
        Settings.model_validate({"kind": "owner", "owner": "jwt.account", **settings}), NOTHING, PLACE
    )


def ask(*places: str, owned: Any = "a1", body: bytes = b"", account: str = "a1", query: str = "", **more: Any) -> Any:
    """The verdict: None if it passes, else the reason."""
    x = make_exchange(
        target=f"/v1/{account}?{query}", headers=JSON, params={"account": account}, claims={"account": owned}
    )
    x.body = body
    return reason(rule(places=places, **more).on_request(x))


def reason(verdict: Verdict) -> Reason | None:
    assert verdict is PASS or isinstance(verdict, Deny)
    return None if verdict is PASS else verdict.reason


# --- requests


def test_what_is_the_callers_own_passes_at_every_place() -> None:
    places = ("path:account", "query:account", "$.account", "$.transfers[*].from")
    body = b'{"account":"a1","transfers":[{"from":"a1"},{"from":"a1"}]}'
    assert ask(*places, body=body, query="account=a1") is None


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("path:account", {"account": "a2"}),
        ("path:account", {"account": "A1"}),
        ("path:account", {"account": "a1%20"}),
        ("query:account", {"query": "account=a2"}),
        ("query:account", {"query": ""}),
        ("$.account", {"body": b'{"account":"a2"}'}),
        ("$.account", {"body": b'{"account":null}'}),
        ("$.account", {"body": b'{"account":["a1"]}'}),
        ("$.account", {"body": b'{"account":{"id":"a1"}}'}),
        ("$.account", {"body": b'{"account":true}', "owned": "True"}),
        ("$.account", {"body": b'{"account":7.0}', "owned": 7}),
        ("$.account", {"body": b"{}"}),
        ("$.account", {"body": b'{"Account":"a1"}'}),
        ("$.accounts[*]", {"body": b'{"accounts":["a1","a2"]}'}),
        ("$.accounts[*]", {"body": b'{"accounts":["a1",null]}'}),
        ("$.accounts[*]", {"body": b'{"accounts":[]}'}),
        ("$..account", {"body": b'{"account":"a1","x":[{"account":"a2"}]}'}),
        ("form:account", {"body": b'{"account":"a1"}'}),
    ],
)
def test_what_is_anothers_or_names_nobody_is_refused(place: str, asked: dict[str, Any]) -> None:
    assert ask(place, **asked) is Reason.OWNER_MISMATCH


@pytest.mark.parametrize("query", ["account=a1&account[]=a2", "account=a1&Account=a2", "account=a1+"])
def test_a_second_spelling_of_the_parameter_is_refused(query: str) -> None:
    assert ask("query:account", query=query) is Reason.TARGET_NOT_CANONICAL


def test_a_member_that_comes_twice_is_refused() -> None:
    assert ask("$.account", body=b'{"account":"a1","account":"a2"}') is Reason.BODY_MALFORMED


def test_who_owns_several_may_name_any_of_them() -> None:
    owned = ["a1", 7]
    assert ask("$.ids[*]", owned=owned, body=b'{"ids":["a1",7,"7"]}') is None
    assert ask("$.ids[*]", owned=owned, body=b'{"ids":["a1",8]}') is Reason.OWNER_MISMATCH


@pytest.mark.parametrize("owned", [None, "", [], True, {"a1": 1}, 7.5, [["a1"]]])
def test_credentials_that_say_nothing_own_nothing(owned: Any) -> None:
    assert ask("path:account", owned=owned) is Reason.OWNER_MISMATCH
    assert ask("path:account", owned=owned, account="None") is Reason.OWNER_MISMATCH


def test_a_template_takes_the_owner_out_of_a_certificates_name() -> None:
    owner = rule(owner="mtls.san", template="spiffe://shop.example/partner/{}", places=["path:account"])
    for san, expected in (
        ("spiffe://shop.example/partner/a1", None),
        ("spiffe://shop.example/partner/a2", Reason.OWNER_MISMATCH),
        ("spiffe://shop-example/partner/a1", Reason.OWNER_MISMATCH),
        ("spiffe://shop.example/partner/", Reason.OWNER_MISMATCH),
        ("x:spiffe://shop.example/partner/a1", Reason.OWNER_MISMATCH),
    ):
        x = make_exchange(params={"account": "a1"}, sans=(san,))
        assert reason(owner.on_request(x)) is expected, san


def test_the_refusal_names_the_place_and_nothing_that_was_sent() -> None:
    x = make_exchange(params={"account": "a2-canary"}, claims={"account": "a1-canary"})
    verdict = rule(places=["path:account"]).on_request(x)
    assert isinstance(verdict, Deny)
    assert "path:account" in verdict.detail
    assert "canary" not in f"{verdict.detail}{verdict.note}"


# --- answers


def answered(status: int, body: bytes, outcome: Outcome = Outcome.ANSWERED, **headers: str) -> Exchange:
    x = make_exchange(headers=JSON, params={"account": "a1"}, claims={"account": "a1"})
    fields: list[Header] = [(b"Content-Type", headers.get("media_type", "application/json").encode())]
    x.response, x.upstream_status, x.outcome = Response(status, fields, body), status, outcome
    return x


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"owner":"a1","items":[{"owner":"a1"}]}', None),
        (200, b'{"owner":"a2","items":[{"owner":"a1"}]}', Reason.OWNER_MISMATCH),
        (200, b'{"owner":"a1","items":[{"owner":"a1"},{"owner":"a2"}]}', Reason.OWNER_MISMATCH),
        (200, b'{"owner":"a1"}', Reason.OWNER_MISMATCH),
        (201, b"{}", Reason.OWNER_MISMATCH),
        (204, b"", None),
        (404, b'{"error":"no such payment"}', None),
        (409, b'{"owner":"a2"}', Reason.OWNER_MISMATCH),
        (200, b'{"owner":', Reason.RESPONSE_UNREADABLE),
        (500, b"<html>", None),
    ],
)
def test_a_success_says_that_it_is_the_callers_own(status: int, body: bytes, expected: Reason | None) -> None:
    owner = rule(response=["$.owner", "$.items[*].owner"])
    x = answered(status, body)
    assert owner.on_request(x) is PASS
    assert reason(owner.on_response(x)) is expected


def test_answers_of_the_gateway_pass_and_compressed_ones_are_not_asked_for() -> None:
    owner = rule(response=["$.owner"])
    x = answered(200, b"{}", Outcome.UNKNOWN)
    assert owner.on_request(x) is PASS
    assert owner.on_response(x) is PASS


class Keeper(Rule):
    """Stands further inside, and keeps what it is answered: as REPLAY does."""

    stage = Stage.REPLAY

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def on_response(self, exchange: Exchange) -> Verdict:
        assert exchange.response is not None
        self.kept.append(exchange.response.body)
        return PASS


class Caller(Rule):
    stage = Stage.IDENTIFY

    def on_request(self, exchange: Exchange) -> Verdict:
        exchange.claims = {"account": "a1"}
        return PASS


async def test_nothing_of_anothers_answer_reaches_the_caller_or_a_rule_inside() -> None:
    keeper = Keeper()
    owner = rule(response=["$.owner"])
    placed = [Placed("caller", Caller()), Placed("owner", owner), Placed("keeper", keeper)]

    async def somebody_elses(seen: Seen) -> Response:
        assert b"accept-encoding: identity" in seen.head.lower()
        assert b"gzip" not in seen.head
        return Response(200, [(b"Content-Type", b"application/json")], b'{"owner":"a2","secret":"canary"}')

    async with world(placed=placed) as it:
        it.upstream.answer = somebody_elses
        answer = await it.ask(b"GET /v1/payments HTTP/1.1\r\nAccept-Encoding: gzip\r\n" + HOST + b"\r\n")
    assert answer.status == 403
    assert b"owner_mismatch" in answer.body
    assert b"canary" not in answer.body + b"".join(keeper.kept)
    assert len(keeper.kept) == 1


# --- settings


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "list where owners are named"),
        ({"places": ["jwt.account"]}, "jwt.account is not said by the request"),
        ({"places": ["tenant"]}, "tenant is not said by the request"),
        ({"places": ["account"]}, "is no place"),
        ({"response": ["owner"]}, "answers are JSON"),
        ({"places": ["path:account"], "template": "spiffe://x/"}, r"with one \{\} in it"),
        ({"places": ["path:account"], "owner": "peer.address"}, "owner"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=complaint):
        rule(**settings)


def test_an_owner_that_a_rule_finds_makes_it_rely_on_who_calls() -> None:
    assert rule(places=["path:account"]).needs_principal
