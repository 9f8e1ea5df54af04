"""Card data that exists nowhere else, and a search for it, however it is written.

Looked for: plain, in groups (spaces, dashes, dots, plus signs, line breaks between the digits), percent-encoded,
JSON-escaped, as UTF-16, in hexadecimal, packed as BCD, and in both alphabets of base64 at every alignment. Not looked
for: what is compressed or encrypted, and two layers of the last four.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.pure.cards import luhn_valid

BIN = "424242"
"""Of the published test card: no real card begins like this."""
CODE_BEGINS = "909090"

_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_BETWEEN = b" -.+\t\r\n\0\\"
_AROUND, _WINDOW = 8, 160
_CODE_IN_CONTEXT = re.compile(rb"(?i)(?:cvc|cvv|cvn|csc|security.?code)\W{1,12}([0-9]{3,4})(?![0-9])")


@dataclass(frozen=True, slots=True)
class Canary:
    """A card number, and a security code of 16 digits that is no card number. `name` says where they were sent."""

    name: str
    number: str = field(default_factory=lambda: _random(valid=True), repr=False)
    code: str = field(default_factory=lambda: _random(valid=False), repr=False)


def _random(*, valid: bool) -> str:
    while True:
        digits = (BIN if valid else CODE_BEGINS) + f"{secrets.randbelow(10**10):010}"
        if luhn_valid(digits) is valid:
            return digits


def written(value: str) -> Mapping[str, bytes]:
    """A value in every form that the search knows, for planting."""
    plain = value.encode()
    return {
        "plain": plain,
        "spaced": b" ".join(plain[at : at + 4] for at in range(0, len(plain), 4)),
        "dashed": b"-".join(plain[at : at + 4] for at in range(0, len(plain), 4)),
        "percent-encoded": b"".join(b"%%%02x" % byte for byte in plain),
        "JSON-escaped": b"".join(b"\\u%04X" % byte for byte in plain),
        "JSON-escaped in part": plain[:6] + b"\\u00%02x" % plain[6] + plain[7:],
        "UTF-16": value.encode("utf-16-be"),
        "hexadecimal": plain.hex().encode(),
        "BCD": bytes.fromhex(value),
        "base64": base64.b64encode(b'{"number": "' + plain + b'"}'),
        "base64, shifted": base64.b64encode(b"number=" + plain + b"&"),
        "base64url, shifted": base64.urlsafe_b64encode(b"\xff\xfe" + plain + b"\xff"),
    }


def sieved(content: bytes) -> bytes:
    """What stands around anything that begins like a canary, in whatever form: little enough to look for many in it."""
    pieces = []
    for view in _views(content):
        for begin in (BIN, CODE_BEGINS):
            for sign in _signs(begin):
                at = view.find(sign)
                while at >= 0:
                    pieces.append(view[max(0, at - _AROUND) : at + _WINDOW])
                    at = view.find(sign, at + len(sign))
    return b"\n".join(pieces)


class Hit(NamedTuple):
    """`what` of the canary `name` is in a place; never the value itself."""

    what: str
    name: str
    place: str


def found(canaries: Iterable[Canary], places: Mapping[str, bytes]) -> list[Hit]:
    """Where numbers and codes are."""
    views = {place: tuple(_views(content)) for place, content in places.items()}
    return [
        Hit(what, canary.name, place)
        for canary in canaries
        for what, value in (("number", canary.number), ("code", canary.code))
        for place, contents in views.items()
        if any(needle in content for needle in _needles(value) for content in contents)
    ]


def codes_in_context(places: Mapping[str, bytes]) -> list[str]:
    """Places where three or four digits stand behind the name of a security code."""
    return [place for place, content in places.items() if any(map(_CODE_IN_CONTEXT.search, _views(content)))]


def _views(content: bytes) -> Iterator[bytes]:
    """As it is, and with escapes undone; each also without what may stand between digits.

    Percent signs are undone apart, too: one that stands before a number by chance would swallow its beginning.
    """
    escaped = _ESCAPE.sub(_byte, content)
    for view in dict.fromkeys((content, escaped, _PERCENT.sub(_byte, escaped))):
        yield view
        yield view.translate(None, _BETWEEN)


def _byte(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode())


def _signs(begin: str) -> Iterator[bytes]:
    """How a value that begins like this begins in each form. The views undo what stands between digits."""
    plain = begin.encode()
    yield from (plain, plain.hex().encode(), bytes.fromhex(begin))
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + plain)[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]


def _needles(value: str) -> Iterator[bytes]:
    plain = value.encode()
    yield from (plain, plain.hex().encode(), bytes.fromhex(value))
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + plain)
        yield encoded[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]
