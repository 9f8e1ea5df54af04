"""The formats of tokens that the vault alone can tell from other text: what each keeps of a card number.

A numeric token fails the Luhn check, so that it is nobody's card number and no scanner takes it for one; `pfpt` passes
it, under a prefix that no network was given. A number that does not fit a format is an error, never a token of another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.pure.cards import luhn_valid, pan_digits, spell
from gateway.pure.ids import base58

FormatName = Literal[
    "uuid", "num_len", "t4", "6t4", "8t4", "pfpt", "alnum_len", "alnum_t4", "alnum_6t4", "preserve_format"
]
RANDOM_BYTES: Final = 16
"""What `mint` takes."""

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALNUM: Final = "0123456789" + _LETTERS
_UNISSUED: Final = "991"
_DECORATION = re.compile(r"\$\{(token|first6|last4)\}|([A-Za-z0-9.:-]+)")
_WIDTHS: Final = {"token": 22, "first6": 6, "last4": 4}
_LONGEST: Final = 64
_TOKEN = re.compile(rf"[A-Za-z0-9.:-]{{8,{_LONGEST}}}")

Mint = Callable[[str, bytes], str]
"""A number of 12 to 19 digits with a valid check digit, and 16 random bytes, to a token."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write tokens; `shortest` is the fewest digits of a number that leave enough to replace.

    `spaced` tokens are written with the separators that the number had.
    """

    name: str
    mint: Mint
    shortest: int = 12
    spaced: bool = False

    def write(self, token: str, original: str) -> str:
        """The token as it takes the place of `original`."""
        return spell(token, original) if self.spaced else token


def canonical(text: str) -> str:
    """A token as the vault knows it: groups of digits without what separates them, any other text as it is."""
    return pan_digits(text) or text


def could_be_token(text: str) -> bool:
    """Is it worth asking the vault for this text? Never for a card number."""
    token = canonical(text)
    return _TOKEN.fullmatch(token) is not None and not is_card_number(token)


def card_number(text: str) -> str | None:
    """The digits, if they are 12 to 19 whose check digit fits, separators allowed. Tokens of `pfpt` are no number,
    although theirs fits.
    """
    digits = pan_digits(text)
    if digits is None or not luhn_valid(digits) or (len(digits) == 19 and digits.startswith(_UNISSUED)):
        return None
    return digits


def is_card_number(text: str) -> bool:
    """Has it a `card_number`?"""
    return card_number(text) is not None


def decorated(pattern: str) -> Format:
    """Tokens of the operator's own shape: `${token}` (22 base58 digits) among letters, digits, `.`, `:` and `-`.

    `${first6}` and `${last4}` are those of the number. Raises ValueError for a pattern without one `${token}`, or whose
    tokens would be over 64 characters long.
    """
    parts = [(found[1], found[2]) for found in _DECORATION.finditer(pattern)]
    written = "".join(f"${{{name}}}" if name else text for name, text in parts)
    if written != pattern or [name for name, _ in parts].count("token") != 1:
        raise ValueError("a pattern is letters, digits and .:- around one ${token}, with ${first6} and ${last4}")
    if sum(_WIDTHS[name] if name else len(text) for name, text in parts) > _LONGEST:
        raise ValueError(f"a token has {_LONGEST} characters at most")

    def mint(digits: str, entropy: bytes) -> str:
        values = {
            "token": base58(int.from_bytes(entropy), _WIDTHS["token"]),
            "first6": digits[:6],
            "last4": digits[-4:],
        }
        return "".join(values[name] if name else text for name, text in parts)

    return Format(f"decorated {pattern}", mint)


def _numeric(first: int, last: int) -> Mint:
    """Keeps the first and last digits; all replacements that make the whole fail the Luhn check are as likely."""

    def mint(digits: str, entropy: bytes) -> str:
        before, after = digits[:first], digits[len(digits) - last :]
        rest, check = divmod(int.from_bytes(entropy), 9)
        middle = _random_digits(rest, len(digits) - first - last - 1)
        token = f"{before}{middle}{check}{after}"
        return f"{before}{middle}9{after}" if luhn_valid(token) else token

    return mint


def _pfpt(digits: str, entropy: bytes) -> str:
    """19 digits: 991, the first two, zeros, random digits, the last four; Luhn-valid."""
    width = min(len(digits) - 6, 10)
    middle = _random_digits(int.from_bytes(entropy), width - 1)
    head = f"{_UNISSUED}{digits[:2]}{'0' * (10 - width)}{middle}"
    return next(token for check in "0123456789" if luhn_valid(token := f"{head}{check}{digits[-4:]}"))


def _alphanumeric(first: int, last: int) -> Mint:
    """Capitals and digits between what is kept, one letter at least. Under 15 digits no more than four are kept."""

    def mint(digits: str, entropy: bytes) -> str:
        kept = first if len(digits) >= 15 else min(first, 4)
        width = len(digits) - kept - last
        number, place = divmod(int.from_bytes(entropy), width)
        number, letter = divmod(number, len(_LETTERS))
        drawn = [_ALNUM[number // len(_ALNUM) ** n % len(_ALNUM)] for n in range(width)]
        if not any(character in _LETTERS for character in drawn):
            drawn[place] = _LETTERS[letter]
        return digits[:kept] + "".join(drawn) + digits[len(digits) - last :]

    return mint


def _uuid(_: str, entropy: bytes) -> str:
    """RFC 9562 section 5.4: version 4."""
    number = int.from_bytes(entropy) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _random_digits(number: int, width: int) -> str:
    return f"{number % 10**width:0{width}}"


FORMATS: Final[Mapping[str, Format]] = {
    "uuid": Format("uuid", _uuid),
    "num_len": Format("num_len", _numeric(0, 0)),
    "t4": Format("t4", _numeric(0, 4)),
    "6t4": Format("6t4", _numeric(6, 4), shortest=13),
    "8t4": Format("8t4", _numeric(8, 4), shortest=16),
    "pfpt": Format("pfpt", _pfpt),
    "alnum_len": Format("alnum_len", _alphanumeric(0, 0)),
    "alnum_t4": Format("alnum_t4", _alphanumeric(0, 4)),
    "alnum_6t4": Format("alnum_6t4", _alphanumeric(6, 4)),
    "preserve_format": Format("preserve_format", _numeric(0, 0), spaced=True),
}
