"""What the peers written in Python do to a body: card data goes, tokens come. Needs orjson and nothing else."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

Card = tuple[str, str]
"""A token and the card number that it stands for."""

_DIGITS = range(12, 20)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


class NotACardError(ValueError):
    """A body that must not be forwarded: no JSON object with a card, or a number that is no card's."""


def replace_card(body: bytes) -> tuple[bytes, Card | None]:
    """Replace `$.card.number` and `$.card.cvc`, where present, by random tokens. The card is None without a number.

    Raises NotACardError.
    """
    try:
        document: Any = orjson.loads(body)
        card = document["card"]
        number, code = card.get("number"), card.get("cvc")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise NotACardError from error
    replaced = None
    if number is not None:
        if not _is_card_number(number):
            raise NotACardError
        card["number"] = token = "tok_live_" + secrets.token_hex(16)
        replaced = token, number
    if code is not None:
        card["cvc"] = "cvc_live_" + secrets.token_hex(16)
    return orjson.dumps(document), replaced


def _is_card_number(number: object) -> bool:
    return (
        isinstance(number, str)
        and len(number) in _DIGITS
        and number.isascii()
        and number.isdigit()
        and luhn_valid(number)
    )


def luhn_valid(digits: str) -> bool:
    values = [ord(digit) - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0
