"""Who was given which token, and which card it must reveal to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.pure.cards import luhn_valid

TEST_BIN = "424242"
"""The range that payment providers publish for tests: no number in it was ever a card."""


def card(n: int) -> str:
    """The n-th card (n under 10^9) of the test range: 16 digits, Luhn-valid."""
    head = f"{TEST_BIN}{n:09d}"
    return next(head + digit for digit in "0123456789" if luhn_valid(head + digit))


class Ledger:
    """The memory of all who receive tokens. It outlives every gateway."""

    def __init__(self) -> None:
        self.cards: dict[str, int] = {}
        self.tokens: list[str] = []
        self.receipts: Counter[str] = Counter()
        self.wrong: set[str] = set()

    def received(self, witness: str, token: str, n: int) -> None:
        """`witness` read this token where card n had been sent. A token of two cards, or a clear card, is wrong."""
        self.receipts[witness] += 1
        if token not in self.cards:
            self.cards[token] = n
            self.tokens.append(token)
        if self.cards[token] != n or token == card(n):
            self.wrong.add(token)

    def revealed(self, token: str, number: str) -> None:
        """The provider received `number` where this token had been sent."""
        if number != card(self.cards[token]):
            self.wrong.add(token)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a campaign found. `damaged` counts store files that fail SQLite's own integrity check."""

    kills: int = 0
    tokens: int = 0
    lost: int = 0
    wrong: int = 0
    damaged: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.kills + other.kills,
            self.tokens + other.tokens,
            self.lost + other.lost,
            self.wrong + other.wrong,
            self.damaged + other.damaged,
        )

    @property
    def harm(self) -> int:
        return self.lost + self.wrong + self.damaged
