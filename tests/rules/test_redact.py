"""Values that nobody needs are taken out, and of card numbers no more is shown than may be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rules.redact import Settings
from tests.rules.vault import FORM, World, answer, reason

VISA = "4242424242424242"
AMEX = "378282246310005"
CODE = {"select": "$.card.cvc"}
NUMBER = {"select": "$.card.number", "operation": "mask"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def refused(world: World, rule: Any, body: Any, **call: Any) -> tuple[int, str, str]:
    response = await world.call(rule, body, **call)
    assert world.wire.sent == []
    return response.status, reason(response), orjson.loads(response.body)["detail"]


# --- Requests --------------------------------------------------------------------------------------------------------


async def test_the_bytes_of_the_value_are_replaced_and_no_others(world: World) -> None:
    body = b' {"card" :{"cvc": %s,"number":"%s"}, "n":1.0}\n'
    await world.call(world.redact(CODE, NUMBER), body % (b"737", VISA.encode()))
    assert world.wire.sent == [body % (b'"redacted"', b"424242******4242")]
    assert world.count(Metric.TOKENIZED, "any", "redacted") == 1
    assert world.count(Metric.TOKENIZED, "pan", "masked") == 1


async def test_a_replacement_may_be_given(world: World) -> None:
    rule = world.redact({"select": "card[cvc]", "replacement": "000"})
    await world.call(rule, b"card%5Bcvc%5D=737&x=%2f", media_type=FORM)
    assert world.wire.sent == [b"card%5Bcvc%5D=000&x=%2f"]


async def test_both_work_in_the_head(world: World) -> None:
    rule = world.redact(
        {"select": "header:X-Card", "operation": "mask"},
        {"select": "query:cvc"},
        {"select": "path:number", "operation": "mask", "first": 0},
    )
    target = "/v1/4242%204242%204242%204242?cvc=737&cvv=737"
    await world.call(rule, b"", method="GET", target=target, template="/v1/{number}", headers={"X-Card": VISA})
    assert world.sent_target() == "/v1/****%20****%20****%204242?cvc=redacted&cvv=737"
    assert world.sent_field("X-Card") == "424242******4242"


@pytest.mark.parametrize(
    ("number", "first", "last", "masked"),
    [
        (VISA, 6, 4, "424242******4242"),
        (VISA, 8, 4, "42424242****4242"),
        (VISA, 0, 4, "************4242"),
        (VISA, 6, 0, "424242**********"),
        (AMEX, 8, 4, "378282*****0005"),
        ("4222222222222", 8, 4, "422222***2222"),
        ("4242 4242-4242 4242", 6, 4, "4242 42**-**** 4242"),
    ],
)
async def test_no_more_is_shown_than_may_be(world: World, number: str, first: int, last: int, masked: str) -> None:
    rule = world.redact({**NUMBER, "first": first, "last": last})
    for _ in range(2):  # what is masked already stays as it is
        number = (await world.sent_by(rule, {"card": {"number": number}}))["card"]["number"]
        assert number == masked


@pytest.mark.parametrize("value", ["4242424242424241", "visa", "", "42424242424****", "*", "tok_live_x", 7, True])
async def test_what_is_to_be_masked_and_is_no_card_number_is_refused(world: World, value: Any) -> None:
    status, why, detail = await refused(world, world.redact(NUMBER), {"card": {"number": value}})
    assert (status, why, "$.card.number" in detail) == (422, "field_invalid", True)
    assert "4242" not in detail


async def test_a_value_that_is_absent_is_refused_only_where_it_is_required(world: World) -> None:
    assert (await refused(world, world.redact({**CODE, "required": True}), {}))[:2] == (422, "field_required")
    assert (await world.call(world.redact(CODE), {})).status == 200


@pytest.mark.parametrize("value", [{}, {"code": "737"}, [], ["737"], True, False])
@pytest.mark.parametrize("operation", ["redact", "mask"])
async def test_what_is_neither_text_nor_number_keeps_the_whole_request_back(
    world: World, operation: str, value: Any
) -> None:
    rule = world.redact({"select": "$.note"}, {**CODE, "operation": operation})
    status, why, detail = await refused(world, rule, {"note": "x", "card": {"cvc": value}})
    assert (status, why, "$.card.cvc" in detail) == (422, "field_invalid", True)


async def test_what_an_object_or_an_array_holds_is_taken_out_by_a_wildcard(world: World) -> None:
    rule = world.redact({"select": "$.card.*"}, {"select": "$.codes[*]"})
    body = {"card": {"cvc": "737", "year": 30}, "codes": ["1", "2"], "note": "x"}
    assert await world.sent_by(rule, body) == {
        "card": {"cvc": "redacted", "year": "redacted"},
        "codes": ["redacted", "redacted"],
        "note": "x",
    }


async def test_null_is_no_value(world: World) -> None:
    body = {"card": {"cvc": None}}
    assert await world.sent_by(world.redact(CODE), body) == body
    assert (await refused(world, world.redact({**CODE, "required": True}), body))[:2] == (422, "field_required")


async def test_one_bad_value_keeps_the_whole_request_back(world: World) -> None:
    body = {"card": {"cvc": "737", "number": "visa"}}
    assert (await refused(world, world.redact(CODE, NUMBER), body))[1] == "field_invalid"


async def test_what_a_rule_before_it_replaces_is_spared(world: World) -> None:
    rules = [world.tokenize({"select": "$.card.number", "class": "pan"}), world.redact(NUMBER, CODE)]
    sent = await world.sent_by(rules, {"card": {"number": VISA, "cvc": "737"}})  # type: ignore[arg-type]
    assert sent["card"]["number"].startswith("tok_live_")
    assert sent["card"]["cvc"] == "redacted"


async def test_another_media_type_is_refused(world: World) -> None:
    assert (await refused(world, world.redact(CODE), b"a=b", media_type=FORM))[:2] == (415, "media_type_unsupported")


# --- Responses -------------------------------------------------------------------------------------------------------

ANSWERS = {"response": [{"select": "$..number", "operation": "mask"}, {"select": "$..cvc"}, {"select": "header:X-Cvc"}]}


@pytest.mark.parametrize("status", [200, 201, 302, 402, 404, 500, 503])
async def test_responses_of_every_status_are_cleaned(world: World, status: int) -> None:
    world.wire.answer = answer(status, {"error": {"number": VISA, "cvc": 737, "n": "4242424242424241"}})
    world.wire.answer.headers.append((b"X-Cvc", b"737"))
    response = await world.call(world.redact(**ANSWERS), {})
    assert orjson.loads(response.body) == {
        "error": {"number": "424242******4242", "cvc": "redacted", "n": "4242424242424241"}
    }
    assert (response.status, response.header(b"x-cvc")) == (status, b"redacted")


async def test_what_is_no_card_number_in_a_response_is_left_alone(world: World) -> None:
    body = [{"number": n} for n in ("************4242", "tok_live_x", "", 7, None)]
    world.wire.answer = answer(200, body)
    assert orjson.loads((await world.call(world.redact(**ANSWERS), {})).body) == body


@pytest.mark.parametrize("value", [{"code": "737"}, ["737"], True])
async def test_a_response_with_neither_text_nor_number_there_is_held_back(world: World, value: Any) -> None:
    world.wire.answer = answer(200, {"cvc": value})
    response = await world.call(world.redact(**ANSWERS), {})
    assert (response.status, reason(response)) == (502, "response_unreadable")
    assert b"737" not in response.body


@pytest.mark.parametrize(("body", "media_type"), [(b"<n/>", "text/html"), (b"{", "application/json"), (b"a=b", FORM)])
async def test_a_response_that_cannot_be_read_is_held_back(world: World, body: bytes, media_type: str) -> None:
    world.wire.answer = answer(200, body, media_type)
    response = await world.call(world.redact(**ANSWERS), {})
    assert (response.status, reason(response)) == (502, "response_unreadable")


async def test_an_answer_of_the_gateway_and_an_empty_one_pass(world: World) -> None:
    world.wire.answer = Response(204)
    assert (await world.call(world.redact(**ANSWERS), {})).status == 204
    world.wire.answer = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "Ask what became of it.")
    assert (await world.call(world.redact(**ANSWERS), {})).status == 504


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fields": [{**NUMBER, "first": 9}]},
        {"fields": [{**NUMBER, "last": 5}]},
        {"fields": [{**NUMBER, "first": -1}]},
        {"fields": [{**NUMBER, "replacement": "x"}]},
        {"fields": [{**CODE, "last": 4}]},
        {"fields": [{**CODE, "replacement": "a/b"}]},
        {"fields": [{**CODE, "operation": "encrypt"}]},
        {"response": [{"select": "query:card"}]},
        {"response": [{**CODE, "required": True}]},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "redact", **settings})
