"""Names that the gateway makes up, written in base58 (Bitcoin's alphabet: without 0, O, I and l)."""

from __future__ import annotations

PAYMENT_ID_BYTES = 16
"""Random bytes that `payment_id` takes."""

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_PAIRS = tuple(first + second for first in BASE58 for second in BASE58)


def base58(number: int, width: int) -> str:
    """The last `width` base58 digits of a number, most significant first; `width` is even."""
    pairs = []
    for _ in range(width // 2):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    pairs.reverse()
    return "".join(pairs)


def payment_id(entropy: bytes) -> str:
    """Our own name of a payment, of PAYMENT_ID_BYTES random bytes."""
    return f"pay_{base58(int.from_bytes(entropy[:PAYMENT_ID_BYTES]), 22)}"
