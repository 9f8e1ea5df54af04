"""Card numbers (PAN) as text: what they look like, never whose they are."""

from __future__ import annotations

import re

_PAN = re.compile(r"[0-9]+(?:[ -][0-9]+)*")
_SEPARATORS = str.maketrans("", "", " -")
_DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))


def pan_digits(text: str) -> str | None:
    """The 12 to 19 digits (ISO/IEC 7812-1) of a text, single spaces or dashes between groups left out; else None.

    Says nothing of the check digit.
    """
    if _PAN.fullmatch(text) is None:
        return None
    digits = text.translate(_SEPARATORS)
    return digits if 12 <= len(digits) <= 19 else None


def luhn_valid(digits: str) -> bool:
    """Does the check digit fit (ISO/IEC 7812-1 annex B)?"""
    reverse = digits.encode("ascii")[::-1]
    return (sum(reverse[::2].translate(_PLAIN)) + sum(reverse[1::2].translate(_DOUBLED))) % 10 == 0


def mask(digits: str) -> str:
    """First six and last four digits, as PCI DSS 3.4.1 lets them be shown; the rest as `*`."""
    return digits[:6] + "*" * (len(digits) - 10) + digits[-4:]
