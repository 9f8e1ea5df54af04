"""Places of a message's head where values stand: header fields, query parameters, segments of the path.

`header:NAME`, `query:NAME` and `path:NAME` (a name in the braces of the route's path) select there; what has none of
these prefixes selects in the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast
from urllib.parse import quote, unquote_to_bytes

from gateway.pure.body import Match, Prefixes, Selector, compile_selector
from gateway.pure.errors import Reason, Refused
from gateway.pure.head_syntax import folded_name
from gateway.pure.http import Header, is_forwarded
from gateway.pure.queries import check_lookalike

HeadKind = Literal["header", "query", "path"]

_SIDED = re.compile(r"(header|query|path):(.*)", re.DOTALL)
_NAMES = {
    "header": re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    "query": re.compile(r"[!-~]+"),
    "path": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
}
_STEADY = frozenset({b"content-type", b"content-encoding", b"accept-encoding", b"content-length"})
"""What says how a message is to be read does not hold a value."""
_IN_FIELD = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_EXPRESSION = re.compile(r"(?<!\{)\{\{ ?([!-z|~]{1,128}) ?\}\}")
_BRACES = "{{"


@dataclass(frozen=True, slots=True)
class HeadSelector:
    """All values of one name at one kind of place."""

    text: str
    kind: HeadKind
    name: str


AnySelector: TypeAlias = Selector | HeadSelector
"""Where in a message values stand."""


def compile_place(text: str, namespaces: Prefixes | None = ()) -> AnySelector:
    """`namespaces` as in `compile_selector`. Raises ValueError with a sentence when the text selects nothing."""
    sided = _SIDED.fullmatch(text)
    if sided is None:
        return compile_selector(text, namespaces)
    kind, name = cast("HeadKind", sided[1]), sided[2]
    if _NAMES[kind].fullmatch(name) is None:
        raise ValueError(f"{text!r} names no {_CALLED[kind]}")
    if kind == "header" and (not is_forwarded(name.encode()) or name.lower().encode() in _STEADY):
        raise ValueError(f"{text!r} is a field that the gateway itself writes or reads; no card data stands there")
    return HeadSelector(text, kind, name)


_CALLED = {
    "header": "header field",
    "query": "query parameter",
    "path": "segment; write path:NAME, a name in the braces of the route's path",
}


def in_target(text: str) -> bool:
    """Does this place stand in the request's target?"""
    return text.startswith(("query:", "path:"))


def named_segments(places: Iterable[str]) -> frozenset[str]:
    """The names of those of these places that are segments of the path."""
    return frozenset(place.removeprefix("path:") for place in places if place.startswith("path:"))


class Head:
    """The target of a request and the values of its fields as one text, a line each, so that they are edited as a body
    is. That of a response has no target.

    `segments` are the positions of the named segments of the path.
    """

    __slots__ = ("_segments", "_target", "fields", "text")

    def __init__(self, target: str, headers: Sequence[Header], segments: Mapping[str, int]) -> None:
        self._target = target
        self.fields = tuple(headers)
        self._segments = segments
        self.text = b"\n".join([target.encode("latin-1"), *(value for _, value in headers)])

    def select(self, selector: HeadSelector) -> list[Match]:
        """All matches in the order of the head. Raises `Refused` for a query that others could read otherwise."""
        if selector.kind == "header":
            name = selector.name.lower().encode()
            return [_in_field(start, value) for start, (found, value) in self.lines() if found.lower() == name]
        if selector.kind == "query":
            return list(self._parameters(selector.name))
        return list(self._segment(selector.name))

    def alike(self, selector: HeadSelector) -> bool:
        """Of a selector that finds nothing: does it for readers who fold names? Such a query is refused at once."""
        name = folded_name(selector.name.lower().encode())
        return selector.kind == "header" and any(folded_name(field.lower()) == name for field, _ in self.fields)

    def apart(self, text: bytes) -> tuple[str, list[Header]]:
        """The target and the fields of an edited text."""
        target, *values = text.split(b"\n")
        names = [name for name, _ in self.fields]
        return target.decode("latin-1"), list(zip(names, values, strict=True))

    def untouched(self, spans: Iterable[tuple[int, int]]) -> list[Header]:
        """The fields in whose values none of these spans of the text lies."""
        touched = list(spans)
        return [
            field
            for start, field in self.lines()
            if not any(start <= first and last <= start + len(field[1]) for first, last in touched)
        ]

    def unnamed(self, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where in the target the values of those query parameters stand in which none of these spans lies."""
        touched = list(spans)
        return [
            (start, end)
            for _, start, end in self._query()
            if not any(start <= first and last <= end for first, last in touched)
        ]

    def lines(self) -> Iterator[tuple[int, Header]]:
        """The fields, and where in the text their values begin."""
        start = len(self._target) + 1
        for field in self.fields:
            yield start, field
            start += len(field[1]) + 1

    def _parameters(self, name: str) -> Iterator[Match]:
        if ";" in self._target.partition("?")[2]:
            raise Refused(Reason.TARGET_NOT_CANONICAL, "Percent-encode the query, and separate its parameters by &.")
        for spelled, start, end in self._query():
            called = _decoded(spelled)
            check_lookalike(called, name)
            if called == name:
                yield Match(start, end, _decoded(self._target[start:end]), _escaped)

    def _query(self) -> Iterator[tuple[str, int, int]]:
        """The parameters that have a value: the name as it is spelled, and where the value stands."""
        path, _, query = self._target.partition("?")
        start = len(path) + 1
        for piece in query.split("&"):
            name, sign, value = piece.partition("=")
            end = start + len(piece)
            if sign:
                yield name, end - len(value), end
            start = end + 1

    def _segment(self, name: str) -> Iterator[Match]:
        position = self._segments.get(name)
        if position is None:
            return
        segments = self._target.partition("?")[0].split("/")[1:]
        start = 1 + sum(len(segment) + 1 for segment in segments[:position])
        segment = segments[position]
        yield Match(start, start + len(segment), _unquoted(segment), _escaped)


def expressions(match: Match) -> list[Match]:
    """The `{{token}}` expressions in a field's value; the whole value where it has none.

    Raises `Refused` for braces that begin no expression.
    """
    if _BRACES not in match.value:
        return [match]
    if _BRACES in _EXPRESSION.sub("", match.value):
        raise Refused(Reason.FIELD_INVALID, "Write {{token}} for each token in a header field, and no other {{.")
    found = _EXPRESSION.finditer(match.value)
    return [Match(match.start + each.start(), match.start + each.end(), each[1], match.encode) for each in found]


def with_expressions(headers: Iterable[Header]) -> Iterator[bytes]:
    """The names, in lower case, of the fields in which an expression begins."""
    return (name.lower() for name, value in headers if b"{{" in value)


def _in_field(start: int, value: bytes) -> Match:
    return Match(start, start + len(value), value.decode("latin-1"), _field_text)


def _field_text(text: str) -> bytes:
    """A text as the value of a field (RFC 9110 section 5.5), or a part of one."""
    if _IN_FIELD.fullmatch(text) is None:
        raise Refused(Reason.FIELD_INVALID, "What this token stands for cannot be sent in a header field.")
    return text.encode("ascii")


def _escaped(text: str) -> bytes:
    """In the one spelling that a strict reader takes (`head_syntax`)."""
    return quote(text, safe="*").encode()


def _decoded(spelled: str) -> str:
    return _unquoted(spelled.replace("+", " "))


def _unquoted(spelled: str) -> str:
    return unquote_to_bytes(spelled.encode("latin-1")).decode("utf-8", "replace")
