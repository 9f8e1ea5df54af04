"""The rows about the vault: their goals, and that what is timed is the whole work and nothing but it."""

from __future__ import annotations

from pathlib import Path

import orjson

from bench.backend import answer_with
from bench.micro import world
from bench.rows import vault
from bench.stage import payment
from gateway.ports import settled
from gateway.pure.cards import luhn_valid
from gateway.rules.tokenize import Settings, Tokenize
from tests.conftest import make_exchange

FOUND = {
    "one": [10.0, 20.0, 30.0],
    "many": [1_000.0, 1_600.0, 1_700.0],
    "rate": [1_000.0, 2_500.0, 3_000.0],
    "busy": [0.9, 0.8, 1.0],
    "revealed": [1_100.0, 6_100.0, 1_300.0],
    "direct": [100.0, 5_000.0, 100.0],
}


def test_the_goals_are_those_that_were_set() -> None:
    rows = {row.name: row for row in vault.rows(FOUND)}
    assert {name: (row.goal, row.met) for name, row in rows.items()} == {
        "tokenize_one": ("at most 20", True),
        "tokenize_many": ("at most 1500", False),
        "token_rate": ("at least 2000", True),
        "reveal_latency": ("at most 1500", True),
    }
    assert rows["reveal_latency"].value == 1_100, "the median of each round's own difference"


def test_a_hundred_different_cards_are_in_64_kibibytes() -> None:
    body = vault.many_cards()
    cards = [each["number"] for each in orjson.loads(body)["cards"]]
    assert (len(body), len(set(cards))) == (64 * 1024, 100)
    assert all(map(luhn_valid, cards))


async def test_what_is_timed_is_a_body_with_its_token(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        fields = [{"select": "$.card.number", "class": "pan"}]
        settings = Settings.model_validate({"kind": "tokenize", "fields": fields})
        rule = Tokenize.provision(settings, made.ports, vault._PLACE)
        exchange = make_exchange(headers={"Content-Type": "application/json"}, tenant="bench")
        exchange.body = payment()
        exchange.ring = await settled(made.ports.keys.ring("bench"))
        done = await vault.tokenized(rule, exchange)
        assert await vault.microseconds(made, payment(), "$.card.number", 2) > 0
    before, after = orjson.loads(payment()), orjson.loads(done)
    assert after.pop("card")["number"].startswith("tok_live_")
    assert before.pop("card") is not None
    assert after == before


def test_only_the_card_itself_is_the_right_answer_of_a_reveal() -> None:
    head, _, body = answer_with(payment()).partition(b"\r\n\r\n")
    assert vault.is_paid(head, body)
    assert not vault.is_paid(head, body.replace(b"4242424242424242", b"tok_live_x"))
    assert not vault.is_paid(head.replace(b"201", b"200"), body)
