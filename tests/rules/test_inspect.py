"""Card numbers that nobody declared go no further, either way."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import Response
from gateway.pure.metrics import Metric
from gateway.rule import Place, Rule, RuleSettings
from gateway.rules import inspect, tokenize
from tests.conftest import make_exchange
from tests.rules.vault import EGRESS, FORM, JSON, World, answer, reason

VISA = "4242424242424242"
AMEX = "3782 822463 10005"
MASKED = "424242******4242"
PASSED = 200
NUMBER = {"select": "$.number", "class": "pan"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def made(world: World, place: Place = EGRESS, **settings: Any) -> Rule:
    read = inspect.Settings.model_validate({"kind": "inspect", **settings})
    return inspect.Inspect.provision(read, world.ports, place)


async def sent_to(world: World, rules: Rule | list[Rule], body: Any = b"", **call: Any) -> Response:
    return await world.call(rules, body if isinstance(body, bytes) else orjson.dumps(body), **call)


async def to(world: World, target: str, rule: Rule, mode: Any = "enforce", **slots: Any) -> Response:
    exchange = make_exchange(target=target, headers={"Content-Type": JSON}, body=b"{}", **slots)
    return await Pipeline([Placed("inspect", rule, mode)], world.wire, world.ports, BodyLimits()).run(exchange)


# --- Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (JSON, b'{"note":"paid with %s"}' % VISA.encode()),
        (JSON, b'{"note":4242424242424242}'),
        (JSON, b'{"note":"\\u0034242424242424242"}'),
        (JSON, orjson.dumps({"note": orjson.dumps({"a": AMEX}).decode()})),
        (FORM, b"note=4242+4242+4242+4242"),
        (FORM, b"note=%34242424242424242"),
        ("text/plain", AMEX.encode()),
        ("application/xml", b"<n>4242&#52;24242424242</n>"),
        ("application/octet-stream", base64.b64encode(b"n=" + VISA.encode())),
        ("text/plain;charset=utf-16le", VISA.encode("utf-16-le")),
    ],
)
async def test_a_body_with_a_card_number_is_refused_whatever_its_type(
    world: World, media_type: str, body: bytes
) -> None:
    response = await sent_to(world, made(world), body, media_type=media_type)
    assert (response.status, reason(response), world.wire.sent) == (422, "card_number_found", [])
    assert b"4242" not in response.body
    assert b"the body seems to hold one" in response.body


async def test_what_holds_none_is_sent_as_it_came(world: World) -> None:
    body = b'{"amount":1099,"order_id":"4242424242424242","at":1763920576123456789}'
    assert (await sent_to(world, made(world), body)).status == PASSED
    assert world.wire.sent == [body]


@pytest.mark.parametrize("target", [f"/v1/{VISA}", f"/v1/x?note={VISA}", "/v1/x?note=4242%2D4242%2D4242%2D4242"])
@pytest.mark.parametrize("action", ["block", "mask"])
async def test_a_target_with_a_card_number_is_refused_for_it_cannot_be_masked(
    world: World, target: str, action: str
) -> None:
    response = await to(world, target, made(world, request=action))
    assert (reason(response), world.wire.sent) == ("card_number_found", [])


@pytest.mark.parametrize("name", ["User-Agent", "Cookie", "X-Card", "X-4242424242424242"])
async def test_a_field_with_a_card_number_is_refused(world: World, name: str) -> None:
    response = await sent_to(world, made(world), headers={name: VISA})
    assert (reason(response), world.wire.sent) == ("card_number_found", [])


async def test_credentials_and_fields_that_are_not_sent_on_are_not_looked_at(world: World) -> None:
    headers = {"Authorization": f"Bearer {VISA}", "X-Forwarded-For": VISA, "Pangate-Subject": VISA}
    assert (await sent_to(world, made(world), headers=headers)).status == PASSED


async def test_only_the_fields_that_are_named_are_looked_at(world: World) -> None:
    rule = made(world, headers=["X-Note"])
    assert (await sent_to(world, rule, headers={"X-Other": VISA})).status == PASSED
    assert reason(await sent_to(world, rule, headers={"x-note": VISA})) == "card_number_found"


async def test_a_declared_number_is_spared_and_an_undeclared_one_beside_it_is_not(world: World) -> None:
    rules = [world.tokenize(NUMBER), made(world)]
    for note, status in (("\\u0034", PASSED), (VISA, 422)):
        body = b'{"number":"%s","note":"%s"}' % (VISA.encode(), note.encode())
        assert (await sent_to(world, rules, body)).status == status


@pytest.mark.parametrize("token_format", ["opaque", "6t4", "8t4", "t4", "num_len", "uuid", "pfpt", "alnum_6t4"])
async def test_own_tokens_are_no_card_numbers(world: World, token_format: str) -> None:
    for number in (VISA, "378282246310005", "6205500000000000004"):
        if len(number) > 15 or token_format != "8t4":
            token = await world.token(number, token_format)
            assert (await sent_to(world, made(world), {"token": token})).status == PASSED


async def test_maestro_is_looked_for_on_demand(world: World) -> None:
    body = {"note": "6759 6498 2643 8453"}
    assert (await sent_to(world, made(world), body)).status == PASSED
    assert reason(await sent_to(world, made(world, also=["maestro"]), body)) == "card_number_found"


async def test_the_words_that_spare_a_number_are_the_operators(world: World) -> None:
    body = {"order": VISA}
    assert reason(await sent_to(world, made(world, unless_named=[]), body)) == "card_number_found"
    assert (await sent_to(world, made(world, unless_named=["widget"]), {"widget_id": VISA})).status == PASSED


async def test_more_numbers_than_anybody_sends_are_refused(world: World) -> None:
    near = b"4242424242424243 " * 6000
    assert reason(await sent_to(world, made(world), near)) == "card_number_found"
    world.wire.answer = answer(200, near)
    assert reason(await sent_to(world, made(world))) == "response_unreadable"


# --- Masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body", "sent"),
    [
        (JSON, '{"a" : "x 4242424242424242"}', '{"a" : "x 424242******4242"}'),
        (JSON, '{"a\\"b":4242424242424242,"b":-4242424242424242.0 }', f'{{"a\\"b":"{MASKED}","b":"{MASKED}" }}'),
        (JSON, f'["{VISA}",{VISA}]', f'["{MASKED}","{MASKED}"]'),
        (FORM, "a=3782+822463+10005&b=%3A", "a=3782+82****+*0005&b=%3A"),
        ("text/plain", f"{VISA}\n{VISA}\n", f"{MASKED}\n{MASKED}\n"),
    ],
)
async def test_a_mask_hides_the_number_and_nothing_else(world: World, media_type: str, body: str, sent: str) -> None:
    rule = made(world, request="mask", response="off")
    assert (await sent_to(world, rule, body.encode(), media_type=media_type)).status == PASSED
    assert world.wire.sent == [sent.encode()]


async def test_what_cannot_be_masked_is_refused(world: World) -> None:
    rule = made(world, request="mask")
    for body in (b'"\\u0034242424242424242"', base64.b64encode(VISA.encode())):
        assert reason(await sent_to(world, rule, body)) == "card_number_found"


async def test_a_field_is_masked_beside_others_of_its_name_and_none_is_made_an_identity(world: World) -> None:
    headers = {"X-Note": f"a {VISA}", "Pangate-Subject": VISA, "User-Agent": "x"}
    assert (await sent_to(world, made(world, request="mask"), headers=headers)).status == PASSED
    head = world.wire.heads[0]
    assert head.count(b"X-Note: a 424242******4242") == head.count(b"X-Note") == 1
    assert head.count(b"User-Agent: x") == 1
    assert VISA.encode() not in head
    assert MASKED.encode() not in head.replace(b"X-Note: a 424242******4242", b"")


async def test_masks_are_counted(world: World) -> None:
    await sent_to(world, made(world, request="mask"), {"a": VISA, "b": AMEX})
    assert world.count(Metric.TOKENIZED, "pan", "masked") == 2


# --- Responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 404, 422, 500, 503])
async def test_a_response_of_any_status_with_a_card_number_is_held_back(world: World, status: int) -> None:
    world.wire.answer = answer(status, {"error": f"{VISA} was declined"})
    response = await sent_to(world, made(world))
    assert (response.status, reason(response)) == (502, "response_card_number")
    assert orjson.loads(response.body)["outcome"] == "answered"


async def test_the_fields_of_a_response_are_looked_at(world: World) -> None:
    world.wire.answer = Response(302, [(b"Location", f"/cards/{VISA}".encode())], b"")
    assert reason(await sent_to(world, made(world))) == "response_card_number"


async def test_a_response_is_masked(world: World) -> None:
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", f"b={VISA}".encode())]
    world.wire.answer = Response(404, [*cookies, (b"Content-Type", b"application/json")], b'{"n":4242424242424242}')
    response = await sent_to(world, made(world, response="mask"))
    assert (response.status, response.body) == (404, b'{"n":"424242******4242"}')
    assert [value for name, value in response.headers if name == b"Set-Cookie"] == [b"a=1", f"b={MASKED}".encode()]


async def test_a_response_is_asked_for_uncompressed_and_refused_if_it_is_not(world: World) -> None:
    world.wire.answer = Response(200, [(b"Content-Encoding", b"gzip")], b"\x1f\x8b")
    response = await sent_to(world, made(world), headers={"Accept-Encoding": "gzip"})
    assert (response.status, reason(response)) == (502, "response_unreadable")
    assert b"gzip" not in world.wire.heads[0]
    assert b"Accept-Encoding: identity\r\n" in world.wire.heads[0]


async def test_what_a_rule_before_it_replaces_in_a_response_is_spared(world: World) -> None:
    world.wire.answer = answer(200, {"number": VISA})
    response = await sent_to(world, [made(world), world.tokenize(response=[NUMBER])])
    assert response.status == PASSED
    assert orjson.loads(response.body)["number"].startswith("tok_live_")


async def test_a_direction_that_is_off_is_not_looked_at(world: World) -> None:
    world.wire.answer = answer(200, {"n": VISA})
    assert (await sent_to(world, made(world, response="off"))).status == PASSED
    assert (await sent_to(world, made(world, request="off", response="mask"), {"n": VISA})).status == PASSED


# --- Tokens ----------------------------------------------------------------------------------------------------------

TOKEN = re.compile(rb"tok_live_[1-9A-HJ-NP-Za-km-z]{26}")


@pytest.mark.parametrize(
    ("media_type", "body", "sent"),
    [
        (JSON, '{"a" : "x 4242-4242-4242-4242."}', b'{"a" : "x TOKEN."}'),
        (JSON, '{"a":4242424242424242,"b":-4242424242424242.0 }', b'{"a":"TOKEN","b":"TOKEN" }'),
        (FORM, "a=4242+4242+4242+4242&b=%3A", b"a=TOKEN&b=%3A"),
        ("text/csv", f"{VISA};1\n{VISA};2\n", b"TOKEN;1\nTOKEN;2\n"),
        ("application/soap+xml", f'<n a="{VISA}">{VISA}</n>', b'<n a="TOKEN">TOKEN</n>'),
    ],
)
async def test_an_undeclared_number_gives_way_to_its_token(
    world: World, media_type: str, body: str, sent: bytes
) -> None:
    rule = made(world, request="tokenize", response="off")
    assert (await sent_to(world, rule, body.encode(), media_type=media_type)).status == PASSED
    (forwarded,) = world.wire.sent
    tokens = set(TOKEN.findall(forwarded))
    assert TOKEN.sub(b"TOKEN", forwarded) == sent
    assert tokens == {(await world.token(VISA)).encode()}


async def test_each_number_gets_a_token_of_its_own_and_each_of_them_is_revealed(world: World) -> None:
    rule = made(world, request="tokenize", tokens={"format": "6t4"})
    await sent_to(world, rule, {"a": VISA, "b": [AMEX, {"c": "5555555555554444"}]})
    sent = orjson.loads(world.wire.sent.pop())
    await sent_to(
        world, world.reveal(*({"select": path, "class": "pan"} for path in ("$.a", "$.b[0]", "$.b[1].c"))), sent
    )
    assert orjson.loads(world.wire.sent.pop()) == {"a": VISA, "b": [AMEX.replace(" ", ""), {"c": "5555555555554444"}]}


async def test_a_declared_number_beside_an_undeclared_one_keeps_its_own_format(world: World) -> None:
    rules = [world.tokenize({**NUMBER, "format": "6t4"}), made(world, request="tokenize")]
    await sent_to(world, rules, {"number": VISA, "note": VISA})
    sent = orjson.loads(world.wire.sent[0])
    assert (sent["number"][:6], sent["note"][:9]) == ("424242", "tok_live_")


async def test_tokens_are_made_as_the_settings_say(world: World) -> None:
    tokens = {"format": "decorated", "pattern": "x-${token}.${last4}", "dedupe": "none"}
    rule = made(world, request="tokenize", tokens=tokens)
    for _ in range(2):
        await sent_to(world, rule, {"a": VISA})
    first, second = (orjson.loads(body)["a"] for body in world.wire.sent)
    assert first != second
    assert (first[:2], first[-5:]) == ("x-", ".4242")
    assert world.count(Metric.TOKENIZED, "pan", "new") == 2


async def test_an_undeclared_number_of_a_response_of_any_status_gives_way(world: World) -> None:
    for status in (200, 402, 500):
        world.wire.answer = answer(status, {"error": f"{VISA} was declined"})
        response = await sent_to(world, made(world, response="tokenize"))
        assert TOKEN.sub(b"", response.body) == b'{"error":" was declined"}'
        assert (response.status, VISA.encode() in response.body) == (status, False)
    assert world.count(Metric.TOKENIZED, "pan", "response") == 3


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/octet-stream", VISA.encode()),
        ("multipart/form-data; boundary=x", VISA.encode()),
        (JSON, orjson.dumps([orjson.dumps({"n": int(VISA)}).decode()])),
        (JSON, b'["\\u0034242424242424242"]'),
        (JSON, orjson.dumps([base64.b64encode(VISA.encode()).decode()])),
        (FORM, b"n=%34242424242424242"),
        ("text/xml", b"<n>&#52;242424242424242</n>"),
        ("text/plain;charset=utf-16le", VISA.encode("utf-16-le")),
        ("text/plain", b"%b %b" % (VISA.encode(), base64.b64encode(VISA.encode()))),
    ],
)
async def test_where_no_token_can_stand_the_number_is_refused_and_not_kept(
    world: World, media_type: str, body: bytes
) -> None:
    rule = made(world, request="tokenize", response="tokenize")
    assert reason(await sent_to(world, rule, body, media_type=media_type)) == "card_number_found"
    world.wire.answer = answer(200, body, media_type)
    assert reason(await sent_to(world, rule)) == "response_card_number"
    assert world.store.committed == []


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (f"/v1/{VISA}/x", b"/v1/TOKEN/x"),
        (f"/v1/x?a=1&note={VISA}&b=%2F", b"/v1/x?a=1&note=TOKEN&b=%2F"),
        (f"/{VISA}?n=4242-4242-4242-4242&m={VISA}", b"/TOKEN?n=TOKEN&m=TOKEN"),
    ],
)
async def test_a_number_in_the_target_gives_way_to_its_token(world: World, target: str, sent: bytes) -> None:
    assert (await to(world, target, made(world, request="tokenize"), segments={"id": 7})).status == PASSED
    line = world.wire.heads[0].partition(b"\r\n")[0]
    assert TOKEN.sub(b"TOKEN", line) == b"POST " + sent + b" HTTP/1.1"
    assert set(TOKEN.findall(line)) == {(await world.token(VISA)).encode()}


@pytest.mark.parametrize(
    "target",
    [
        f"/v1/cards/{VISA}",
        "/v1/x?note=4242%2D4242%2D4242%2D4242",
        f"/v1/x?note=%7B%22n%22%3A{VISA}%7D",
        f"/v1/x?{base64.b64encode(VISA.encode()).decode()[:-2]}",
    ],
)
async def test_a_number_that_cannot_give_way_in_the_target_is_refused(world: World, target: str) -> None:
    """In a segment that the route names, under escapes, in JSON, in base64."""
    response = await to(world, target, made(world, request="tokenize"), segments={"number": 2})
    assert (reason(response), world.wire.sent, world.store.committed) == ("card_number_found", [], [])


async def test_a_number_in_the_host_is_refused(world: World) -> None:
    exchange = make_exchange(body=b"{}")
    exchange.request.host = f"{VISA}.example"
    placed = [Placed("inspect", made(world, request="tokenize"))]
    response = await Pipeline(placed, world.wire, world.ports, BodyLimits()).run(exchange)
    assert (reason(response), world.wire.sent) == ("card_number_found", [])


async def test_numbers_in_fields_give_way_to_their_tokens(world: World) -> None:
    headers = {"X-Note": f"a {VISA}, b", "X-Json": f'{{"n":{VISA}}}', "User-Agent": "x", "Pangate-Subject": VISA}
    assert (await sent_to(world, made(world, request="tokenize"), headers=headers)).status == PASSED
    head = TOKEN.sub(b"TOKEN", world.wire.heads[0])
    assert b"\r\nX-Note: a TOKEN, b\r\n" in head
    assert b'\r\nX-Json: {"n":"TOKEN"}\r\n' in head
    assert VISA.encode() not in head
    assert (
        reason(await sent_to(world, made(world, request="tokenize"), headers={f"X-{VISA}": "1"})) == "card_number_found"
    )


async def test_numbers_in_fields_of_a_response_give_way_to_their_tokens(world: World) -> None:
    fields = [
        (b"Location", f"/cards/{VISA}".encode()),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=4242-4242-4242-4242"),
    ]
    world.wire.answer = Response(302, fields, b"")
    response = await sent_to(world, made(world, response="tokenize"))
    answered = [(name, TOKEN.sub(b"TOKEN", value)) for name, value in response.headers]
    assert answered == [(b"Location", b"/cards/TOKEN"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=TOKEN")]


async def test_a_number_too_short_for_the_format_is_refused(world: World) -> None:
    rule = made(world, request="tokenize", tokens={"format": "8t4"})
    assert reason(await sent_to(world, rule, {"a": AMEX})) == "card_number_found"
    assert world.wire.sent == []


async def test_a_vault_that_is_down_or_full_lets_nothing_pass(world: World) -> None:
    rule = made(world, request="tokenize", response="tokenize", tokens={"format": "6t4", "dedupe": "none"})
    world.entropy = bytes
    await sent_to(world, rule, {"a": VISA})
    world.wire.sent.clear()
    assert reason(await sent_to(world, rule, {"a": VISA})) == "token_space_exhausted"
    world.store.down = True
    assert reason(await sent_to(world, rule, {"a": VISA})) == "store_unavailable"
    assert world.wire.sent == []
    world.wire.answer = answer(200, {"a": VISA})
    assert reason(await sent_to(world, rule)) == "settle_failed"


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["block", "mask", "tokenize"])
async def test_in_report_all_passes_as_it_is_and_is_counted(world: World, action: str) -> None:
    world.wire.answer = answer(200, {"n": VISA})
    rule = made(world, request=action, response=action, mode="report")
    response = await to(world, f"/v1?n={VISA}", rule, "report")
    assert response.body == orjson.dumps({"n": VISA})
    assert world.count(Metric.BLOCKED, "create-payment", "protect", "card_number_found", "report") == 1
    assert world.count(Metric.BLOCKED, "create-payment", "protect", "response_card_number", "report") == 1


def beside(earlier: tuple[RuleSettings, ...] = (), later: tuple[RuleSettings, ...] = ()) -> Place:
    return Place("route", "policy", 1, "payments", "", egress=False, earlier=earlier, later=later)


def test_it_is_refused_where_it_would_find_what_is_declared(world: World) -> None:
    requests = tokenize.Settings.model_validate({"kind": "tokenize", "fields": [NUMBER]})
    responses = tokenize.Settings.model_validate({"kind": "tokenize", "response": [NUMBER]})
    with pytest.raises(ValueError, match="request: stands before"):
        made(world, beside(later=(requests,)))
    with pytest.raises(ValueError, match="response: responses pass the rules from bottom to top"):
        made(world, beside(earlier=(responses,)))
    made(world, beside(earlier=(requests,), later=(responses,)))
    made(world, beside(later=(requests,)), request="off")
    made(world, beside(earlier=(responses,)), response="off")
    with pytest.raises(ValueError, match="request: stands before"):
        made(world, beside(later=(inspect.Settings(kind="inspect", request="tokenize"),)))
    with pytest.raises(ValueError, match="tokens: say"):
        made(world, tokens={"format": "6t4"})
    with pytest.raises(ValueError, match="both are off"):
        made(world, request="off", response="off")
