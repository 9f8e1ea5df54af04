"""Card data goes no further than the gateway."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from gateway.operations import Candidate, PutToken, Rows, TokenRow
from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.cards import luhn_valid
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.tokens import opaque_class
from gateway.rules.tokenize import Settings
from tests.rules.vault import ALL_FORMATS, FORM, World, answer, reason

VISA = "4242424242424242"
MASTERCARD = "5555555555554444"
AMEX = "378282246310005"

NUMBER = {"select": "$.card.number", "class": "pan"}
NUMBER_6T4 = {**NUMBER, "format": "6t4"}
CODE = {"select": "$.card.cvc", "class": "cvc"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def own_class(world: World, token: str, tenant: str = "default") -> str | None:
    return opaque_class(token, world.keys.keyed(tenant, "token"))


async def refused(world: World, rule: Any, body: Any, **call: Any) -> tuple[int, str, str]:
    """Status, reason and detail of a request that must be refused with nothing sent and nothing stored."""
    response = await world.call(rule, body, **call)
    assert world.wire.sent == []
    assert world.store.committed == []
    return response.status, reason(response), orjson.loads(response.body)["detail"]


# --- Card numbers in requests ----------------------------------------------------------------------------------------


async def test_what_is_forwarded_differs_in_the_card_number_alone(world: World) -> None:
    number = b'"4242\\u0034242-4242 4242"'
    body = b'\t{"amount" : 100, "card":{"number" :%s, "n":"\xe2\x82\xac", "exp":[1, 30]} }\n'
    response = await world.call(world.tokenize(NUMBER), body % number)
    (sent,) = world.wire.sent
    token = orjson.loads(sent)["card"]["number"]
    assert own_class(world, token) == "pan"
    assert token.startswith("tok_live_")
    assert sent == body % (b'"%s"' % token.encode())
    assert (response.status, response.body) == (200, b"{}")


async def test_a_number_under_its_name_in_another_case_does_not_pass(world: World) -> None:
    response = await world.call(world.tokenize({"select": "$.card.number", "class": "pan"}), {"card": {"Number": VISA}})
    assert (response.status, reason(response), world.wire.sent) == (422, "field_invalid", [])


async def test_6t4_keeps_length_and_both_ends(world: World) -> None:
    for number in (VISA, AMEX, "4222222222222"):
        token = await world.token(number, "6t4")
        assert (len(token), token[:6], token[-4:]) == (len(number), number[:6], number[-4:])
        assert not luhn_valid(token)


async def test_preserve_format_keeps_the_groups_and_is_revealed_with_and_without_them(world: World) -> None:
    token = await world.token("4242 4242-4242 4242", "preserve_format")
    assert re.fullmatch(r"[0-9]{4} [0-9]{4}-[0-9]{4} [0-9]{4}", token)
    plain = token.replace(" ", "").replace("-", "")
    assert await world.token(VISA, "preserve_format") == plain
    for written in (token, plain):
        assert await world.sent_by(world.reveal({"select": "$.n", "class": "pan"}), {"n": written}) == {"n": VISA}


async def test_a_decorated_token_has_the_shape_that_the_operator_gave_it(world: World) -> None:
    fields = [
        {"select": "$.a", "class": "pan", "format": "decorated", "pattern": "98${token}.${last4}"},
        {"select": "$.b", "class": "pan", "format": "decorated", "pattern": "x-${token}"},
    ]
    sent = await world.sent_by(world.tokenize(*fields), {"a": VISA, "b": VISA})
    assert re.fullmatch(r"98[1-9A-Za-z]{22}\.4242", sent["a"])
    assert re.fullmatch(r"x-[1-9A-Za-z]{22}", sent["b"])
    assert await world.sent_by(world.tokenize(*fields), sent) == sent
    assert await world.sent_by(world.reveal({"select": "$.*", "class": "pan"}), sent) == {"a": VISA, "b": VISA}


async def test_a_token_of_any_format_is_known_in_a_field_of_another(world: World) -> None:
    rule = world.tokenize({"select": "$.n", "class": "pan", "format": "t4"})
    for card_format in ALL_FORMATS:
        token = await world.token(VISA, card_format)
        assert await world.sent_by(rule, {"n": token}) == {"n": token}


async def test_a_form_field_is_replaced_in_place(world: World) -> None:
    rule = world.tokenize({"select": "card[number]", "class": "pan"}, environment="test")
    await world.call(rule, b"type=card&card%5Bnumber%5D=4242+4242+4242+4242&x=%2f", media_type=FORM)
    (sent,) = world.wire.sent
    token = sent.split(b"&")[1].removeprefix(b"card%5Bnumber%5D=").decode()
    assert token.startswith("tok_test_")
    assert own_class(world, token) == "pan"
    assert sent == b"type=card&card%%5Bnumber%%5D=%s&x=%%2f" % token.encode()


async def test_a_card_has_one_token_in_a_tenant_however_it_is_spelled(world: World) -> None:
    token = await world.token(VISA)
    assert await world.token("4242-4242-4242-4242") == token
    assert await world.token(MASTERCARD) != token
    assert await world.token(VISA, "6t4") != token
    assert await world.token(VISA, tenant="other") != token
    assert world.count(Metric.TOKENIZED, "pan", "existing") == 1
    assert world.count(Metric.TOKENIZED, "pan", "new") == 4


async def test_without_dedupe_each_request_gives_a_new_token(world: World) -> None:
    rule = world.tokenize(NUMBER, dedupe="none")
    tokens = [(await world.sent_by(rule, {"card": {"number": VISA}}))["card"]["number"] for _ in range(2)]
    assert tokens[0] != tokens[1]
    assert [put.fingerprint for put in world.store.of(PutToken)] == [None, None]


@pytest.mark.parametrize("dedupe", ["tenant", "none"])
async def test_a_card_that_comes_twice_in_a_body_asks_for_one_token(world: World, dedupe: str) -> None:
    rule = world.tokenize({"select": "$.cards[*]", "class": "pan"}, dedupe=dedupe)
    cards = (await world.sent_by(rule, {"cards": [VISA, MASTERCARD, 4242424242424242]}))["cards"]
    assert cards[0] == cards[2] != cards[1]
    assert len(world.store.of(PutToken)) == 2


async def test_two_fields_that_select_the_same_value_replace_it_once(world: World) -> None:
    rule = world.tokenize(NUMBER_6T4, {"select": "$..number", "class": "pan"})
    sent = await world.sent_by([rule, world.tokenize(NUMBER)], {"card": {"number": VISA}, "number": AMEX})
    assert sent["card"]["number"].startswith("424242")
    assert sent["number"].startswith("tok_live_")
    assert len(world.store.of(PutToken)) == 2


@pytest.mark.parametrize("card_format", ALL_FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        "4242424242424241x",
        "42424242424242424242",
        "4242-4242",
        "",
        "visa",
        "tok_live_1111111111111111111111111a",
        "４２４２４２４２４２４２４２４２",
        True,
        [VISA],
        {"number": VISA},
        4242424242424242.5e-1,
    ],
)
async def test_what_is_no_card_number_is_refused_by_the_name_of_its_field(
    world: World, card_format: str, value: Any
) -> None:
    rule = world.tokenize({**NUMBER, "format": card_format})
    status, why, detail = await refused(world, rule, {"card": {"number": value}})
    assert (status, why) == (422, "field_invalid")
    assert "$.card.number" in detail
    assert "424242" not in detail


async def test_a_mistyped_card_number_is_refused_in_both_formats(world: World) -> None:
    mistyped = {"card": {"number": "4242424242424241"}}
    for field in (NUMBER, NUMBER_6T4):
        status, why, detail = await refused(world, world.tokenize(field), mistyped)
        assert (status, why, "$.card.number" in detail) == (422, "field_invalid", True)


async def test_a_number_too_short_for_6t4_is_refused_and_not_given_another_format(world: World) -> None:
    short = "500000000009"
    assert luhn_valid(short)
    assert (await refused(world, world.tokenize(NUMBER_6T4), {"card": {"number": short}}))[:2] == (422, "field_invalid")


@pytest.mark.parametrize("body", [{"card": {}}, {"card": {"number": None}}, {"card": None}, {}])
async def test_a_card_number_that_is_absent_is_refused_only_where_it_is_required(world: World, body: Any) -> None:
    status, why, detail = await refused(world, world.tokenize({**NUMBER, "required": True}), body)
    assert (status, why, "$.card.number" in detail) == (422, "field_required", True)
    assert await world.sent_by(world.tokenize(NUMBER), body) == body


async def test_an_exhausted_range_is_an_error_and_sends_nothing(world: World) -> None:
    world.entropy = bytes
    await world.token(VISA)
    world.store.committed.clear()
    status, why, _ = await refused(world, world.tokenize(NUMBER), {"card": {"number": MASTERCARD}})
    assert (status, why) == (503, "token_space_exhausted")


async def test_another_media_type_is_refused_even_one_that_could_be_read(world: World) -> None:
    form = b"card[number]=4242424242424242"
    assert (await refused(world, world.tokenize(NUMBER), form, media_type=FORM))[:2] == (415, "media_type_unsupported")
    assert (await refused(world, world.tokenize(NUMBER), b"{}", media_type="text/plain"))[0] == 415
    assert (await refused(world, world.tokenize(NUMBER), b"{", media_type="application/json"))[:2] == (
        400,
        "body_malformed",
    )
    assert (await refused(world, world.tokenize(NUMBER), b""))[:2] == (400, "body_malformed")


async def test_a_request_without_a_body_passes(world: World) -> None:
    response = await world.call(world.tokenize(NUMBER), b"", method="GET")
    assert (response.status, world.wire.sent) == (200, [b""])


async def test_a_vault_that_is_down_lets_nothing_pass(world: World) -> None:
    world.store.down = True
    response = await world.call(world.tokenize(NUMBER, CODE), {"card": {"number": VISA, "cvc": "123"}})
    assert (response.status, reason(response), world.wire.sent) == (503, "store_unavailable", [])
    assert any(name == b"Retry-After" for name, _ in response.headers)


async def test_no_card_data_is_in_answers_counters_and_log_lines_of_refusals(world: World) -> None:
    rule = world.tokenize(NUMBER, {**CODE, "required": True})
    for card in ({"number": VISA}, {"number": VISA, "cvc": "98765"}, {"number": VISA + "1", "cvc": "987"}):
        response = await world.call(rule, {"card": card})
        seen = repr((response, world.telemetry.counts, world.telemetry.lines))
        assert response.status == 422
        assert "4242" not in seen
        assert "987" not in seen


# --- Tokens in requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card_format", ALL_FORMATS)
async def test_tokenizing_a_token_changes_nothing(world: World, card_format: str) -> None:
    token = await world.token(VISA, card_format)
    rule = world.tokenize({**NUMBER, "format": card_format}, CODE)
    card = {"number": token, "cvc": await world.code("123")}
    assert await world.sent_by(rule, {"card": card}) == {"card": card}
    assert len(world.store.of(PutToken)) == 1
    assert world.count(Metric.TOKENIZED, "pan", "token") == 1
    assert world.count(Metric.TOKENIZED, "cvc", "token") == 1


@pytest.mark.parametrize("card_format", ALL_FORMATS)
async def test_another_tenants_token_is_refused(world: World, card_format: str) -> None:
    token = await world.token(VISA, card_format, tenant="other")
    world.store.committed.clear()
    rule = world.tokenize({**NUMBER, "format": card_format})
    assert (await refused(world, rule, {"card": {"number": token}}))[:2] == (422, "field_invalid")


async def test_a_token_of_the_other_class_is_refused(world: World) -> None:
    number, code = await world.token(VISA), await world.code("123")
    world.store.committed.clear()
    assert (await refused(world, world.tokenize(NUMBER), {"card": {"number": code}}))[1] == "field_invalid"
    assert (await refused(world, world.tokenize(CODE), {"card": {"cvc": number}}))[1] == "field_invalid"


# --- Security codes --------------------------------------------------------------------------------------------------


async def test_a_code_is_in_memory_alone_and_its_token_goes_on(world: World) -> None:
    sent = await world.sent_by(world.tokenize(NUMBER, CODE), {"card": {"number": VISA, "cvc": "123"}})
    token = sent["card"]["cvc"]
    assert own_class(world, token) == "cvc"
    assert token.startswith("cvc_live_")
    assert [put.token_class for put in world.store.of(PutToken)] == ["pan"]
    assert await world.sad.lease("default", token, "x") == b"123"
    assert await world.sad.lease("other", token, "x") is None


async def test_a_code_without_a_card_number_is_kept_as_well_and_writes_nothing(world: World) -> None:
    token = await world.code("1234")
    assert world.store.committed == []
    assert await world.sad.lease("default", token, "x") == b"1234"
    assert world.count(Metric.TOKENIZED, "cvc", "new") == 1


async def test_the_same_code_twice_gives_two_tokens(world: World) -> None:
    assert await world.code("123") != await world.code("123")


async def test_a_code_is_kept_for_its_time(world: World) -> None:
    rule = world.tokenize(CODE, cvc_keep="5m")
    token = (await world.sent_by(rule, {"card": {"cvc": "123"}}))["card"]["cvc"]
    world.clock.advance(301)
    assert await world.sad.lease("default", token, "x") is None


@pytest.mark.parametrize("code", ["12", "12345", "12a", "", "１２３", True])
async def test_what_is_no_code_is_refused(world: World, code: Any) -> None:
    status, why, detail = await refused(world, world.tokenize(CODE), {"card": {"cvc": code}})
    assert (status, why, "$.card.cvc" in detail) == (422, "field_invalid", True)


async def test_the_rule_of_a_code_can_be_lifted(world: World) -> None:
    rule = world.tokenize(CODE, cvc="any")
    token = (await world.sent_by(rule, {"card": {"cvc": "canary-0123456789"}}))["card"]["cvc"]
    assert await world.sad.lease("default", token, "x") == b"canary-0123456789"
    assert (await refused(world, rule, {"card": {"cvc": ""}}))[1] == "field_invalid"
    assert (await refused(world, rule, {"card": {"cvc": "x" * 65}}))[1] == "field_invalid"


async def test_no_code_is_kept_when_the_request_is_refused_at_the_gate(world: World) -> None:
    world.store.down = True
    await world.call(world.tokenize(NUMBER, CODE), {"card": {"number": VISA, "cvc": "123"}})
    assert world.kept_codes == 0


async def test_no_code_is_kept_when_nothing_was_sent(world: World) -> None:
    world.wire.answer = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "Try again.")
    for card in ({"number": VISA, "cvc": "123"}, {"cvc": "123"}):
        response = await world.call(world.tokenize(NUMBER, CODE), {"card": card})
        assert (response.status, world.kept_codes) == (502, 0)


async def test_a_code_is_kept_when_the_outcome_is_not_known(world: World) -> None:
    world.wire.answer = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "Ask what became of it.")
    await world.call(world.tokenize(CODE), {"card": {"cvc": "123"}})
    assert world.kept_codes == 1


@pytest.mark.parametrize("card", [{"cvc": "123"}, {"cvc": "123", "number": VISA}])
async def test_without_memory_for_codes_nothing_is_sent(world: World, card: dict[str, str]) -> None:
    world.sad.down = True
    response = await world.call(world.tokenize(NUMBER, CODE), {"card": card})
    assert (response.status, reason(response), world.wire.sent) == (503, "vault_unavailable", [])


# --- Responses -------------------------------------------------------------------------------------------------------

ANSWERS = {"response": [{"select": "$..number"}]}


@pytest.mark.parametrize("status", [200, 201, 302, 402, 404, 500])
async def test_card_numbers_in_responses_of_every_status_become_tokens(world: World, status: int) -> None:
    body = b'{"error": {"number" : "4242 4242 4242 4242"}, "n":1.10}'
    world.wire.answer = answer(status, body)
    response = await world.call(world.tokenize(**ANSWERS), {})
    token = orjson.loads(response.body)["error"]["number"]
    assert own_class(world, token) == "pan"
    assert response.body == body.replace(b"4242 4242 4242 4242", token.encode())
    assert response.status == status
    assert token == await world.token(VISA)
    assert world.count(Metric.TOKENIZED, "pan", "response") == 1


async def test_an_answered_token_is_durable_before_it_is_answered(world: World) -> None:
    world.wire.answer = answer(200, {"number": VISA})
    rule = world.tokenize(**ANSWERS)
    world.store.down = True
    response = await world.call(rule, {})
    assert (response.status, reason(response)) == (504, "settle_failed")
    assert VISA.encode() not in response.body


async def test_what_is_no_card_number_in_a_response_is_left_alone(world: World) -> None:
    tokens = [await world.token(VISA), await world.token(VISA, "6t4")]
    body = {"a": [{"number": n} for n in (*tokens, "************4242", None, "", 7, "4242424242424241")]}
    world.wire.answer = answer(200, body)
    world.store.committed.clear()
    response = await world.call(world.tokenize(**ANSWERS), {})
    assert orjson.loads(response.body) == body
    assert world.store.committed == []


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"<h1>4242424242424242</h1>", "text/html"),
        (b'{"number":"4242424242424242"', "application/json"),
        (b'{"number":"tok","number":"4242424242424242"}', "application/json"),
        (b'{"number":["4242424242424242"]}', "application/json"),
        (b"number=4242424242424242", FORM),
        (b"\x1f\x8b\x08\x00", "application/json"),
        (b"4242424242424242", ""),
    ],
)
async def test_a_response_that_cannot_be_checked_is_held_back(world: World, body: bytes, media_type: str) -> None:
    world.wire.answer = answer(200, body, media_type)
    response = await world.call(world.tokenize(**ANSWERS), {})
    assert (response.status, reason(response)) == (502, "response_unreadable")
    assert orjson.loads(response.body)["outcome"] == "answered"
    assert VISA.encode() not in response.body


async def test_an_empty_response_passes(world: World) -> None:
    world.wire.answer = Response(204)
    response = await world.call(world.tokenize(**ANSWERS), {})
    assert (response.status, response.body) == (204, b"")


async def test_a_response_the_gateway_made_passes(world: World) -> None:
    world.wire.answer = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "Ask what became of it.")
    response = await world.call(world.tokenize(**ANSWERS), {})
    assert (response.status, reason(response)) == (504, "upstream_timeout")


async def test_an_upstream_is_asked_for_a_plain_answer_only_where_it_is_read(world: World) -> None:
    for rule, asked in ((world.tokenize(**ANSWERS), False), (world.tokenize(NUMBER), True)):
        await world.call(rule, {}, headers={"Accept-Encoding": "gzip"})
        assert (b"gzip" in world.wire.heads.pop()) is asked


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fields": [{"select": "$.card["}]},
        {"fields": [{**NUMBER, "select": "$.card["}]},
        {"fields": [{**NUMBER, "class": "iban"}]},
        {"fields": [{**NUMBER, "format": "uuid7"}]},
        {"fields": [{**NUMBER, "format": "decorated"}]},
        {"fields": [{**NUMBER, "format": "decorated", "pattern": "98"}]},
        {"fields": [{**NUMBER, "format": "t4", "pattern": "98${token}"}]},
        {"fields": [{**CODE, "format": "6t4"}]},
        {"fields": [{**NUMBER, "requried": True}]},
        {"response": [{"select": "$.cvc", "class": "cvc"}]},
        {"fields": [CODE], "cvc_keep": "61m"},
        {"fields": [CODE], "cvc_keep": "0s"},
        {"fields": [CODE], "environment": "Live_1"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "tokenize", **settings})


def test_a_body_full_of_cards_finds_their_tokens_in_proportion_to_their_number() -> None:
    """Sixteen times as many would take 256 times as long if time went by the square."""

    def seconds(count: int) -> float:
        puts = [PutToken("shop", "pan", "6t4", None, lambda _: Candidate("", b""), 0.0) for _ in range(count)]
        rows = Rows(puts)
        rows.answered += [TokenRow(token=str(number), new=True) for number in range(count)]
        began = time.process_time()
        assert [rows[put].token for put in puts] == [str(number) for number in range(count)]
        return time.process_time() - began

    few, many = (min(seconds(count) for _ in range(3)) for count in (500, 8000))
    assert many < few * 100
