"""Bodies that rules read: parsed strictly, addressed by selector, replaced in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Match:
    """A value found by a selector: bytes `start` to `end` of the body are its spelling, quotes included.

    `value` is the decoded text (a JSON string, or a number as it is written); `encode` spells a text the way this
    place of the body needs it.
    """

    start: int
    end: int
    value: str = field(repr=False)
    encode: Callable[[str], bytes]


class Selector(Protocol):
    """A compiled path: RFC 9535 (`$.card.number`) for JSON, a field name (`card[number]`) for forms."""

    text: str


class Document(Protocol):
    """A parsed body."""

    def select(self, selector: Selector) -> list[Match]:
        """All matches in the order of the body. Raises `Refused` if a match is neither string nor number."""
        ...


def parse(media_type: str, body: bytes) -> Document:
    """Read a JSON or form body by its Content-Type value.

    Raises `Refused`: MEDIA_TYPE_UNSUPPORTED for any other type, BODY_MALFORMED for what two parsers could read
    differently.
    """
    raise NotImplementedError


def compile_selector(text: str) -> Selector:
    """Raises ValueError when the text is no selector."""
    raise NotImplementedError
