"""What the kinds of body have in common: a selector finds matches in a document, each to be replaced in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

Kind = Literal["json", "form", "xml", "multipart", "empty"]

KINDS: frozenset[Kind] = frozenset(get_args(Kind))


@dataclass(slots=True)
class Match:
    """A value found by a selector: bytes `start` to `end` of the body spell it, the quotes of a JSON string included.

    `value` is the decoded text (a JSON number as it is written, XML text without the white space around it); `encode`
    spells a text the way this place of the body needs it, and raises `Refused` (FIELD_INVALID) if that cannot be done.
    """

    start: int
    end: int
    value: str = field(repr=False)
    encode: Callable[[str], bytes]


class Selector(Protocol):
    """A compiled path, of one of the languages that `gateway.pure.body.compile_selector` lists."""

    @property
    def text(self) -> str: ...

    @property
    def kind(self) -> Kind:
        """The kind of document that this selector fits; in others it finds nothing."""
        ...


class Document(Protocol):
    """A parsed body."""

    @property
    def kind(self) -> Kind: ...

    def select(self, selector: Selector) -> list[Match]:
        """All matches in the order of the body; a JSON null is none, and neither is an empty XML element with `nil`.

        Raises `Refused`: FIELD_INVALID if a match is no text, such as a boolean, an array, or an element with others in
        it; and what reading a part of a multipart body raises.
        """
        ...

    def alike(self, selector: Selector) -> bool:
        """Of a selector that finds nothing: would it, for readers who do not tell the case of names apart?"""
        ...
