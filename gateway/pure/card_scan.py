"""Card numbers that nobody declared, anywhere in bytes.

A number is 12 to 19 digits in one group, or laid out as cards are (fours, 4-6-5, 4-6-4, halves, 6-13) with one to three
separators between groups; no digit stands before or behind it. Its check digit fits, a network has numbers that begin
like it and are as long, and what stands around it does not say that it is something else: a fraction, a UUID, a
hexadecimal word, or a name such as `order_id`.

Found are numbers in clear (also in JSON within JSON), base64 of such, and both under up to three layers of escapes:
percent, `\\u0034`, `&#52;`, UTF-16.

Clean text is rejected by a few passes in C. What they leave is bounded: of `MAX_NUMBERS` nobody looks at more.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.pure.card_networks import Networks, RareNetwork
from gateway.pure.cards import luhn_valid

MAX_NUMBERS: Final = 2000
ESCAPE_LAYERS: Final = 3
OTHER_NUMBERS: Final = (
    "order", "invoice", "receipt", "tracking", "shipment", "parcel", "timestamp", "time", "ts", "epoch", "trace",
    "span", "phone", "tel", "mobile", "fax", "ean", "gtin", "upc", "isbn", "barcode", "sku", "imei", "imsi", "iccid",
)  # fmt: skip
"""Words for numbers that are no cards, although one in forty of them looks like one."""


def _table(classes: dict[bytes, bytes]) -> bytes:
    table = bytearray(b"." * 256)
    for characters, instead in classes.items():
        for character, other in zip(characters, instead, strict=True):
            table[character] = other
    return bytes(table)


_SEPARATORS = b" -+." + "\u00a0\u2009\u2010\u2011\u2012\u2013\u202f".encode()
_DIGITS = b"0123456789"
_NO_DIGITS = bytes(set(range(256)) - set(_DIGITS))

_SHAPE = _table({_DIGITS: b"0" * 10, _SEPARATORS: b"-" * len(_SEPARATORS)})
_NUMBER = re.compile(
    rb"0000(?<!00000)(?:0{8,}+"
    rb"|(?=-{1,3}(?:0000-{1,3}0000|0{6}-{1,3}0{4,5})(?!0))"
    rb"|0000(?=-{1,3}0{8}(?!0))|00(?=-{1,3}0{13}(?!0)))"
)
"""In a shape: the first group of what is laid out as a number, or 12 digits and more."""
_RUN = re.compile(rb"0{4,19}+(?:-{1,3}0{1,15}+(?!0)){0,4}")
_GROUP = re.compile(rb"0+")
_LONGEST: Final = 19
_OLD_JCB = b"1800"
"""Nearly all other numbers with a 1 in front are times."""
_LAYOUTS: Final = frozenset({(4, 6, 5), (4, 6, 4), (8, 8), (6, 13)})
_BEGINNING: Final = 11
"""Bytes in which the first eight digits of a number stand."""

_QUOTED = bytes.maketrans(b"%=\r\n", b"=...")
_ENTITY = re.compile(rb"&(?:amp;)*+#(?:0*+(32|4[35689]|5[0-7]|160)|[xX]0*+(2[0BDEbde]|3[0-9]|[Aa]0));")

_WIDE = re.compile(rb"u20(?:09|1[0-3]|2[Ff])")
"""The separators beyond Latin-1, as JSON escapes them."""

_QUAD = rb"[IK-O][CDSTijyz][AEIMQUYcgks04][0-5grtuw-z]"
_BASE64_DIGITS = re.compile(_QUAD + rb"(?:" + _QUAD + rb"){2,}+")
"""Quads, each of three bytes that are digits or separators of ASCII: twelve digits hold three, wherever they begin."""
_IN_BASE64 = bytes.maketrans(b"IKLMNOCDSTijyzAEQUYcgkrsu012345twx", b"\0" * 34)
_BASE64_GATE = bytes(12)
_BASE64_AROUND = 40
_ALPHANUMERIC = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" + _DIGITS
_BASE64 = _ALPHANUMERIC + b"+/-_"
_STANDARD = bytes.maketrans(b"-_", b"+/")

_FRACTION = re.compile(rb"[0-9:(,]\.\Z")
"""Before the decimals of a number; style sheets leave the zero out."""
_UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_HEXADECIMAL = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{24,}", re.IGNORECASE)
_NAMES = re.compile(rb"([A-Za-z]+(?:[-_ ]?[A-Za-z]+){0,3})[^0-9A-Za-z\r\n]{0,6}\Z")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_CARDS = frozenset({"card", "cards", "pan", "cc", "credit", "debit"})
_AROUND = 64


class TooManyNumbers(ValueError):  # noqa: N818 - says what is the case
    """More numbers than anybody sends that look like cards and are none: the bytes were not searched to their end."""


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes `start` to `end` spell a card number; both are 0 for one that is not in clear."""

    network: str
    start: int = 0
    end: int = 0

    @property
    def in_clear(self) -> bool:
        return self.end > 0


class Scanner:
    """Looks for the numbers of the networks. Words of `unless_named` before a number in one group spare it."""

    def __init__(self, also: Iterable[RareNetwork] = (), unless_named: Iterable[str] = OTHER_NUMBERS) -> None:
        self._networks = Networks(also)
        self._unless_named = frozenset(word.lower() for word in unless_named)
        first = self._networks.first_digits
        self._first = frozenset(map(ord, first if "uatp" in also else first - {"1"}))

    def scan(self, data: bytes) -> Iterator[Found]:
        """In clear in the order of the bytes, then in base64, then under escapes. Raises `TooManyNumbers`."""
        yield from self._in_clear(data)
        yield from self._in_base64(data)
        for _ in range(ESCAPE_LAYERS):
            if not _escaped(data):
                return
            data = _unescaped(data)
            for found in self._in_clear(data):
                yield Found(found.network)
            yield from self._in_base64(data)

    def _in_clear(self, data: bytes) -> Iterator[Found]:
        shape = data.translate(_SHAPE)
        tried = 0
        for number in _NUMBER.finditer(shape):
            start, end = number.span()
            if end - start > _LONGEST or (data[start] not in self._first and not data.startswith(_OLD_JCB, start)):
                continue
            tried += 1
            if tried > MAX_NUMBERS:
                raise TooManyNumbers
            found = self._number(data, shape, start)
            if found is not None:
                yield found

    def _number(self, data: bytes, shape: bytes, start: int) -> Found | None:
        """The longest number that begins with this group."""
        networks = self._networks.beginning(data[start : start + _BEGINNING].translate(None, _NO_DIGITS))
        if not networks or _FRACTION.search(data[max(0, start - 2) : start]) is not None:
            return None
        run = _RUN.match(shape, start)
        assert run is not None
        digits = data[start : start + len(run[0])].translate(None, _NO_DIGITS).decode()
        groups = [group.span() for group in _GROUP.finditer(run[0])] if b"-" in run[0] else [(0, len(digits))]
        widths = tuple(last - first for first, last in groups)
        for count in range(len(groups), 0, -1):
            length, end = sum(widths[:count]), start + groups[count - 1][1]
            if (
                length in networks
                and (count == 1 or _laid_out(widths[:count]))
                and luhn_valid(digits[:length])
                and not self._something_else(data, start, end, count)
            ):
                return Found(networks[length], start, end)
        return None

    def _something_else(self, data: bytes, start: int, end: int, groups: int) -> bool:
        before, behind = data[max(0, start - _AROUND) : start], data[end : end + _AROUND]
        around = before + data[start:end] + behind
        for uuid in _UUID.finditer(around):
            if uuid.start() <= len(before) < uuid.end():
                return True
        if groups > 1:
            return False
        word = _tail(before, _ALPHANUMERIC) + data[start:end] + _head(behind, _ALPHANUMERIC)
        if len(word) > end - start and _HEXADECIMAL.fullmatch(word) is not None:
            return True
        names = _NAMES.search(before)
        words = {word.lower() for word in _WORDS.findall(names[1].decode())} if names is not None else set()
        singular = words | {word.removesuffix("s") for word in words}
        return not _CARDS & words and not self._unless_named.isdisjoint(singular)

    def _in_base64(self, data: bytes) -> Iterator[Found]:
        if _BASE64_GATE not in data.translate(_IN_BASE64):
            return
        for tried, quads in enumerate(_BASE64_DIGITS.finditer(data)):
            if tried == MAX_NUMBERS:
                raise TooManyNumbers
            for found in self._in_clear(_decoded(data, quads.start(), quads.end())):
                yield Found(found.network)


def _laid_out(widths: tuple[int, ...]) -> bool:
    return widths in _LAYOUTS or (set(widths[:-1]) == {4} and widths[-1] <= 4)


def _head(data: bytes, alphabet: bytes) -> bytes:
    return data[: len(data) - len(data.lstrip(alphabet))]


def _tail(data: bytes, alphabet: bytes) -> bytes:
    return data[len(data.rstrip(alphabet)) :]


def _escaped(data: bytes) -> bool:
    """Is there what may be an escaped digit? One byte is searched for faster than several."""
    return (
        b"%" in data
        or (b"\\" in data and (b"\\u00" in data or b"\\u20" in data))
        or (b"#" in data and _ENTITY.search(data) is not None)
        or b"\0" in data
    )


def _unescaped(data: bytes) -> bytes:
    """With one layer of escapes undone. Backslashes, and the zero bytes of UTF-16, are left out."""
    data, undone = _ENTITY.subn(_character, data, MAX_NUMBERS)
    if undone == MAX_NUMBERS:
        raise TooManyNumbers
    # Percent encoding is quoted-printable (RFC 2045 section 6.7) with another sign, and that is decoded in C.
    return binascii.a2b_qp(_WIDE.sub(b"-", data.translate(_QUOTED, b"\\\0")).replace(b"u00", b"="))


def _character(entity: re.Match[bytes]) -> bytes:
    return bytes([int(entity[1]) if entity[1] else int(entity[2], 16)])


def _decoded(data: bytes, start: int, end: int) -> bytes:
    """What base64 around its digits says, as far as a number may reach."""
    before = _tail(data[max(0, start - _BASE64_AROUND) : start], _BASE64)
    quads = before[len(before) % 4 :] + data[start:end] + _head(data[end : end + _BASE64_AROUND], _BASE64)
    left = len(quads) % 4
    whole = quads[: len(quads) - left] if left == 1 else quads + b"=" * (-left % 4)
    return binascii.a2b_base64(whole.translate(_STANDARD))
