"""The last line of defence of the log: texts without what looks like a card number."""

from __future__ import annotations

import re

from gateway.pure.card_scan import Scanner, TooManyNumbers
from gateway.pure.cards import luhn_valid

_RUN = re.compile(r"[0-9](?:[ -]?[0-9]){11,}")
_GROUP = re.compile(r"[0-9]+")
_DIGIT = re.compile(rb"[0-9]")
_SHORTEST, _LONGEST = 12, 19
_TWELVE = re.compile(r"[0-9](?:[^0-9]{0,3}[0-9]){11}")
_WORD = re.compile(r"[A-Za-z0-9]{16}")
"""As long as twelve digits in base64."""
_SCANNER = Scanner(unless_named=())
_LEFT_OUT = "[left out: it may hold a card number]"


def redact(text: str) -> str:
    """The text with `*` for the digits of each possible card number.

    That is: 12 to 19 digits whose check digit fits, written in one group or in groups with single spaces or dashes
    between them; of any network or none, unlike what `card_scan` takes for one, for a log loses little by it. What that
    finds besides is hidden too, and a text that holds one under escapes or in base64 is left out as a whole. Takes time
    proportional to the text.
    """
    if len(text) < _SHORTEST or not (
        _TWELVE.search(text) is not None
        or _WORD.search(text) is not None
        or "%" in text
        or "\\u00" in text
        or "&#" in text
    ):
        return text
    return _searched(_RUN.sub(lambda run: _redact_run(run[0]), text))


def _searched(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    hidden = bytearray(data)
    try:
        for found in _SCANNER.scan(data):
            if not found.in_clear:
                return _LEFT_OUT
            hidden[found.start : found.end] = _DIGIT.sub(b"*", data[found.start : found.end])
    except TooManyNumbers:
        return _LEFT_OUT
    return hidden.decode("utf-8", "surrogatepass")


def _redact_run(run: str) -> str:
    """A run may hold other numbers beside the card's (a date before it): try all groups that stand together."""
    groups = [(group.start(), group.end()) for group in _GROUP.finditer(run)]
    hidden = [False] * len(groups)
    for first in range(len(groups)):
        digits = ""
        for last in range(first, len(groups)):
            digits += run[groups[last][0] : groups[last][1]]
            if len(digits) > _LONGEST:
                break
            if len(digits) >= _SHORTEST and luhn_valid(digits):
                hidden[first : last + 1] = [True] * (last + 1 - first)
    for (start, end), hide in zip(groups, hidden, strict=True):
        if hide:
            run = run[:start] + "*" * (end - start) + run[end:]
    return run
