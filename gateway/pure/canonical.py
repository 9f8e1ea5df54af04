"""Request bodies without the differences that mean nothing, for comparing a retry with the first request.

JSON is written with sorted names and one spelling of each number and text, in the order of the JSON Canonicalization
Scheme (RFC 8785 section 3.2.3: UTF-16 code units); a form as its sorted pairs; multipart as its sorted parts, whatever
stands between them; anything else is its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.pure import form_reader, json_reader, multipart_reader, xml_reader
from gateway.pure.body import FieldSelector, PathSelector, Selector
from gateway.pure.errors import Refused
from gateway.pure.media_types import kind_of
from gateway.pure.multipart_body import PartSelector
from gateway.pure.xml_body import XmlDocument, XmlSelector

_FRACTION = re.compile(rb"[0-9][.eE]")


def canonical(media_type: str, body: bytes, without: Sequence[Selector] = ()) -> tuple[str, bytes]:
    """The media type and the body that equal requests have in common; what `without` selects does not count.

    A body that cannot be read as what it says it is stays as it is, all of it, and so does its media type.
    """
    kind, boundary = kind_of(media_type)
    if kind is None or not body:
        return media_type, body
    try:
        if kind == "form":
            return kind, _form(body, {each.text for each in without if isinstance(each, FieldSelector)})
        if kind == "json":
            return kind, _json(body, [each for each in without if isinstance(each, PathSelector)])
        if kind == "xml":
            return kind, _xml(body, [each for each in without if isinstance(each, XmlSelector)])
        return kind, _multipart(body, boundary, [each for each in without if isinstance(each, PartSelector)])
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


def _xml(body: bytes, without: Sequence[XmlSelector]) -> bytes:
    """The document as it is written, with a gap for what does not count."""
    if not without:
        return body
    document = XmlDocument(body, xml_reader.read(body))
    spans = {(match.start, match.end) for selector in without for match in document.select(selector)}
    for start, end in sorted(spans, reverse=True):
        body = body[:start] + body[end:]
    return body


def _multipart(body: bytes, boundary: str, without: Sequence[PartSelector]) -> bytes:
    """Parts sorted by name, each of them canonical in itself; those of one name keep their order."""
    left_out = {selector.name for selector in without if selector.inner is None}
    parts = []
    for part in multipart_reader.read(body, multipart_reader.delimiter(boundary)):
        if part.name not in left_out:
            within = [each.inner for each in without if each.name == part.name and each.inner is not None]
            media_type, content = canonical(part.media_type, body[part.start : part.end], within)
            parts.append((part.name, part.filename, media_type, content.decode("latin-1")))
    return orjson.dumps(sorted(parts, key=lambda part: part[0]))


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
