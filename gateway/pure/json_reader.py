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
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

import orjson

from gateway.pure.errors import Reason, Refused

MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_INTEGER = 2**53 - 1
MAX_PRECISION = 17
"""Significant decimal digits that a double can tell apart."""

Part = str | int
Span = tuple[int, int]

_BACKSLASH = ord("\\")
_CONTAINERS = (dict, list)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_IS_OPENING = bytes.maketrans(b"[]{}", b"\1\0\1\0")
_DIGITS_ALIKE = bytes.maketrans(b"0123456789.E", b"00000000000e")
_SIXTEEN_DIGITS = b"0" * 16
_EXPONENT = b"0e"
_NUMBER = re.compile(rb"([0-9]+)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_KEY = re.compile(r'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_NEXT = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def read(body: bytes) -> Any:
    """The value of a JSON text. Raises `Refused` (BODY_MALFORMED)."""
    skeleton = _skeleton(body)
    containers = _bound(skeleton)
    _check_numbers(skeleton)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(_where(body, error.pos)) from None
    _check_names(value, skeleton.count(b":"), containers)
    return value


def spelled_once(body: bytes, texts: Set[bytes]) -> list[Span]:
    """Where these texts stand in a JSON text, in its order; none unless each can stand in one place only.

    In a body without escapes each text is spelled as it is, between quotes. If that occurs in one place only, this is
    the place of the value, whatever its path is.
    """
    if _BACKSLASH in body:
        return []
    if len(texts) == 1:
        spelling = b'"%b"' % next(iter(texts))
        start = body.find(spelling)
        return [] if body.find(spelling, start + 1) >= 0 else [(start, start + len(spelling))]
    found, end, pieces = [], 0, body.split(b'"')
    for between, text in zip(pieces[::2], pieces[1::2], strict=False):
        start = end + len(between)
        end = start + len(text) + 2
        if text in texts:
            found.append((start, end))
    return found if len(found) == len(texts) else []


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


def _skeleton(body: bytes) -> bytes:
    """The text without what is in its strings. Each string is split off at its quotes once those inside are gone."""
    if _BACKSLASH in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b" ".join(body.split(b'"')[::2])


def _bound(skeleton: bytes) -> int:
    """How many arrays and objects there are. Bounds depth and number of values, before anything recurses."""
    containers = skeleton.count(b"[") + skeleton.count(b"{")
    if skeleton.count(b",") >= MAX_VALUES:
        raise _malformed(f"Send at most {MAX_VALUES} values in one JSON text.")
    if containers > MAX_DEPTH:
        opening = skeleton.translate(_IS_OPENING, _NOT_BRACKETS)
        if max(itertools.accumulate(1 if opens else -1 for opens in opening)) > MAX_DEPTH:
            raise _malformed(f"Nest JSON at most {MAX_DEPTH} deep.")
    return containers


def _check_numbers(skeleton: bytes) -> None:
    """A double holds each as it is spelled. It does those of up to fifteen digits that have no exponent."""
    alike = skeleton.translate(_DIGITS_ALIKE)
    if _SIXTEEN_DIGITS not in alike and _EXPONENT not in alike:
        return
    for found in _NUMBER.finditer(skeleton):
        digits, fraction, exponent = found.groups(b"")
        if not fraction and not exponent:
            if len(digits) > len(str(MAX_INTEGER)) or int(digits) > MAX_INTEGER:
                raise _malformed("Send integers within 2^53-1; longer ones as strings.")
            continue
        number, significant = float(found[0]), (digits + fraction[1:]).strip(b"0")
        if math.isinf(number) or len(significant) > MAX_PRECISION or (significant and not number):
            raise _malformed("Send numbers that a 64-bit float can hold; others as strings.")


def _check_names(value: Any, members: int, containers: int) -> None:
    """Each comes once in its object. So many `members` were spelled, in arrays and objects that are so many."""
    shapes: set[tuple[str, ...]] = set()
    found = [value] if containers else []
    for container in found:  # grows meanwhile
        children = container
        if isinstance(container, dict):
            children = container.values()
            members -= len(container)
            shapes.add(tuple(container))
        if len(found) < containers:
            found += [child for child in children if isinstance(child, _CONTAINERS)]
    # A member that came as it was before is only once in what was read.
    if members or _alike(shapes):
        raise _malformed("Send each member of a JSON object once; names that differ only in case count as one.")


def _alike(shapes: Iterable[tuple[str, ...]]) -> bool:
    """Has an object names that are one for some readers? In small ASCII letters each name is all there is of it."""
    spelled = "".join(map("".join, shapes))
    plain = spelled.isascii()
    if plain and spelled.islower():
        return False
    same = str.casefold if plain else fold
    return any(len(set(map(same, names))) < len(names) for names in shapes)


def fold(name: str) -> str:
    """A name without the differences that some parsers do not see: case and Unicode normal form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _where(body: bytes, position: int) -> str:
    try:
        body.decode()
    except UnicodeDecodeError:
        return "Encode the JSON as UTF-8."
    return f"Send one JSON text; this one breaks at character {position}."


def _malformed(detail: str) -> Refused:
    return Refused(Reason.BODY_MALFORMED, detail)
