"""Card data is replaced and revealed in bodies of every kind, and nothing else in them changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway.operations import PutToken, RevealTokens
from gateway.pure.body import compile_selector, parse
from gateway.pure.cards import luhn_valid
from gateway.rule import Rule
from tests.rules.vault import ALL_FORMATS, FORM, JSON, World, answer, reason

VISA = "4242424242424242"
MASTERCARD = "5555555555554444"
XML = "application/xml"
PARTS = "multipart/form-data; boundary=x"
PAGE = (
    (Path(__file__).parents[2] / "docs" / "reference" / "tokenize.md")
    .read_text(encoding="utf-8")
    .partition("## Bodies")[2]
)


class Shape(NamedTuple):
    """A body with two card numbers and a code in place of each `%s`, and how these are selected."""

    media_type: str
    number: str
    code: str
    body: str

    def fields(self, **more: Any) -> list[dict[str, Any]]:
        return [{"select": self.number, "class": "pan", **more}, {"select": self.code, "class": "cvc"}]


_CARD_PART = (
    '--x\r\nContent-Disposition: form-data; name="card[]"\r\nContent-Type: application/json\r\n\r\n{"number": "%s"}\r\n'
)
SHAPES = {
    "json": Shape(
        JSON, "$..number", "$.cvc", ' {"cards": [{"number":"%s"} , {"number":"%s"}], "cvc": "%s", "n": 1.0}\n'
    ),
    "form": Shape(FORM, "card[number]", "cvc", "card%%5Bnumber%%5D=%s&card[number]=%s&cvc=%s&n=%%2f"),
    "xml": Shape(
        XML, "//number", "//@cvc", "<a>\r\n<number>%s</number ><b><number><![CDATA[%s]]></number></b><c cvc='%s'/></a>"
    ),
    "multipart": Shape(
        PARTS,
        "part:card[]:$.number",
        "part:cvc",
        _CARD_PART + _CARD_PART + '--x\r\nContent-Disposition: form-data; name="cvc"\r\n\r\n%s\r\n'
        '--x\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n\n4\r\r\n--x--\r\n',
    ),
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def sent(world: World, rule: Rule, body: str, media_type: str) -> str:
    response = await world.call(rule, body.encode(), media_type=media_type)
    assert response.status == 200, response.body
    return world.wire.sent.pop().decode()


# --- The examples of the page ----------------------------------------------------------------------------------------

EXAMPLES = re.findall(
    r"^```yaml\n(rules:.*?)^```\n+^```http\n(.*?)^```\n+^```http\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
_TOKEN = re.compile(r"(pan|tok|cvc)_live_[1-9A-Za-z]{26}")


def message(written: str) -> tuple[str, str]:
    head, _, body = written.partition("\n\n")
    media_type = head.removeprefix("Content-Type: ")
    body = body.removesuffix("\n")
    return media_type, (body.replace("\n", "\r\n") + "\r\n" if media_type.startswith("multipart") else body)


def test_the_page_has_an_example_of_every_kind_of_body() -> None:
    types = [message(before)[0].partition(";")[0] for _, before, _ in EXAMPLES]
    assert types == [JSON, FORM, XML, "application/soap+xml", "multipart/form-data"]


@pytest.mark.parametrize(("policy", "before", "after"), EXAMPLES)
async def test_an_example_of_the_page_is_what_happens(world: World, policy: str, before: str, after: str) -> None:
    rule = YAML(typ="safe", pure=True).load(policy)["rules"][0]
    fields, namespaces = rule["fields"], rule.get("namespaces", {})
    media_type, body = message(before)
    tokenized = await sent(world, world.tokenize(*fields, namespaces=namespaces), body, media_type)
    assert _TOKEN.sub(r"\1", tokenized) == _TOKEN.sub(r"\1", message(after)[1])
    selected = [{"select": field["select"], "class": field["class"]} for field in fields]
    revealed = await sent(world, world.reveal(*selected, namespaces=namespaces), tokenized, media_type)
    for field in fields:
        selector = compile_selector(field["select"], tuple(namespaces.items()))
        first, last = (parse(media_type, text.encode()).select(selector) for text in (body, revealed))
        assert [match.value for match in last] == [match.value.replace(" ", "") for match in first] != []
    assert await sent(world, world.tokenize(*fields, namespaces=namespaces), tokenized, media_type) == tokenized


# --- There and back --------------------------------------------------------------------------------------------------

numbers = st.text("0123456789", min_size=15, max_size=18).map(
    lambda body: next("4" + body[1:] + check for check in "0123456789" if luhn_valid("4" + body[1:] + check))
)


@pytest.mark.parametrize("kind", SHAPES)
@given(
    pans=st.tuples(numbers, numbers),
    code=st.from_regex("[0-9]{3,4}", fullmatch=True),
    made=st.sampled_from(ALL_FORMATS),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_revealing_what_was_tokenized_gives_the_bytes_that_were_there(
    tmp_path: Path, kind: str, pans: tuple[str, str], code: str, made: str
) -> None:
    async def there_and_back() -> None:
        world, shape = World(tmp_path), SHAPES[kind]
        body = shape.body % (*pans, code)
        tokenize = world.tokenize(*shape.fields(format=made))
        tokenized = await sent(world, tokenize, body, shape.media_type)
        again = await sent(world, tokenize, tokenized, shape.media_type)
        revealed = await sent(world, world.reveal(*shape.fields()), tokenized, shape.media_type)
        await world.store.close()
        outside = re.escape(shape.body % ("@", "@", "@")).replace("@", "([A-Za-z0-9_-]+)")
        found = re.fullmatch(outside, tokenized)
        assert found is not None
        assert not {*found.groups()} & {*pans, code}
        assert (again, revealed) == (tokenized, body)

    asyncio.run(there_and_back())


@pytest.mark.parametrize("kind", SHAPES)
async def test_values_are_masked_and_taken_out_of_every_kind_of_body(world: World, kind: str) -> None:
    shape = SHAPES[kind]
    rule = world.redact({"select": shape.number, "operation": "mask"}, {"select": shape.code})
    stars = ("%2A" if kind == "form" else "*") * 6
    expected = shape.body % (f"424242{stars}4242", f"555555{stars}4444", "redacted")
    assert await sent(world, rule, shape.body % (VISA, MASTERCARD, "123"), shape.media_type) == expected


async def test_what_is_empty_in_xml_can_be_filled_in(world: World) -> None:
    rule = world.redact({"select": "//*:code"}, {"select": "//*:code/@*"})
    assert await sent(world, rule, "<a><code k=''/><code xmlns='urn:x'></code></a>", XML) == (
        "<a><code k='redacted'>redacted</code><code xmlns='urn:x'>redacted</code></a>"
    )


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("other", SHAPES)
async def test_a_rule_takes_the_kinds_of_body_that_it_selects_in_and_no_others(
    world: World, kind: str, other: str
) -> None:
    shape, body = SHAPES[kind], SHAPES[other]
    response = await world.call(
        world.tokenize(*shape.fields()), (body.body % (VISA, VISA, "123")).encode(), media_type=body.media_type
    )
    assert response.status == (200 if kind == other else 415)
    assert len(world.wire.sent) == (kind == other)


@pytest.mark.parametrize("kind", SHAPES)
async def test_one_value_that_is_no_card_data_refuses_all_by_the_name_of_its_selector(world: World, kind: str) -> None:
    shape = SHAPES[kind]
    for values in ((VISA, "4242424242424241", "123"), (VISA, VISA, "12345")):
        for rule in (world.tokenize(*shape.fields()), world.reveal(*shape.fields())):
            response = await world.call(rule, (shape.body % values).encode(), media_type=shape.media_type)
            assert response.status == 422
            assert b"4242" not in response.body
            assert b"12345" not in response.body
            assert (shape.number if values[2] == "123" else shape.code) in orjson.loads(response.body)["detail"] or (
                "never the card data" in orjson.loads(response.body)["detail"]
            )
    assert world.wire.sent == []
    assert world.store.of(PutToken) == world.store.of(RevealTokens) == []


@pytest.mark.parametrize(
    ("media_type", "body", "status", "why"),
    [
        (XML, "<!DOCTYPE a [<!ENTITY n '4242424242424242'>]><a><number>&n;</number></a>", 400, "body_malformed"),
        (XML, "<a><number>4242<!-- -->424242424242</number></a>", 422, "field_invalid"),
        (XML, "<a><number>4242<b/>424242424242</number></a>", 422, "field_invalid"),
        (XML, "<a><number>4242424242424242</number></a><a/>", 400, "body_malformed"),
        ("application/xml; charset=utf-16", "<a/>", 415, "media_type_unsupported"),
        ("text/html", "<a/>", 415, "media_type_unsupported"),
    ],
)
async def test_what_hides_a_number_from_one_reader_is_refused(
    world: World, media_type: str, body: str, status: int, why: str
) -> None:
    rule = world.tokenize({"select": "//number", "class": "pan"})
    response = await world.call(rule, body.encode(), media_type=media_type)
    assert (response.status, reason(response), world.wire.sent) == (status, why, [])


async def test_a_code_that_xml_cannot_say_is_not_revealed_there(world: World) -> None:
    lenient = world.tokenize({"select": "$.c", "class": "cvc"}, cvc="any")
    token = (await world.sent_by(lenient, {"c": "a\x01b"}))["c"]
    rule = world.reveal({"select": "/c", "class": "cvc"})
    response = await world.call(rule, f"<c>{token}</c>".encode(), media_type=XML)
    assert (response.status, reason(response), world.wire.sent) == (422, "field_invalid", [])
    assert await world.sent_by(world.reveal({"select": "$.c", "class": "cvc"}), {"c": token}) == {"c": "a\x01b"}


# --- Responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "xml", "multipart"])
@pytest.mark.parametrize("status", [200, 402, 500])
async def test_numbers_in_answers_of_every_status_are_replaced(world: World, kind: str, status: int) -> None:
    shape = SHAPES[kind]
    world.wire.answer = answer(status, (shape.body % (VISA, "not a number", "123")).encode(), shape.media_type)
    rule = world.tokenize(response=[{"select": shape.number, "class": "pan", "format": "t4"}])
    response = await world.call(rule, b"", method="GET")
    assert response.status == status
    found = re.search(rb"[0-9]{12}4242", response.body)
    assert found is not None
    assert found[0] != VISA.encode()
    assert response.body.replace(found[0], VISA.encode()) == (shape.body % (VISA, "not a number", "123")).encode()


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (XML, b"<a><number>4242424242424242</number>"),
        (XML, b"<!DOCTYPE a><a/>"),
        (JSON, b'{"number": "4242424242424242"}'),
        ("text/plain", b"4242424242424242"),
    ],
)
async def test_an_answer_that_cannot_be_read_as_the_rule_selects_is_held_back(
    world: World, media_type: str, body: bytes
) -> None:
    world.wire.answer = answer(200, body, media_type)
    rule = world.tokenize(response=[{"select": "//number", "class": "pan"}])
    response = await world.call(rule, b"", method="GET")
    assert (response.status, reason(response)) == (502, "response_unreadable")
    assert b"4242" not in response.body
