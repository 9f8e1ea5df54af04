"""Bodies that rules read: parsed strictly, addressed by selector, replaced in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol
from urllib.parse import quote

import orjson
from jsonpath import JSONPathEnvironment, JSONPathError
from jsonpath.segments import JSONPathChildSegment
from jsonpath.selectors import IndexSelector, NameSelector, WildcardSelector

from gateway.pure import form_reader, json_reader
from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import Part

Kind = Literal["json", "form", "empty"]
Located = tuple[tuple[Part, ...], Any]

_MEDIA_TYPE = re.compile(
    r"application/(?:(?P<form>x-www-form-urlencoded)|(?:[!#$&^_.+a-z0-9-]+\+)?json)"
    r'(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?[ \t]*',
    re.IGNORECASE | re.ASCII,
)
_ANY = WildcardSelector
_SELECTORS_REMEMBERED = 1024


@dataclass(slots=True)
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
        """All matches in the order of the body; a JSON null is none.

        Raises `Refused` (FIELD_INVALID) if a match is a boolean, an object or an array.
        """
        ...


def parse(media_type: str, body: bytes) -> Document:
    """Read a JSON or form body by its Content-Type value.

    Raises `Refused`: MEDIA_TYPE_UNSUPPORTED for any other type, BODY_MALFORMED for what two parsers could read
    differently. No bytes of no type are an empty document.
    """
    if not body and not media_type:
        return _EMPTY
    found = _MEDIA_TYPE.fullmatch(media_type)
    if found is None:
        raise Refused(Reason.MEDIA_TYPE_UNSUPPORTED, "Send JSON or a form, in UTF-8, and say so in Content-Type.")
    if found["form"]:
        return FormDocument(form_reader.read(body))
    return JsonDocument(body, json_reader.read(body))


@lru_cache(_SELECTORS_REMEMBERED)
def compile_selector(text: str) -> Selector:
    """`$...` is a JSONPath, anything else the name of a form field. Raises ValueError when the text is no selector."""
    if not text.startswith("$"):
        return FieldSelector(form_reader.check_name(text))
    try:
        path = _JSONPATH.compile(text)
    except JSONPathError as error:
        raise ValueError(f"{text!r} is no JSONPath (RFC 9535): {error}") from None
    steps = _simple_steps(path)
    if steps is not None:
        locate = _walk if _ANY in steps else _descend
        return PathSelector(text, lambda value: locate(value, steps))
    return PathSelector(text, lambda value: ((match.parts, match.value) for match in path.finditer(value)))


@dataclass(frozen=True, slots=True)
class PathSelector:
    """An RFC 9535 path. `locate` gives the location and value of every match."""

    text: str
    locate: Callable[[Any], Iterable[Located]]
    kind: Kind = "json"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """The decoded name of a form field."""

    text: str
    kind: Kind = "form"


class JsonDocument:
    """A JSON text that was read strictly; offsets are found when they are asked for."""

    __slots__ = ("_body", "_spans", "_value")
    kind: Kind = "json"

    def __init__(self, body: bytes, value: Any) -> None:
        self._body = body
        self._value = value
        self._spans: json_reader.Spans | None = None

    @property
    def content(self) -> Any:
        """The value of the whole text."""
        return self._value

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, PathSelector):
            return []
        located = [(path, value) for path, value in selector.locate(self._value) if value is not None]
        found = {}
        for path, value in located:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise Refused(Reason.FIELD_INVALID, f"Send a string in {selector.text}.")
            # A search passes over the whole body: for one match it is the fast way, for many it would be the slow one.
            start, end = (self._only_place(value) if len(located) == 1 else None) or self._place(path)
            text = value if isinstance(value, str) else self._body[start:end].decode()
            found[start] = Match(start, end, text, orjson.dumps)
        return [found[start] for start in sorted(found)]

    def _only_place(self, value: str | float) -> json_reader.Span | None:
        """Where a text stands that can stand nowhere else.

        In a body without escapes each text is spelled as it is, between quotes. If that occurs in one place only, this
        is the place of the value, whatever its path is.
        """
        if not isinstance(value, str) or b"\\" in self._body:
            return None
        spelling = b'"%b"' % value.encode()
        start = self._body.find(spelling)
        return (start, start + len(spelling)) if self._body.find(spelling, start + 1) < 0 else None

    def _place(self, path: tuple[Part, ...]) -> json_reader.Span:
        """Where the value at a path stands, found by reading up to it."""
        if self._spans is None:
            self._spans = json_reader.Spans(self._body)
        return self._spans.of(path)


class FormDocument:
    """A form that was read strictly."""

    __slots__ = ("_fields",)
    kind: Kind = "form"

    def __init__(self, fields: list[form_reader.Field]) -> None:
        self._fields = fields

    def select(self, selector: Selector) -> list[Match]:
        """See `Document`."""
        if not isinstance(selector, FieldSelector):
            return []
        return [Match(f.start, f.end, f.value, _escape) for f in self._fields if f.name == selector.text]


class _EmptyDocument:
    __slots__ = ()
    kind: Kind = "empty"

    def select(self, _: Selector) -> list[Match]:
        """Nothing."""
        return []


def _escape(text: str) -> bytes:
    return quote(text, safe="").encode()


def _simple_steps(path: Any) -> tuple[Part | type[_ANY], ...] | None:
    """The steps of a path made of names, indexes from the front and wildcards only; None for any other."""
    steps: list[Part | type[_ANY]] = []
    for segment in getattr(path, "segments", ()):
        if type(segment) is not JSONPathChildSegment or len(segment.selectors) != 1:
            return None
        step = segment.selectors[0]
        if type(step) is NameSelector:
            steps.append(step.name)
        elif type(step) is IndexSelector and step.index >= 0:
            steps.append(step.index)
        elif type(step) is WildcardSelector:
            steps.append(_ANY)
        else:
            return None
    return tuple(steps)


def _descend(value: Any, steps: tuple[Any, ...]) -> list[Located]:
    """The one place that a path without wildcards can lead to (RFC 9535 section 2.3.5.1: a singular query)."""
    for step in steps:
        if isinstance(value, dict):
            if step not in value:
                return []
        elif not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            return []
        value = value[step]
    return [(steps, value)]


def _walk(value: Any, steps: tuple[Part | type[_ANY], ...]) -> list[Located]:
    located: list[Located] = [((), value)]
    for step in steps:
        located = [child for path, parent in located for child in _children(path, parent, step)]
    return located


def _children(path: tuple[Part, ...], parent: Any, step: Part | type[_ANY]) -> Iterator[Located]:
    """RFC 9535 sections 2.3.1 to 2.3.3: a name selects in objects, an index in arrays, a wildcard in both."""
    if isinstance(parent, dict):
        if step is _ANY:
            yield from (((*path, name), child) for name, child in parent.items())
        elif isinstance(step, str) and step in parent:
            yield (*path, step), parent[step]
    elif isinstance(parent, list):
        if step is _ANY:
            yield from (((*path, index), child) for index, child in enumerate(parent))
        elif isinstance(step, int) and step < len(parent):
            yield (*path, step), parent[step]


_JSONPATH = JSONPathEnvironment(strict=True)
_EMPTY = _EmptyDocument()
