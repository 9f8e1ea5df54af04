"""Names that the gateway makes up: in hex, or in base58 (Bitcoin's alphabet: without 0, O, I and l).

They sort by their time, so that new rows of one moment are neighbours in every index that begins with one.
"""

from __future__ import annotations

import re

PAYMENT_ID_BYTES = 10
"""Random bytes that `payment_id` takes."""
REQUEST_ID_BYTES = 10
"""Random bytes that `request_id` takes."""

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_PROVIDERS = re.compile(r"(?!\.{1,2}$)[!-~]{1,255}")
_PAIRS = tuple(first + second for first in BASE58 for second in BASE58)
_OF_PAIRS = len(_PAIRS)


def base58(number: int, width: int) -> str:
    """The last `width` base58 digits of a number, most significant first; `width` is even."""
    pairs = [""] * (width // 2)
    for place in range(width // 2 - 1, -1, -1):
        pairs[place] = _PAIRS[number % _OF_PAIRS]
        number //= _OF_PAIRS
    return "".join(pairs)


def request_id(now: float, entropy: bytes) -> str:
    """Our own name of a request: 32 hex digits, milliseconds of Unix time `now` and REQUEST_ID_BYTES random bytes."""
    return f"{int(now * 1000):012x}{entropy[:REQUEST_ID_BYTES].hex()}"


def is_provider_id(text: str) -> bool:
    """May a provider call a payment so? 1 to 255 visible ASCII characters; nothing that leads elsewhere in a path."""
    return _PROVIDERS.fullmatch(text) is not None


def payment_id(now: float, entropy: bytes) -> str:
    """Our own name of a payment: milliseconds of Unix time `now`, then PAYMENT_ID_BYTES random bytes."""
    number = int(now * 1000) << 8 * PAYMENT_ID_BYTES | int.from_bytes(entropy[:PAYMENT_ID_BYTES])
    return f"pay_{base58(number, 22)}"
