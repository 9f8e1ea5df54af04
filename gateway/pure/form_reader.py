"""Forms (application/x-www-form-urlencoded) that every parser reads the same way.

The format of the WHATWG URL standard, section 5, read strictly. Parsers differ over what browsers and SDKs never send:
a raw `;`, a name without `=`, half an escape, `a[b` or `a[b]c`; such a form is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from gateway.pure.errors import Reason, Refused
from gateway.pure.json_reader import MAX_VALUES, fold

_PAIR = re.compile(rb"([^=&]+)=([^&]*)")
_ESCAPED = re.compile(rb"(?:[!-$&-:<-~]|%[0-9A-Fa-f]{2})*+")
_NAME = re.compile(r"[^\[\]\s][^\[\]]*(?:\[[^\[\]]*\])*")


@dataclass(frozen=True, slots=True)
class Field:
    """One `name=value`. Bytes `start` to `end` of the body spell the value."""

    name: str
    value: str = field(repr=False)
    start: int
    end: int


def read(body: bytes) -> list[Field]:
    """The fields in the order of the body. Raises `Refused` (BODY_MALFORMED)."""
    if _ESCAPED.fullmatch(body) is None:
        raise _malformed("Percent-encode the form; spaces, semicolons and bytes beyond ASCII as well.")
    if body.count(b"&") >= MAX_VALUES:
        raise _malformed(f"Send at most {MAX_VALUES} fields in one form.")
    fields = []
    position = 0
    for piece in body.split(b"&"):
        if piece:
            fields.append(_field(piece, position))
        position += len(piece) + 1
    names = {each.name for each in fields}
    if len({fold(name) for name in names}) != len(names):
        raise _malformed("Spell each field's name in one way; names that differ only in case count as one.")
    return fields


def check_name(name: str) -> str:
    """The name itself, if a field can have it; raises ValueError otherwise."""
    if _NAME.fullmatch(name) is None or not name.isprintable():
        raise ValueError(f"{name!r} is no field name; write name or name[key], or a JSONPath that begins with $")
    return name


def _field(piece: bytes, position: int) -> Field:
    pair = _PAIR.fullmatch(piece)
    if pair is None:
        raise _malformed("Send every field of the form as name=value.")
    try:
        name = check_name(_decode(pair[1]))
    except ValueError:
        raise _malformed("Write field names as name or name[key], with matching brackets.") from None
    return Field(name, _decode(pair[2]), position + pair.start(2), position + pair.end(2))


def _decode(escaped: bytes) -> str:
    try:
        return unquote_to_bytes(escaped.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise _malformed("Encode the form as UTF-8.") from None


def _malformed(detail: str) -> Refused:
    return Refused(Reason.BODY_MALFORMED, detail)
