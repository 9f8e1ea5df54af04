"""A status query asks for one payment, and says only what its answer says plainly."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.pure.body import parse
from gateway.pure.errors import Reason, Refused
from gateway.pure.querying import Query, Verdict, compile_address, compile_conditions, compile_each


def query(each: str = "$", done: dict[str, Any] | None = None, not_done: dict[str, Any] | None = None) -> Query:
    return Query(
        address=compile_address("/v1/payments/{id}", {"id"}),
        method="GET",
        each=compile_each(each),
        done=compile_conditions(done or {}),
        not_done=compile_conditions(not_done or {}),
        not_found=frozenset({404}),
        status=200,
    )


def target(
    text: str, body: bytes = b"{}", params: dict[str, str] | None = None, media: str = "application/json"
) -> str:
    names = params or {}
    return compile_address(text, names).target(names, lambda: parse(media, body))


def test_an_address_is_filled_from_path_and_body() -> None:
    assert target("/p/{id}/x", params={"id": "pay_1"}) == "/p/pay_1/x"
    assert target("/p?ref={$.order.id}", b'{"order":{"id":"a b&c=d/\\u00fc"}}') == "/p?ref=a%20b%26c%3Dd%2F%C3%BC"
    assert target("/p?ref={form:metadata[order]}", b"metadata%5Border%5D=7", media=FORM) == "/p?ref=7"


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("body", [b"{}", b'{"ref":""}', b'{"ref":null}'])
def test_a_request_that_could_not_be_found_again_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        target("/p?ref={$.ref}", body)
    assert refused.value.reason is Reason.FIELD_REQUIRED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/v1/payments/{id}", "only the response tells"),
        ("/v1/payments", "the same of every payment"),
        ("v1/{$.a}", "begins with /"),
        ("/v1 /{$.a}", "visible ASCII"),
        ("/v1/{a-b}", "neither a name"),
        ("/v1/{$.a[}", "no JSONPath"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_address(text, {"number"})


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b'{"id":"pay_1","status":"captured"}', Verdict.DONE),
        (200, b'{"id":"pay_1","status":"failed"}', Verdict.NOT_DONE),
        (200, b'{"id":"pay_1","status":"processing"}', Verdict.UNCLEAR),
        (200, b'{"id":"pay_1"}', Verdict.UNCLEAR),
        (404, b"", Verdict.NOT_DONE),
        (500, b'{"status":"captured"}', Verdict.UNCLEAR),
        (401, b'{"status":"failed"}', Verdict.UNCLEAR),
        (302, b"", Verdict.UNCLEAR),
        (200, b"<html>captured", Verdict.UNCLEAR),
        (200, b'{"status":"failed","status":"captured"}', Verdict.UNCLEAR),
    ],
)
def test_an_answer_is_read_plainly_or_not_at_all(status: int, body: bytes, verdict: Verdict) -> None:
    asked = query(done={"$.status": ["captured"]}, not_done={"$.status": ["failed", "canceled"]})
    assert asked.read(status, body).verdict is verdict


def test_all_conditions_have_to_hold_and_types_count() -> None:
    asked = query(done={"$.paid": [True], "$.count": [1]})
    assert asked.read(200, b'{"paid":true,"count":1}').verdict is Verdict.DONE
    for body in (b'{"paid":true}', b'{"paid":1,"count":1}', b'{"paid":"true","count":1}', b'{"paid":true,"count":"1"}'):
        assert asked.read(200, body).verdict is Verdict.UNCLEAR


def test_one_of_a_list_is_the_payment_as_the_upstream_spelled_it() -> None:
    reading = query("$.data[*]").read(200, b'{"data": [ {"id" : "pay_1"} ]}')
    assert (reading.verdict, reading.answer) == (Verdict.DONE, b'{"id" : "pay_1"}')


def test_none_is_not_found_and_two_are_nobodys() -> None:
    asked = query("$.data[*]")
    assert asked.read(200, b'{"data":[]}').verdict is Verdict.NOT_DONE
    assert asked.read(200, b'{"data":[{"id":1},{"id":2}]}').verdict is Verdict.UNCLEAR
