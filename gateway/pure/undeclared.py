"""Where in a text a card number that nobody declared may give way to something else, and what must go with it.

What is replaced must leave a text that its reader takes for the same one: a JSON number becomes a string; a number in
a JSON text within a string, or within a value of a form, stays, for nobody can tell what that is read by.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import orjson

from gateway.pure.card_scan import Found
from gateway.pure.cards import mask

TEXT = "text/plain"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_TEXT = re.compile(r"text/|application/(?:x-www-form-urlencoded|(?:[^;,]*\+)?(?:json|xml))\s*(?:;|\Z)", re.IGNORECASE)
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FRACTION = re.compile(rb"[.0-9eE+-]*")
_DIGIT = re.compile(rb"[0-9]")


@dataclass(frozen=True, slots=True)
class Spot:
    """Bytes `start` to `end` are to be replaced, in quotes if `bare`; `number` is the number as it is written."""

    start: int
    end: int
    number: bytes = field(repr=False)
    bare: bool = False


def is_text(media_type: str) -> bool:
    """May what is replaced become longer or shorter? Not where lengths may be written down beside it."""
    return _TEXT.match(media_type) is not None


def spots(data: bytes, media_type: str, found: Iterable[Found]) -> list[Spot] | None:
    """Where the numbers in clear stand, in their order; None if one of them cannot be replaced."""
    spans = list(_apart(each for each in found if each.in_clear))
    if "json" in media_type.lower():
        return _in_json(data, spans)
    if media_type.lower().startswith(FORM) and any(is_json(_form_value(data, *span)) for span in spans):
        return None
    return [Spot(start, end, data[start:end]) for start, end in spans]


def digits_of(number: bytes) -> str:
    """Without what separates the groups."""
    return b"".join(_DIGIT.findall(number)).decode()


def masked(number: bytes) -> bytes:
    """All digits but the first six and last four hidden; what separates the groups stays."""
    shown = iter(mask(digits_of(number)))
    return _DIGIT.sub(lambda _: next(shown).encode(), number)


def _apart(found: Iterable[Found]) -> Iterator[tuple[int, int]]:
    """The spans in their order, those that overlap as one."""
    start, end = 0, 0
    for each in found:
        if each.start >= end:
            if end:
                yield start, end
            start, end = each.start, each.end
        end = max(end, each.end)
    if end:
        yield start, end


def _in_json(data: bytes, spans: Iterable[tuple[int, int]]) -> list[Spot] | None:
    strings = [string.span() for string in _JSON_STRING.finditer(data)]
    made = []
    for start, end in spans:
        number = data[start:end]
        before = bisect_right(strings, (start, end)) - 1
        if before >= 0 and strings[before][1] >= end:
            if is_json(_string(data[slice(*strings[before])])):
                return None
            made.append(Spot(start, end, number))
        else:
            fraction = _FRACTION.match(data, end)
            assert fraction is not None
            made.append(Spot(start - (data[start - 1 : start] == b"-"), fraction.end(), number, bare=True))
    return made


def _string(spelling: bytes) -> bytes:
    try:
        text: str = orjson.loads(spelling)
    except orjson.JSONDecodeError:
        return b""
    return text.encode()


def _form_value(data: bytes, start: int, end: int) -> bytes:
    first = max(data.rfind(sign, 0, start) for sign in (b"&", b"=")) + 1
    last = data.find(b"&", end)
    return unquote_to_bytes(data[first : last if last >= 0 else len(data)].replace(b"+", b" "))


def is_json(text: bytes) -> bool:
    """An object or an array: a number alone is a text like any other."""
    if text.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
