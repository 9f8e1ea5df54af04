"""The checker sees what it is there to see."""

from __future__ import annotations

from gateway.pure.cards import luhn_valid
from tests.faults.ledger import TEST_BIN, Ledger, card


def test_cards_are_distinct_valid_numbers_of_the_test_range() -> None:
    cards = {card(n) for n in range(2_000)}
    assert len(cards) == 2_000
    assert all(len(number) == 16 and number.startswith(TEST_BIN) and luhn_valid(number) for number in cards)


def test_one_token_of_one_card_is_right_however_often_it_is_seen() -> None:
    ledger = Ledger()
    for witness in ("client", "shop", "client"):
        ledger.received(witness, "tok", 7)
    ledger.revealed("tok", card(7))
    assert (ledger.tokens, ledger.cards, ledger.wrong) == (["tok"], {"tok": 7}, set())


def test_a_token_that_stands_for_two_cards_is_wrong() -> None:
    ledger = Ledger()
    ledger.received("client", "tok", 7)
    ledger.received("shop", "tok", 8)
    assert ledger.wrong == {"tok"}


def test_a_card_in_a_token_s_place_is_wrong() -> None:
    ledger = Ledger()
    ledger.received("shop", card(7), 7)
    assert ledger.wrong == {card(7)}


def test_a_token_that_reveals_to_another_card_is_wrong() -> None:
    ledger = Ledger()
    ledger.received("client", "tok", 7)
    ledger.revealed("tok", card(8))
    assert ledger.wrong == {"tok"}
