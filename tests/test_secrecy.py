"""No card data in what is printed of an exchange, in what is answered, or in what is logged of a mistake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.exchange import Exchange
from gateway.ports import Response
from gateway.pure.tokens import opaque
from gateway.rule import PASS, Rule, Stage, Verdict
from tests.conftest import make_exchange
from tests.rules.vault import World

VISA, CODE = "4242424242424242", "98765432"
NUMBER = {"select": "$.card.number", "class": "pan"}
CVC = {"select": "$.card.cvc", "class": "cvc"}


# --- mistakes --------------------------------------------------------------------------------------------------------


class Stumbles(Rule):
    """Breaks off where it is told to, with all that it can see in its hands."""

    stage = Stage.PAYMENT
    reads_request = True

    def __init__(self, where: str) -> None:
        self.where = where

    def _stumble(self, where: str, exchange: Exchange) -> Verdict:
        body, edits, fresh = exchange.body, exchange.edits, exchange.fresh_sad
        if where == self.where:
            raise RuntimeError(f"{body!r} {[edit.text for edit in edits]} {fresh!r} {VISA} {CODE}")
        return PASS

    def on_request(self, exchange: Exchange) -> Verdict:
        exchange.unit += ()
        return self._stumble("on_request", exchange)

    def on_response(self, exchange: Exchange) -> Verdict:
        return self._stumble("on_response", exchange)

    def on_finish(self, exchange: Exchange) -> None:
        self._stumble("on_finish", exchange)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.store.close()


async def tokenized(world: World, where: str) -> Response:
    body = {"card": {"number": VISA, "cvc": CODE}}
    return await world.call([world.tokenize(NUMBER, CVC, cvc="any"), Stumbles(where)], body)


async def revealed(world: World, where: str) -> Response:
    token = await world.token(VISA)
    code = opaque("cvc", "live", b"c" * 16, world.keys.keyed("default", "token"))
    await world.sad.put("default", code, CODE.encode(), 60.0)
    return await world.call([world.reveal(NUMBER, CVC), Stumbles(where)], {"card": {"number": token, "cvc": code}})


def assert_silent(world: World, response: Response) -> None:
    told = repr((response, response.headers, response.body, world.telemetry.lines, world.telemetry.counts))
    assert VISA not in told
    assert CODE not in told


@pytest.mark.parametrize("act", [tokenized, revealed])
@pytest.mark.parametrize("where", ["on_request", "on_response", "on_finish"])
async def test_a_rule_that_breaks_off_with_card_data_in_its_hands_tells_nobody(
    world: World, act: Callable[[World, str], Any], where: str
) -> None:
    response = await act(world, where)
    assert any(str(line["event"]).endswith("crashed") for line in world.telemetry.lines)
    assert_silent(world, response)


@pytest.mark.parametrize(
    ("act", "port", "name"),
    [
        (tokenized, "sad", "put"),
        (revealed, "keys", "open"),
        (revealed, "sad", "lease"),
        (revealed, "sad", "erase"),
    ],
)
async def test_a_port_that_quotes_what_it_was_given_is_not_quoted(
    world: World, monkeypatch: pytest.MonkeyPatch, act: Callable[[World, str], Any], port: str, name: str
) -> None:

    def quoting(*values: Any) -> Any:
        raise ValueError(f"cannot use {VISA}, {CODE} and {values}")

    monkeypatch.setattr(getattr(world, port), name, quoting)
    response = await act(world, "nowhere")
    assert any(str(line["event"]).endswith("crashed") for line in world.telemetry.lines)
    assert_silent(world, response)


def test_an_exchange_is_printed_without_what_it_carries() -> None:
    exchange = make_exchange(
        target=f"/v1/{VISA}?card={VISA}", headers={"X-Card": VISA, "Content-Type": "application/json"}, body=b"{}"
    )
    exchange.body = b'{"number":"%s"}' % VISA.encode()
    exchange.document()
    exchange.fresh_sad.append(("cvc_token", CODE.encode()))
    assert_not_printed(exchange)


def assert_not_printed(value: object) -> None:
    assert VISA not in repr(value)
    assert CODE not in repr(value)
