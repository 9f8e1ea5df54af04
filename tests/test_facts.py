"""The words by which settings refer to what is known of a request and to what stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.exchange import Exchange, Peer
from gateway.facts import source
from gateway.pure.errors import Reason, Refused
from gateway.rule import Place, RuleSettings
from tests.conftest import make_exchange

CLAIMS: Mapping[str, Any] = {"sub": "alice", "account": 7, "roles": ["clerk", "boss"]}


def asked(body: bytes = b"", media_type: str = "application/json", **slots: Any) -> Exchange:
    x = make_exchange(
        target="/v1/a%20b?id=1&x=2",
        headers={"Content-Type": media_type, "X-Device": "d1"},
        **{"params": {"id": "a%20b"}, "claims": CLAIMS, "scopes": frozenset("ba"), "subject": "iss|alice", **slots},
    )
    x.body = body
    return x


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("jwt.sub", ["alice"]),
        ("jwt.account", [7]),
        ("jwt.roles", [["clerk", "boss"]]),
        ("jwt.none", []),
        ("scopes", [["a", "b"]]),
        ("principal", ["iss|alice"]),
        ("mtls.san", []),
        ("peer.address", ["192.0.2.7"]),
        ("tenant", ["default"]),
        ("route", ["create-payment"]),
        ("method", ["POST"]),
        ("path:id", ["a b"]),
        ("query:id", ["1"]),
        ("query:none", []),
        ("header:X-Device", ["d1"]),
        ("header:X-None", []),
        ("$.card.number", ["4242"]),
        ("$.items[*].price", [1, 2.5, None]),
        ("$.none", []),
        ("form:id", []),
    ],
)
def test_what_stands_at_a_place_is_read_as_it_is_there(text: str, values: list[Any]) -> None:
    body = b'{"card":{"number":"4242"},"items":[{"price":1},{"price":2.5},{"price":null}]}'
    assert list(source(text).read(asked(body))) == values


def test_forms_are_read_by_the_names_of_their_fields() -> None:
    x = asked(b"card%5Bnumber%5D=4242&a=1", "application/x-www-form-urlencoded")
    assert list(source("form:card[number]").read(x)) == ["4242"]
    assert list(source("$.a").read(x)) == []


def test_a_body_that_can_be_read_in_two_ways_is_not_read() -> None:
    with pytest.raises(Refused) as refused:
        source("$.a").read(asked(b'{"a":1,"a":2}'))
    assert refused.value.reason is Reason.BODY_MALFORMED


def test_an_address_of_ipv6_is_its_block() -> None:
    x = make_exchange(peer=Peer("2001:db8:1:2::7"))
    assert list(source("peer.address").read(x)) == ["2001:db8:1:2::/64"]


NO_PLACES = ["", "no", "jwt.", "jwt.a b", "path:", "path:a-b", "query:", "header:", "header:a b", "form:", "form:$.a",
             "form:a[b", "cookie:x", "$.a[", "body:a"]  # fmt: skip


@pytest.mark.parametrize("text", NO_PLACES)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        source(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jwt.sub", "needs a rule of kind jwt before"),
        ("scopes", "scopes needs a rule of kind jwt"),
        ("mtls.san", "needs a rule of kind mtls"),
        ("principal", "identifies the caller"),
        ("path:other", "the path of route r has no {other}"),
    ],
)
def test_what_can_never_be_there_is_refused_when_it_is_loaded(text: str, complaint: str) -> None:
    place = Place("r", "p", 0, "u", "", egress=False, params=frozenset({"id"}))
    with pytest.raises(ValueError, match=complaint):
        source(text).check(place)
    anyone = Place("r", "p", 0, "u", "", egress=False, identified=True)
    source("principal").check(anyone)
    known = Place(
        "r", "p", 0, "u", "", egress=False, params=frozenset({"other"}),
        earlier=(RuleSettings(kind="mtls"), RuleSettings(kind="jwt")),
    )  # fmt: skip
    source(text).check(known)
