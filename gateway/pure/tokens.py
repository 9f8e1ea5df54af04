"""Tokens: what stands for a card number or for sensitive authentication data, and how our own are known again.

The format `opaque` is the prefix of its class (`tok` for a card number), the environment, 22 base58 digits of 128
random bits and a checksum of 4 digits under a key of the tenant, so that a foreign or mistyped token is known without a
look-up. All other formats are in `token_formats`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Literal

from gateway.pure.ids import BASE58, base58
from gateway.pure.macs import Mac
from gateway.pure.sensitive import SadClass

TokenClass = Literal["pan"] | SadClass

OPAQUE_BYTES = 16
"""Random bytes that `opaque` takes."""

_PREFIXES: dict[TokenClass, str] = {"pan": "tok", "cvc": "cvc", "track": "trk", "pin": "pin"}
_CLASSES: dict[str, TokenClass] = {prefix: name for name, prefix in _PREFIXES.items()}
_OPAQUE = re.compile(rf"(({'|'.join(_CLASSES)})_[a-z0-9]{{1,16}}_[{BASE58}]{{22}})([{BASE58}]{{4}})")


def opaque(token_class: TokenClass, environment: str, entropy: bytes, mac: Mac) -> str:
    """The opaque token of 16 random bytes. `environment` is 1 to 16 of a-z and 0-9; `mac` is the tenant's."""
    head = f"{_PREFIXES[token_class]}_{environment}_{base58(int.from_bytes(entropy), 22)}"
    return head + _checksum(head, mac)


def opaque_class(text: str, mac: Mac) -> TokenClass | None:
    """The class of one of the tenant's own opaque tokens; None for any other text."""
    found = _OPAQUE.fullmatch(text)
    if found is None or not hmac.compare_digest(_checksum(found[1], mac), found[3]):
        return None
    return _CLASSES[found[2]]


def class_of(token: str) -> TokenClass:
    """The class that the prefix of one of our opaque tokens names."""
    return _CLASSES[token[:3]]


def fingerprint(pan: str, mac: Mac, merchant: str | None = None) -> bytes:
    """The keyed hash of an entire PAN (PCI DSS 3.5.1.1), by which a tenant's vault finds the token it has; of those
    that were made for one merchant of the tenant, if one is named.
    """
    if merchant is None:
        return mac.digest(b"pangate pan fingerprint\0" + pan.encode("ascii"))
    named = merchant.encode()
    of_merchant = b"pangate merchant pan fingerprint\0" + len(named).to_bytes(4) + named
    return mac.digest(of_merchant + pan.encode("ascii"))


def fingerprints(
    pan: str, macs: Iterable[tuple[int, Mac]], merchant: str | None = None
) -> tuple[bytes | None, bytes | None]:
    """By the key of an even version, and by that of an odd one: both, while the one follows the other."""
    found: list[bytes | None] = [None, None]
    for version, mac in macs:
        found[version % 2] = fingerprint(pan, mac, merchant)
    return found[0], found[1]


def associated_data(tenant: str, token: str, token_class: TokenClass) -> bytes:
    """What a sealed value is bound to: a row put in another's place does not open."""
    whose, which, what = tenant.encode(), token.encode(), token_class.encode()
    return len(whose).to_bytes(4) + whose + len(which).to_bytes(4) + which + len(what).to_bytes(4) + what


def _checksum(head: str, mac: Mac) -> str:
    digest = mac.digest(b"pangate token checksum\0" + head.encode("ascii"))
    return base58(int.from_bytes(digest[:8]), 4)
