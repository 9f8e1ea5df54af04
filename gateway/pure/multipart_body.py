"""multipart/form-data as a document: `part:NAME` selects a field, `part:NAME:PATH` values in a part of JSON or XML."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import fold
from gateway.pure.multipart_reader import FormPart
from gateway.pure.selecting import Document, Kind, Match, Selector

_TEXT = re.compile(r'(?:text/plain(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?)?', re.IGNORECASE)

ReadDocument = Callable[[str, bytes, Collection[Kind]], Document]
"""By media type: a document of one of these kinds. Raises `Refused`."""


@dataclass(frozen=True, slots=True)
class PartSelector:
    """A part by its name; with `inner`, values in it."""

    text: str
    name: str
    inner: Selector | None
    kind: Kind = "multipart"


class MultipartDocument:
    """A form whose parts were told apart strictly; what a part holds is read when it is selected in."""

    __slots__ = ("_body", "_delimiter", "_inner", "_parts", "_read")
    kind: Kind = "multipart"

    def __init__(self, body: bytes, delimiter: bytes, parts: list[FormPart], read: ReadDocument) -> None:
        self._body = body
        self._delimiter = delimiter
        self._parts = parts
        self._read = read
        self._inner: dict[int, Document] = {}

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, PartSelector):
            return []
        return [
            self._apart(match)
            for part in self._parts
            if part.name == selector.name
            for match in (self._field(part, selector) if selector.inner is None else self._within(part, selector))
        ]

    def alike(self, selector: Selector) -> bool:
        """See `Document`. Parts are not looked into."""
        if not isinstance(selector, PartSelector):
            return False
        return any(p.name != selector.name and fold(p.name) == fold(selector.name) for p in self._parts)

    def _field(self, part: FormPart, selector: PartSelector) -> Iterator[Match]:
        if part.filename is not None or _TEXT.fullmatch(part.media_type) is None:
            raise _no_field(selector)
        try:
            value = self._body[part.start : part.end].decode()
        except UnicodeDecodeError:
            raise _no_field(selector) from None
        yield Match(part.start, part.end, value, str.encode)

    def _within(self, part: FormPart, selector: PartSelector) -> Iterator[Match]:
        assert selector.inner is not None
        document = self._inner.get(part.start)
        try:
            if document is None or document.kind != selector.inner.kind:
                content = self._body[part.start : part.end]
                document = self._inner[part.start] = self._read(part.media_type, content, {selector.inner.kind})
            matches = document.select(selector.inner)
        except Refused as refused:
            raise Refused(refused.reason, f"In the part {selector.name}: {refused.detail}") from None
        for match in matches:
            yield Match(match.start + part.start, match.end + part.start, match.value, match.encode)

    def _apart(self, match: Match) -> Match:
        """What is put into a part must not end it."""
        encode = match.encode

        def encode_apart(text: str) -> bytes:
            spelling = encode(text)
            if self._delimiter in spelling:
                raise Refused(Reason.FIELD_INVALID, "Declare another boundary: a value of a part would hold this one.")
            return spelling

        match.encode = encode_apart
        return match


def _no_field(selector: PartSelector) -> Refused:
    return Refused(Reason.FIELD_INVALID, f"Send {selector.text} as a field of plain text in UTF-8, and not as a file.")
