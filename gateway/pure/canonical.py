"""Request bodies without the differences that mean nothing, for comparing a retry with the first request.

JSON is written with sorted names and one spelling of each number and text, in the order of the JSON Canonicalization
Scheme (RFC 8785 section 3.2.3: UTF-16 code units); a form as its sorted pairs; anything else is its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.pure import form_reader, json_reader
from gateway.pure.body import FieldSelector, PathSelector, Selector
from gateway.pure.errors import Refused

_MEDIA_TYPE = re.compile(r"application/(?:(?P<form>x-www-form-urlencoded)|(?:[!#$&^_.+a-z0-9-]+\+)?json)[ \t]*(?:;.*)?")
_FRACTION = re.compile(rb"[0-9][.eE]")


def canonical(media_type: str, body: bytes, without: Sequence[Selector] = ()) -> tuple[str, bytes]:
    """The media type and the body that equal requests have in common; what `without` selects does not count.

    A body that cannot be read as what it says it is stays as it is, all of it, and so does its media type.
    """
    found = _MEDIA_TYPE.fullmatch(media_type.lower())
    if found is None or not body:
        return media_type, body
    try:
        if found["form"]:
            return "form", _form(body, {each.text for each in without if isinstance(each, FieldSelector)})
        return "json", _json(body, [each for each in without if isinstance(each, PathSelector)])
    except Refused:
        return media_type, body


def _form(body: bytes, without: set[str]) -> bytes:
    """Pairs sorted by name; those of one name keep their order, for it may be that of a list."""
    pairs = [(field.name, field.value) for field in form_reader.read(body) if field.name not in without]
    return orjson.dumps(sorted(pairs, key=lambda pair: pair[0]))


def _json(body: bytes, without: Sequence[PathSelector]) -> bytes:
    value = json_reader.read(body)
    for selector in without:
        for path, _ in reversed(list(selector.locate(value))):  # what is inside of another goes first
            _drop(value, path)
    if body.isascii() and b"\\u" not in body and _FRACTION.search(body) is None:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)  # of ASCII, any order of code units is the same
    return orjson.dumps(_sorted(value))


def _drop(value: Any, path: tuple[json_reader.Part, ...]) -> None:
    """An element of a list leaves a gap: what stands behind it keeps its place."""
    if not path:
        return
    *way, last = path
    for part in way:
        value = value[part]
    if isinstance(value, dict):
        value.pop(last, None)
    else:
        value[last] = None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value, key=_utf16)}
    if isinstance(value, list):
        return [_sorted(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")
