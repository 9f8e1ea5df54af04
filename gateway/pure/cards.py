"""Card numbers (PAN) as text: what they look like, never whose they are."""

from __future__ import annotations

import re

_PAN = re.compile(r"[0-9]+(?:[ -][0-9]+)*")
_EXPIRIES = tuple(
    re.compile(text, re.ASCII)
    for text in (
        r"(?P<month>\d\d)(?: ?/ ?)?(?P<year>\d\d)",
        r"(?P<month>\d\d) ?/ ?(?P<year>\d{4})",
        r"(?P<year>\d{4})-(?P<month>\d\d)",
        r"(?P<month>\d{1,2})\n(?P<year>\d\d|\d{4})",
    )
)
"""As one text; the last is month and year that stood apart."""
_SEPARATORS = str.maketrans("", "", " -")
_DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))


def pan_digits(text: str) -> str | None:
    """The 12 to 19 digits (ISO/IEC 7812-1) of a text, single spaces or dashes between groups left out; else None.

    Says nothing of the check digit.
    """
    if text.isascii() and text.isdigit():
        digits = text
    elif _PAN.fullmatch(text) is not None:
        digits = text.translate(_SEPARATORS)
    else:
        return None
    return digits if 12 <= len(digits) <= 19 else None


def luhn_valid(digits: str) -> bool:
    """Does the check digit fit (ISO/IEC 7812-1 annex B)?"""
    reverse = digits.encode("ascii")[::-1]
    return (sum(reverse[::2].translate(_PLAIN)) + sum(reverse[1::2].translate(_DOUBLED))) % 10 == 0


def mask(digits: str, first: int = 6, last: int = 4) -> str:
    """The first and last digits of a card number, the rest as `*`.

    PCI DSS 3.4.1 lets the BIN and the last four be shown: up to eight and four digits of sixteen or more, and the first
    six of a shorter number.
    """
    shown = first if len(digits) >= 16 else min(first, 6)
    return digits[:shown] + "*" * (len(digits) - shown - last) + digits[len(digits) - last :]


def spell(digits: str, original: str) -> str:
    """Digits, or what stands for them, with the separators that the original had."""
    each = iter(digits)
    return "".join(next(each) if character.isdigit() else character for character in original)


def expiry(*texts: str) -> str | None:
    """The expiry of a card as YYYY-MM: of MM/YY, MM/YYYY, MMYY or YYYY-MM, or of a month and a year (two or four
    digits, of this century); None for anything else.
    """
    text = "\n".join(texts)
    found = next((match for pattern in _EXPIRIES if (match := pattern.fullmatch(text))), None)
    if found is None or not 1 <= int(found["month"]) <= 12:
        return None
    return f"20{found['year'][-2:]}-{int(found['month']):02}" if found["year"][:-2] in ("", "20") else None
