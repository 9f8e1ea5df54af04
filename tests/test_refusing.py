"""What was refused to a caller of a known name is on record; nobody fills the disk with it, and no number is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.services import CallerOf
from gateway.operations import DeleteToken, RecordAudit
from gateway.pure.audit import Entry, token_digest
from gateway.pure.boundaries import Boundaries
from gateway.refusing import Refusals
from gateway.rule import Rule
from tests.rules.vault import World, reason

VISA = "4242424242424242"
NUMBER = {"select": "$.card.number", "class": "pan"}
CODE = {"select": "$.card.cvc", "class": "cvc"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


def refusals(world: World) -> list[Entry]:
    entries = [entry for record in world.store.of(RecordAudit) for entry in record.entries]
    return [entry for entry in entries if entry.event == "refused"]


async def asks(world: World, number: Any, rule: Rule | None = None, **slots: Any) -> str:
    rule = rule or world.reveal(NUMBER, CODE, purpose="charge")
    return reason(await world.call(rule, {"card": {"number": number}}, **slots))


async def test_a_token_that_the_tenant_does_not_have_is_refused_on_record(world: World) -> None:
    token = await world.token(VISA, "6t4", tenant="rival")
    assert await asks(world, token) == "card_token_unknown"
    (entry,) = refusals(world)
    assert (entry.principal, entry.origin, entry.exchange) == (
        *("spiffe://shop.example/checkout", "192.0.2.7"),
        world.exchange.id,
    )
    assert (entry.route, entry.destination, entry.purpose) == ("create-payment", "stripe", "charge")
    assert entry.outcome == "card_token_unknown"
    assert entry.token == token_digest(token, world.keys.mac("default", "audit"))


async def test_a_deleted_token_is_refused_on_record(world: World) -> None:
    token = await world.token(VISA)
    await world.store.commit([DeleteToken("default", token, 0.0)])
    assert await asks(world, token) == "card_token_deleted"
    assert [entry.outcome for entry in refusals(world)] == ["card_token_deleted"]


async def test_a_class_that_the_caller_may_not_have_revealed_is_refused_on_record(world: World) -> None:
    token = await world.token(VISA)
    assert await asks(world, token, revealable=frozenset({"cvc"})) == "card_token_not_allowed"
    assert await asks(world, await world.code("123")) == "card_token_not_allowed"
    assert [entry.outcome for entry in refusals(world)] == ["card_token_not_allowed"] * 2
    assert refusals(world)[0].token == token_digest(token, world.keys.mac("default", "audit"))


async def test_a_token_where_the_route_reveals_none_is_refused_on_record(world: World) -> None:
    token = await world.token(VISA)
    assert await asks(world, token, headers={"X-Other": "{{" + token + "}}"}) == "card_token_not_allowed"
    assert [entry.token for entry in refusals(world)] == [None]


@pytest.mark.parametrize("sent", [VISA, "4242 4242 4242 4242", f"tok {VISA}", "x" * 100])
async def test_of_what_may_be_a_card_number_there_is_not_even_a_digest(world: World, sent: str) -> None:
    await asks(world, sent)
    assert [entry.token for entry in refusals(world)] == [None]
    assert VISA not in repr(refusals(world))


async def test_a_flood_of_refusals_fills_a_few_places_and_says_how_large_it_was(world: World) -> None:
    rule = world.reveal(NUMBER, CODE)
    for _ in range(100):
        await asks(world, "tok_none", rule)
    outcomes = [entry.outcome for entry in refusals(world)]
    assert outcomes == ["card_token_unknown"] * 16 + [f"card_token_unknown, {n} in an hour" for n in (32, 64)]
    await asks(world, "tok_none", rule, sans=("spiffe://shop.example/another",))
    assert len(refusals(world)) == 19
    world.clock.advance(3600)
    await asks(world, "tok_none", rule)
    assert refusals(world)[-1].outcome == "card_token_unknown"


async def test_a_caller_without_a_name_leaves_nothing(world: World) -> None:
    assert await asks(world, "tok_none", sans=()) == "card_token_unknown"
    assert refusals(world) == []


async def test_what_cannot_be_recorded_is_refused_all_the_same_and_logged(world: World) -> None:
    world.store.down = True
    assert await asks(world, "tok_none") == "card_token_unknown"
    assert "refusal_not_recorded" in repr(world.telemetry.lines)


async def test_what_is_no_attempt_to_reveal_is_not_recorded(world: World) -> None:
    assert reason(await world.call(world.reveal({**NUMBER, "required": True}), {"card": {}})) == "field_required"
    assert reason(await world.call(world.reveal(NUMBER), b"{")) == "body_malformed"
    assert world.store.committed == []


async def test_a_service_that_calls_a_revealing_route_undeclared_is_refused_on_record(world: World) -> None:
    rule = CallerOf(Boundaries((), ()), Refusals(world.ports, "stripe"))
    assert await asks(world, "tok_none", rule) == "caller_not_allowed"
    (entry,) = refusals(world)
    assert (entry.outcome, entry.destination, entry.token) == ("caller_not_allowed", "stripe", None)


async def test_a_service_that_calls_another_route_undeclared_is_refused(world: World) -> None:
    assert await asks(world, "tok_none", CallerOf(Boundaries((), ()))) == "caller_not_allowed"
    assert world.store.committed == []
