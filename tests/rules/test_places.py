"""Card data in header fields, queries and paths: replaced there as it is in bodies, and nothing else of the head is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.operations import PutToken, RecordAudit, RevealTokens
from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.head_syntax import split_target
from gateway.pure.metrics import Metric
from gateway.rules.reveal import RevealField
from gateway.rules.tokenize import RequestField, ResponseField
from tests.rules.vault import ALL_FORMATS, World, answer, reason

VISA = "4242424242424242"
SPACED = "4242%204242%204242%204242"
MASTERCARD = "5555555555554444"
IN_FIELD = {"select": "header:X-Card", "class": "pan"}
IN_QUERY = {"select": "query:card", "class": "pan"}
IN_PATH = {"select": "path:number", "class": "pan"}
TEMPLATE = "/v1/cards/{number}/charges"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def get(world: World, rules: Any, target: str = "/v1/cards", **call: Any) -> Response:
    return await world.call(rules, b"", method="GET", target=target, **call)


async def refused(world: World, rules: Any, target: str = "/v1/cards", **call: Any) -> tuple[int, str, str]:
    """Status, reason and detail of a request that must be refused, with nothing sent and no value in the answer."""
    response = await get(world, rules, target, **call)
    assert world.wire.sent == []
    assert b"4242" not in response.body
    return response.status, reason(response), orjson.loads(response.body)["detail"]


# --- tokenize --------------------------------------------------------------------------------------------------------


async def test_a_header_field_is_replaced_and_no_other(world: World) -> None:
    headers = {"X-Card": "4242-4242-4242-4242", "X-Note": "card", "Content-Digest": "sha-256=:AA==:"}
    assert (await get(world, world.tokenize(IN_FIELD), headers=headers)).status == 200
    assert world.sent_field("X-Card") == await world.token(VISA)
    before = [f"{name}: {value}".encode() for name, value in headers.items() if name != "X-Card"]
    assert [line for line in world.wire.heads[0].split(b"\r\n") if line in before] == before


async def test_the_name_of_a_field_is_the_same_in_any_case(world: World) -> None:
    await get(world, world.tokenize({**IN_FIELD, "select": "header:x-CARD"}), headers={"X-Card": VISA})
    assert world.sent_field("X-Card").startswith("tok_live_")


async def test_every_parameter_of_a_name_gets_its_own_token_and_all_other_bytes_stay(world: World) -> None:
    target = f"/v1/c%20d?a=%2f&card%5B%5D={VISA}&x=4242424242424242&card[]=5555+5555+5555+4444&&flag"
    await get(world, world.tokenize({**IN_QUERY, "select": "query:card[]"}), target)
    first, second = await world.token(VISA), await world.token(MASTERCARD)
    expected = target.replace(f"card%5B%5D={VISA}", f"card%5B%5D={first}").replace("5555+5555+5555+4444", second)
    assert world.wire.heads[0].split(b" ")[1].decode() == expected


@pytest.mark.parametrize("spelled", [VISA, SPACED, "4242-4242-4242-4242"])
async def test_a_segment_of_the_path_is_replaced_by_the_name_that_the_route_gives_it(
    world: World, spelled: str
) -> None:
    target = f"/v1/cards/{spelled}/charges?card=1"
    await get(world, world.tokenize(IN_PATH), target, template=TEMPLATE, params={"number": spelled})
    assert world.wire.heads[0].startswith(f"GET /v1/cards/{await world.token(VISA)}/charges?card=1 ".encode())
    assert world.exchange.params == {} or "number" not in world.exchange.params


async def test_of_two_equal_segments_the_named_one_is_replaced(world: World) -> None:
    rule = world.tokenize(IN_PATH)
    target = f"/{VISA}/{VISA}"
    await get(world, rule, target, template="/{tenant}/{number}", params={"tenant": VISA, "number": VISA})
    assert world.wire.heads[0].split(b" ")[1].decode() == f"/{VISA}/{await world.token(VISA)}"
    await get(world, rule, target, template="/{tenant}/{number}", params={"tenant": VISA, "number": VISA})
    assert dict(world.exchange.params) == {"tenant": VISA}


@pytest.mark.parametrize("card_format", ALL_FORMATS)
@pytest.mark.parametrize("spelled", [VISA, SPACED])
async def test_a_rewritten_target_is_one_that_the_gateway_itself_would_take(
    world: World, card_format: str, spelled: str
) -> None:
    target = f"/v1/cards/{spelled}/charges?card={spelled}"
    rule = world.tokenize({**IN_PATH, "format": card_format}, {**IN_QUERY, "format": card_format})
    await get(world, rule, target, template=TEMPLATE)
    spelled_again, path, query = split_target(world.sent_target())
    assert spelled_again == world.sent_target()
    assert path.count("/") == TEMPLATE.count("/")
    assert VISA not in path + query
    assert world.sent_target() == world.exchange.told


async def test_a_token_stays_as_it_is_in_every_place(world: World) -> None:
    token = await world.token(VISA)
    rule = world.tokenize(IN_FIELD, IN_QUERY, IN_PATH)
    target = f"/v1/cards/{token}/charges?card={token}"
    await get(world, rule, target, template=TEMPLATE, headers={"X-Card": token})
    assert (world.sent_target(), world.sent_field("X-Card")) == (target, token)


async def test_a_code_is_replaced_in_a_header_field(world: World) -> None:
    await get(world, world.tokenize({"select": "header:X-Code", "class": "cvc"}), headers={"X-Code": "123"})
    assert await world.sad.lease("default", world.sent_field("X-Code"), "x") == b"123"


async def test_a_card_in_head_and_body_has_one_token(world: World) -> None:
    rule = world.tokenize(IN_FIELD, {"select": "$.n", "class": "pan"})
    await world.call(rule, {"n": VISA}, headers={"X-Card": VISA})
    assert orjson.loads(world.wire.sent[0])["n"] == world.sent_field("X-Card")
    assert len(world.store.of(PutToken)) == 1


async def test_a_body_is_left_unread_where_only_the_head_is_selected_in(world: World) -> None:
    rule = world.tokenize(IN_FIELD, response=[{"select": "header:X-Card"}])
    assert not rule.reads_request
    assert not rule.reads_response
    assert (await world.call(rule, b"\xff not JSON", headers={"X-Card": VISA})).status == 200
    assert world.wire.sent == [b"\xff not JSON"]


@pytest.mark.parametrize("field", [IN_FIELD, IN_QUERY, IN_PATH])
@pytest.mark.parametrize("value", ["4242424242424241", "visa", "tok_live_1111111111111111111111111a"])
async def test_what_is_no_card_number_is_refused_by_the_name_of_its_place(
    world: World, field: dict[str, str], value: str
) -> None:
    target = f"/v1/cards/{value}/charges?card={value}"
    status, why, detail = await refused(
        world, world.tokenize(field), target, template=TEMPLATE, headers={"X-Card": value}
    )
    assert (status, why, field["select"] in detail) == (422, "field_invalid", True)


async def test_one_bad_value_keeps_all_others_from_being_sent_or_stored(world: World) -> None:
    rule = world.tokenize(IN_FIELD, IN_QUERY, {"select": "$.n", "class": "pan"})
    response = await world.call(rule, {"n": VISA}, target=f"/v1?card={VISA}", headers={"X-Card": "visa"})
    assert (response.status, world.wire.sent, world.store.committed) == (422, [], [])


@pytest.mark.parametrize("field", [IN_FIELD, IN_QUERY, IN_PATH])
async def test_a_place_that_is_empty_is_refused_only_where_it_is_required(world: World, field: Any) -> None:
    status, why, detail = await refused(world, world.tokenize({**field, "required": True}), "/v1/x?cards=1&card")
    assert (status, why, field["select"] in detail) == (422, "field_required", True)
    assert (await get(world, world.tokenize(field), "/v1/x?cards=1&card")).status == 200


@pytest.mark.parametrize("query", ["a=1;card={}", "Card={}", "card[]={}", "card%5B0%5D={}"])
async def test_a_query_in_which_others_could_see_the_parameter_elsewhere_is_refused(world: World, query: str) -> None:
    got = await refused(world, world.tokenize(IN_QUERY), "/v1?" + query.format(VISA))
    assert got[:2] == (400, "target_not_canonical")


# --- what is told of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X_Card", "x.card", "X--Card", "_X-Card", "X-Card-"])
async def test_a_header_field_that_others_could_take_for_the_selected_one_is_refused(world: World, name: str) -> None:
    detail = "Send header:X-Card under this very name."
    assert await refused(world, world.tokenize(IN_FIELD), headers={name: VISA}) == (422, "field_invalid", detail)


async def test_the_log_has_the_target_as_it_was_sent_on_and_no_other_value_of_the_query(world: World) -> None:
    target = f"/v1/cards/{VISA}/charges?api_key=secret&card={VISA}"
    await get(world, world.tokenize(IN_PATH, IN_QUERY), target, template=TEMPLATE)
    token = await world.token(VISA)
    assert world.exchange.told == f"/v1/cards/{token}/charges?api_key=*&card={token}" or not world.exchange.told
    await get(world, world.tokenize(IN_PATH, IN_QUERY), target, template=TEMPLATE)
    assert world.exchange.told == f"/v1/cards/{token}/charges?api_key=*&card={token}"


async def test_the_log_has_no_target_where_nothing_in_it_is_replaced(world: World) -> None:
    await get(world, world.tokenize(IN_FIELD), "/v1?a=b", headers={"X-Card": VISA})
    assert world.exchange.told == ""


async def test_nothing_that_is_revealed_is_told(world: World) -> None:
    token = await world.token(VISA)
    await get(world, world.reveal(IN_QUERY, IN_PATH), f"/v1/cards/{token}/charges?card={token}", template=TEMPLATE)
    assert VISA in world.sent_target()
    assert world.exchange.told == f"/v1/cards/{token}/charges?card=*"


# --- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 404, 500])
async def test_header_fields_of_responses_become_tokens_whatever_the_status(world: World, status: int) -> None:
    world.wire.answer = Response(status, [(b"X-Card", VISA.encode()), (b"x-card", b"none"), (b"A", b"b")], b"not JSON")
    response = await get(world, world.tokenize(response=[{"select": "header:X-Card"}]))
    token = await world.token(VISA)
    assert [field for field in response.headers if field[0].lower() in (b"x-card", b"a")] == [
        (b"X-Card", token.encode()),
        (b"x-card", b"none"),
        (b"A", b"b"),
    ]
    assert (response.status, response.body) == (status, b"not JSON")


async def test_an_answered_field_is_durable_before_it_is_answered(world: World) -> None:
    world.wire.answer = Response(200, [(b"X-Card", VISA.encode())], b"")
    world.store.down = True
    response = await get(world, world.tokenize(response=[{"select": "header:X-Card"}]))
    assert (response.status, reason(response)) == (504, "settle_failed")
    assert VISA.encode() not in b"".join(value for _, value in response.headers)


# --- reveal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card_format", ALL_FORMATS)
async def test_tokens_are_revealed_in_every_place_of_the_head(world: World, card_format: str) -> None:
    token = await world.token(VISA, card_format)
    target = f"/v1/cards/{token}/charges?a=%2f&card={token}"
    rule = world.reveal(IN_FIELD, IN_QUERY, IN_PATH)
    response = await get(world, rule, target, template=TEMPLATE, headers={"X-Card": token})
    assert response.status == 200
    assert world.sent_target() == f"/v1/cards/{VISA}/charges?a=%2f&card={VISA}"
    assert world.sent_field("X-Card") == VISA
    assert [reading.tokens for reading in world.store.of(RevealTokens)] == [(token,)]


@pytest.mark.parametrize("field", [IN_FIELD, IN_QUERY, IN_PATH])
@pytest.mark.parametrize(
    ("value", "status", "why"),
    [
        ("tok_live_11111111111111111111111111", 422, "card_token_unknown"),
        (VISA, 422, "field_invalid"),
    ],
)
async def test_what_is_no_token_is_refused_in_every_place(
    world: World, field: Any, value: str, status: int, why: str
) -> None:
    target = f"/v1/cards/{value}/charges?card={value}"
    got = await refused(world, world.reveal(field), target, template=TEMPLATE, headers={"X-Card": value})
    assert got[:2] == (status, why)
    assert world.store.of(RevealTokens) == []


@given(
    spelled=st.lists(st.sampled_from(["a=%2f", "card[]=TOKEN", "card%5B%5D=TOKEN", "", "x", "y=1+2"]), max_size=6),
    prefix=st.text("ab{ }", max_size=3).filter(lambda text: "{{" not in text),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_revealing_what_was_tokenized_gives_the_head_that_was_there(
    tmp_path: Path, spelled: list[str], prefix: str
) -> None:
    async def there_and_back() -> None:
        world = World(tmp_path)
        places: list[Any] = [IN_PATH, {"select": "query:card[]", "class": "pan"}, IN_FIELD]
        target = f"/v1/cards/{VISA}/charges?{'&'.join(spelled).replace('TOKEN', MASTERCARD)}"
        headers = {"X-Card": VISA, "X-Text": f"a{prefix}b"}
        await get(world, world.tokenize(*places), target, template=TEMPLATE, headers=headers)
        tokens = world.sent_target(), world.sent_field("X-Card")
        assert VISA not in tokens[0]
        assert MASTERCARD not in tokens[0]
        await get(world, world.reveal(*places), tokens[0], template=TEMPLATE, headers={**headers, "X-Card": tokens[1]})
        await world.store.close()
        assert (world.sent_target(), world.sent_field("X-Card")) == (target, VISA)
        assert world.sent_field("X-Text") == headers["X-Text"]

    asyncio.run(there_and_back())


# --- expressions -----------------------------------------------------------------------------------------------------

ANY_FIELD = [IN_FIELD, {"select": "header:X-Card", "class": "cvc"}, {"select": "header:Authorization", "class": "pan"}]


async def test_an_expression_in_a_listed_field_becomes_what_its_token_stands_for(world: World) -> None:
    number, other, code = await world.token(VISA), await world.token(MASTERCARD, "6t4"), await world.code("123")
    headers = {
        "X-Card": f"a={{{{{number}}}}};b={{{{ {other} }}}}, c={{{{{code}}}}}",
        "Authorization": f"Key {{{{{number}}}}}",
    }
    assert (await get(world, world.reveal(*ANY_FIELD), headers=headers)).status == 200
    assert world.sent_field("X-Card") == f"a={VISA};b={MASTERCARD}, c=123"
    assert world.sent_field("Authorization") == f"Key {VISA}"
    assert world.count(Metric.REVEALED, "cvc", "revealed") == 1


@pytest.mark.parametrize(
    "value",
    ["{{}}", "{{ }}", "{{{TOKEN}}}", "{{TOKEN", "a {{TOKEN}} {{", "{{TOKEN TOKEN}}", "{{TOKEN|json:'$.a'}}", "{{x}}"],
)
async def test_braces_that_are_no_token_of_ours_are_refused(world: World, value: str) -> None:
    token = await world.token(VISA)
    world.wire.sent.clear()
    status, why, _ = await refused(world, world.reveal(IN_FIELD), headers={"X-Card": value.replace("TOKEN", token)})
    assert (status, why in ("field_invalid", "card_token_unknown")) == (422, True)
    assert world.store.of(RevealTokens) == []


@pytest.mark.parametrize("field", ["X-Other", "User-Agent", "Authorization"])
async def test_an_expression_in_a_field_that_is_not_listed_is_refused(world: World, field: str) -> None:
    token = await world.token(VISA)
    world.wire.sent.clear()
    response = await refused(world, world.reveal(IN_FIELD), headers={field: f"Key {{{{{token}}}}}"})
    assert response[:2] == (403, "card_token_not_allowed")


async def test_an_expression_of_a_class_that_is_not_listed_for_the_field_is_refused(world: World) -> None:
    code = await world.code("123")
    world.wire.sent.clear()
    response = await refused(world, world.reveal(IN_FIELD), headers={"X-Card": f"c={{{{{code}}}}}"})
    assert response[:2] == (403, "card_token_not_allowed")


async def test_braces_of_json_in_a_field_that_is_not_listed_pass(world: World) -> None:
    await get(world, world.reveal(IN_FIELD), headers={"X-Client": '{"a":{"b":{}}}'})
    assert world.sent_field("X-Client") == '{"a":{"b":{}}}'


async def test_a_code_that_would_break_a_field_is_refused_and_given_back(world: World) -> None:
    world.entropy = world.entropy
    rule = world.tokenize({"select": "$.c", "class": "cvc"}, cvc="any")
    token = (await world.sent_by(rule, {"c": "1\r\nX-Evil: 2"}))["c"]
    reveal = world.reveal({"select": "header:X-Code", "class": "cvc"})
    assert (await refused(world, reveal, headers={"X-Code": token}))[:2] == (422, "field_invalid")
    assert await world.sad.lease("default", token, "another") == b"1\r\nX-Evil: 2"


# --- what the answer quotes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 302, 307])
async def test_a_redirect_is_passed_on_unfollowed_with_the_token_in_place_of_the_number(
    world: World, status: int
) -> None:
    token = await world.token(VISA)
    location = f"https://api.example/v1/cards/{VISA}/charges?card={VISA}"
    world.wire.answer = Response(status, [(b"Location", location.encode()), (b"Link", f"<{VISA}>".encode())], b"")
    response = await get(world, world.reveal(IN_QUERY), f"/v1?card={token}")
    assert (response.status, len(world.wire.heads)) == (status, 2)
    assert response.header(b"location") == location.replace(VISA, token).encode()
    assert response.header(b"link") == f"<{token}>".encode()


@pytest.mark.parametrize("quoted", ["4242-4242-4242-4242", "%34242424242424242", "4242%204242%204242%204242"])
async def test_an_answer_that_quotes_the_number_in_another_spelling_is_held_back(world: World, quoted: str) -> None:
    token = await world.token(VISA)
    world.wire.answer = Response(302, [(b"Location", f"/cards/{quoted}".encode())], b"")
    response = await get(world, world.reveal(IN_QUERY), f"/v1?card={token}")
    assert (response.status, reason(response)) == (502, "response_card_number")
    assert response.header(b"location") is None


@pytest.mark.parametrize(("location", "status"), [("/x?a=1&cvc=123", 502), ("/x?cvc=1234", 302), ("/orders/123", 302)])
async def test_an_answer_that_quotes_a_code_as_a_parameter_is_held_back(
    world: World, location: str, status: int
) -> None:
    code = await world.code("123")
    world.wire.answer = Response(302, [(b"Location", location.encode())], b"")
    rule = world.reveal({"select": "$.c", "class": "cvc"})
    assert (await world.call(rule, {"c": code})).status == status


async def test_a_field_that_a_rule_behind_it_has_replaced_is_left_to_it(world: World) -> None:
    token = await world.token(VISA)
    world.wire.answer = Response(200, [(b"X-Card", VISA.encode())], b"")
    rules = [world.reveal(IN_QUERY), world.tokenize(response=[{"select": "header:X-Card", "format": "6t4"}])]
    response = await get(world, rules, f"/v1?card={token}")
    assert response.header(b"x-card") == (await world.token(VISA, "6t4")).encode()


# --- who may reveal --------------------------------------------------------------------------------------------------


async def test_a_caller_without_a_name_reveals_nothing(world: World) -> None:
    token = await world.token(VISA)
    world.wire.sent.clear()
    response = await refused(world, world.reveal(IN_QUERY), f"/v1?card={token}", sans=())
    assert response[:2] == (403, "card_token_not_allowed")
    assert world.store.of(RevealTokens) == []


async def test_the_intent_names_caller_route_and_destination(world: World) -> None:
    token = await world.token(VISA)
    world.wire.answer = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "Ask what became of it.")
    await get(world, world.reveal(IN_QUERY), f"/v1?card={token}")
    assert [reading.tokens for reading in world.store.of(RevealTokens)] == [(token,)]
    (intent, settled) = (entry for record in world.store.of(RecordAudit) for entry in record.entries)
    assert (intent.principal, intent.route, intent.destination, settled.outcome) == (
        "spiffe://shop.example/checkout",
        "create-payment",
        "stripe",
        "unknown",
    )


# --- beside other rules ----------------------------------------------------------------------------------------------


async def test_a_question_about_a_request_has_none_of_the_fields_that_are_replaced(world: World) -> None:
    await get(world, world.tokenize(IN_FIELD), headers={"X-Card": VISA, "X-Kept": "1"})
    names = [name for name, _ in world.exchange.untouched_fields()]
    assert b"X-Kept" in names
    assert b"X-Card" not in names


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "select",
    ["header:", "header:a b", "header:Host", "header:Content-Length", "header:content-type", "header:Pangate-Tenant",
     "header:Transfer-Encoding", "query:", "query:a b", "path:", "path:1", "path:{number}"],
)  # fmt: skip
def test_a_place_that_cannot_be_is_refused(select: str) -> None:
    for field in (RequestField, ResponseField, RevealField):
        with pytest.raises(ValidationError):
            field.model_validate({"select": select, "class": "pan"})


@pytest.mark.parametrize("select", ["query:cvc", "path:cvc"])
def test_a_code_has_no_place_in_a_target(select: str) -> None:
    for field in (RequestField, RevealField):
        with pytest.raises(ValidationError, match="logs"):
            field.model_validate({"select": select, "class": "cvc"})


@pytest.mark.parametrize("select", ["query:card", "path:number"])
def test_a_response_has_no_target(select: str) -> None:
    with pytest.raises(ValidationError, match="no target"):
        ResponseField.model_validate({"select": select})


async def test_answers_of_any_status_are_decoded_before_they_are_read(world: World) -> None:
    world.wire.answer = answer(404, {"number": VISA})
    assert VISA.encode() not in (await get(world, world.tokenize(response=[{"select": "$.number"}]))).body
