"""Whose token a card has, and what is told of its expiry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from gateway.operations import LookUpToken, PutToken
from gateway.rule import Rule
from tests.rules.vault import FORM, World, reason

VISA, MASTERCARD = "4242424242424242", "5555555555554444"
NUMBER = {"select": "$.n", "class": "pan"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def token(world: World, rule: Rule, **body: Any) -> str:
    return str((await world.sent_by(rule, {"n": VISA, **body}))["n"])


async def told(world: World, name: str) -> str | None:
    """The expiry that the vault knows of a token."""
    ask = LookUpToken("default", name)
    (found,) = (await world.store.commit([ask]))[ask].tokens
    return found.expiry


# --- Merchants -------------------------------------------------------------------------------------------------------


async def test_a_card_has_one_token_at_a_merchant_and_another_at_the_next(world: World) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="$.shop")
    first, second, again = [await token(world, rule, shop=shop) for shop in ("a", "b", "a")]
    assert first == again != second
    assert await world.token(VISA) not in (first, second)
    assert [put.merchant for put in world.store.of(PutToken)] == ["a", "b", "a", None]


async def test_requests_of_one_merchant_at_once_get_one_token(world: World) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="$.shop")
    bodies = [{"n": VISA, "shop": shop} for shop in "ab" * 20]
    await asyncio.gather(*(world.call(rule, body) for body in bodies))
    sent = [orjson.loads(body) for body in world.wire.sent]
    assert len({(body["shop"], body["n"]) for body in sent}) == 2
    assert len({body["n"] for body in sent}) == 2


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("header:X-Shop", {"headers": {"X-Shop": "7"}}),
        ("query:shop", {"target": "/v1/cards/c/charges?shop=7"}),
        ("path:shop", {"params": {"shop": "7"}}),
        ("$.shop", {}),
    ],
)
async def test_the_merchant_is_found_at_its_place(world: World, place: str, call: dict[str, Any]) -> None:
    settings = {"dedupe": "merchant", "merchant": place}
    rule = world.tokenize(NUMBER, **settings)
    assert (await world.call(rule, {"n": VISA, "shop": 7}, **call)).status == 200
    assert [put.merchant for put in world.store.of(PutToken)] == ["7"]


async def test_where_another_rule_has_replaced_the_segment_no_merchant_is_named(world: World) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="path:shop")
    assert reason(await world.call(rule, {"n": VISA})) == "field_required"


@pytest.mark.parametrize(
    "body", [{}, {"shop": ""}, {"shop": None}, {"shop": True}, {"shop": "a\0"}, {"shop": "a" * 256}]
)
async def test_a_request_that_names_no_merchant_is_refused(world: World, body: dict[str, Any]) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="$.shop")
    response = await world.call(rule, {"n": VISA, **body})
    assert (response.status, reason(response)) == (422, "field_required")
    assert "$.shop" in orjson.loads(response.body)["detail"]
    assert (world.wire.sent, world.store.committed) == ([], [])


@pytest.mark.parametrize("name", [VISA, int(VISA), "4242 4242 4242 4242", f"shop {MASTERCARD}"])
async def test_a_card_number_is_no_merchant_and_reaches_no_store(world: World, name: Any) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="$.shop")
    response = await world.call(rule, {"n": VISA, "shop": name})
    assert (response.status, reason(response)) == (422, "field_invalid")
    assert "$.shop" in orjson.loads(response.body)["detail"]
    assert str(name).encode() not in response.body
    assert (world.wire.sent, world.store.committed) == ([], [])


async def test_two_merchants_are_none(world: World) -> None:
    rule = world.tokenize(NUMBER, dedupe="merchant", merchant="$.shops[*]")
    assert reason(await world.call(rule, {"n": VISA, "shops": ["a", "b"]})) == "field_required"


async def test_the_numbers_of_an_answer_are_the_merchants_too(world: World) -> None:
    settings = {"dedupe": "merchant", "merchant": "header:X-Shop"}
    rule = world.tokenize(response=[{"select": "header:X-Card"}], **settings)
    answers = []
    for shop in "aba":
        world.wire.answer.headers[:] = [(b"X-Card", VISA.encode())]  # type: ignore[union-attr]
        response = await world.call(rule, b"", method="GET", headers={"X-Shop": shop})
        answers.append(response.header(b"x-card"))
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.parametrize(
    "settings",
    [{"dedupe": "merchant"}, {"merchant": "$.shop"}, {"dedupe": "merchant", "merchant": "$.n"}],
)
def test_a_merchant_and_its_place_belong_together(world: World, settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="merchant"):
        world.tokenize(NUMBER, **settings)


# --- Expiries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("$.exp", {"exp": "12/30"}),
        ("$.exp", {"exp": 1230}),
        ("$.exp", {"exp": "2030-12"}),
        (["$.month", "$.year"], {"month": 12, "year": 2030}),
        (["$.month", "$.year"], {"month": "12", "year": "30"}),
    ],
)
async def test_the_expiry_is_known_of_the_token(world: World, place: Any, body: dict[str, Any]) -> None:
    rule = world.tokenize({**NUMBER, "expiry": place})
    sent = await world.sent_by(rule, {"n": VISA, **body})
    assert {name: sent[name] for name in body} == body
    assert await told(world, sent["n"]) == "2030-12"


async def test_a_card_with_a_new_expiry_keeps_its_token_which_knows_the_new_one(world: World) -> None:
    rule = world.tokenize({**NUMBER, "expiry": "$.exp"})
    first = await token(world, rule, exp="12/30")
    assert await token(world, rule, exp="01/35") == first
    assert await told(world, first) == "2035-01"
    assert await token(world, rule) == first
    assert await told(world, first) == "2035-01"


async def test_an_expiry_in_a_form_is_found(world: World) -> None:
    rule = world.tokenize({"select": "card[number]", "class": "pan", "expiry": ["card[m]", "card[y]"]})
    await world.call(rule, b"card[number]=4242424242424242&card[m]=1&card[y]=31", media_type=FORM)
    assert [put.expiry for put in world.store.of(PutToken)] == ["2031-01"]


@pytest.mark.parametrize("exp", ["13/30", "soon", "", "12/1999", ["12/30", "01/31"]])
async def test_what_is_no_expiry_is_refused_by_the_name_of_its_place(world: World, exp: Any) -> None:
    place = "$.exp[*]" if isinstance(exp, list) else "$.exp"
    response = await world.call(world.tokenize({**NUMBER, "expiry": place}), {"n": VISA, "exp": exp})
    assert (response.status, reason(response)) == (422, "field_invalid")
    assert place in orjson.loads(response.body)["detail"]
    assert (world.wire.sent, world.store.committed) == ([], [])


async def test_the_expiry_of_one_card_is_never_taken_for_that_of_another(world: World) -> None:
    rule = world.tokenize({"select": "$.cards[*].n", "class": "pan", "expiry": "$.cards[*].exp"})
    response = await world.call(rule, {"cards": [{"n": VISA, "exp": "12/30"}, {"n": MASTERCARD}]})
    assert reason(response) == "field_invalid"


def test_codes_have_no_expiry(world: World) -> None:
    with pytest.raises(ValidationError, match="expiry"):
        world.tokenize({"select": "$.c", "class": "cvc", "expiry": "$.exp"})
