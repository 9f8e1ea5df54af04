"""Sensitive authentication data (PCI DSS 3.3.1): security codes, full track data, PINs. What each looks like.

A value of such a class is held in memory alone, for one use; its token is opaque.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

SadClass = Literal["cvc", "track", "pin"]


_TRACK_1 = r"%?[A-Z][0-9]{12,19}\^[^^?]{2,26}\^[0-9A-Za-z^ -]{4,40}(?:\?.?)?"
_TRACK_2 = r";?[0-9]{12,19}[=D][0-9]{4,24}F?(?:\?.?)?"
"""Sentinels and the check character may have been left out by the reader; a packed track 2 has D and F for = and ?."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`name` is what a person calls it, `expected` what has to be sent."""

    name: str
    expected: str
    pattern: re.Pattern[str]


SHAPES: Final[Mapping[str, Shape]] = {
    "cvc": Shape("security code", "3 or 4 digits", re.compile(r"[0-9]{3,4}")),
    "track": Shape(
        "track",
        "track 1 or 2 as it was read (ISO/IEC 7813)",
        re.compile(f"{_TRACK_1}|{_TRACK_2}"),
    ),
    "pin": Shape(
        "PIN",
        "4 to 12 digits or a PIN block in hexadecimal (ISO 9564-1)",
        re.compile(r"[0-9]{4,12}|[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}"),
    ),
}
"""By class."""


def is_sensitive(token_class: str) -> bool:
    """Is it a class that no disk may ever hold?"""
    return token_class in SHAPES


def looks_like(token_class: str, text: str) -> bool:
    """Could `text` be a value of this sensitive class?"""
    return SHAPES[token_class].pattern.fullmatch(text) is not None
