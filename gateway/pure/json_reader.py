"""JSON that every parser reads the same way, and where in the bytes its values stand.

RFC 8259 and the I-JSON profile (RFC 7493), with bounds of our own. What two parsers could read differently (a member
twice, a number beyond a double, half a surrogate pair) is refused, so that what was checked is what the next one reads.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import orjson

from gateway.pure.errors import Reason, Refused

MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_INTEGER = 2**53 - 1
MAX_PRECISION = 17
"""Significant decimal digits that a double can tell apart."""

Part = str | int
Span = tuple[int, int]

_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKETS = re.compile(r"[][{}]")
_KEY = re.compile(r'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_NEXT = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def read(body: bytes) -> Any:
    """The value of a JSON text. Raises `Refused` (BODY_MALFORMED)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _malformed("Encode the JSON as UTF-8.") from None
    _bound(text)
    try:
        if "\\u" in text:
            orjson.loads(text)  # refuses half a surrogate pair, which the reader below lets through
            return _UNICODE.decode(text)
        if not text.isascii():
            return _UNICODE.decode(text)
        if text[:1] == "{":
            try:
                value, end = _scan_ascii(text, 0)
                if end == len(text):
                    return value
            except StopIteration:
                pass  # the decoder says what is wrong
        return _ASCII.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"Send one JSON text; this one breaks at character {error.pos}.") from None


class Spans:
    """Byte offsets of the values of a JSON text that `read` accepted. Containers are read as far as asked for."""

    __slots__ = ("_containers", "_root", "_text")

    def __init__(self, body: bytes) -> None:
        self._text = body.decode("latin-1")  # a character for each byte; the grammar of JSON is ASCII
        self._root = self._next(0)
        self._containers: dict[int, tuple[dict[Part, Span], Iterator[tuple[Part, Span]]]] = {}

    def of(self, path: tuple[Part, ...]) -> Span:
        """Start and end of the value at a path of names and indexes that exists."""
        start, end = self._root, -1
        for part in path:
            if start not in self._containers:
                self._containers[start] = {}, (self._members if self._text[start] == "{" else self._elements)(start)
            known, unread = self._containers[start]
            while part not in known:
                key, span = next(unread)
                known[key] = span
            start, end = known[part]
        return (start, end) if path else (start, _scan(self._text, start)[1])

    def _members(self, start: int) -> Iterator[tuple[Part, Span]]:
        position = start + 1
        while (key := _KEY.match(self._text, position)) is not None:
            value = key.end()
            end = _scan(self._text, value)[1]
            yield _name(key[1]), (value, end)
            position = self._next(end)

    def _elements(self, start: int) -> Iterator[tuple[Part, Span]]:
        position = self._next(start + 1)
        for index in itertools.count():
            end = _scan(self._text, position)[1]
            yield index, (position, end)
            position = self._next(end)

    def _next(self, position: int) -> int:
        found = _NEXT.match(self._text, position)
        assert found is not None
        return found.end()


def _name(spelling: str) -> str:
    if "\\" not in spelling and spelling.isascii():
        return spelling[1:-1]
    name: str = orjson.loads(spelling.encode("latin-1"))
    return name


def _bound(text: str) -> None:
    """Depth and number of values, before anything recurses. Counting all characters is enough for most bodies."""
    deep = text.count("[") + text.count("{") > MAX_DEPTH
    many = text.count(",") >= MAX_VALUES
    if not deep and not many:
        return
    skeleton = _STRINGS.sub("", text)
    if skeleton.count(",") >= MAX_VALUES:
        raise _malformed(f"Send at most {MAX_VALUES} values in one JSON text.")
    depth = 0
    for bracket in _BRACKETS.findall(skeleton):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise _malformed(f"Nest JSON at most {MAX_DEPTH} deep.")


def _decoder(fold: Callable[[str], str]) -> json.JSONDecoder:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(set(map(fold, found))) != len(pairs):
            raise _malformed("Send each member of a JSON object once; names that differ only in case count as one.")
        return found

    return json.JSONDecoder(
        object_pairs_hook=members, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
    )


def fold(name: str) -> str:
    """A name without the differences that some parsers do not see: case and Unicode normal form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _integer(spelling: str) -> int:
    if len(spelling) > 17 or abs(number := int(spelling)) > MAX_INTEGER:
        raise _malformed("Send integers within 2^53-1; longer ones as strings.")
    return number


def _real(spelling: str) -> float:
    number = float(spelling)
    digits = re.split("[eE]", spelling)[0].lstrip("-").replace(".", "").strip("0")
    if math.isinf(number) or len(digits) > MAX_PRECISION or (digits and not number):
        raise _malformed("Send numbers that a 64-bit float can hold; others as strings.")
    return number


def _constant(_: str) -> NoReturn:
    raise _malformed("NaN and Infinity are no JSON; leave the member out.")


def _malformed(detail: str) -> Refused:
    return Refused(Reason.BODY_MALFORMED, detail)


_ASCII = _decoder(str.casefold)
_scan_ascii: Callable[[str, int], tuple[Any, int]] = _ASCII.scan_once  # type: ignore[attr-defined]
_UNICODE = _decoder(fold)
