"""Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`, or the same three under `svix-`.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. Signed is
`id.timestamp.body`: `v1` HMAC-SHA256 with a `whsec_` key, `v1a` Ed25519 with a `whpk_` public key. A key is used for
the version it was made for and no other: a public key is never an HMAC key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.pure.webhooks import (
    MAX_SECRETS,
    MAX_SIGNATURES,
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    hmac_fits,
    lone_field,
    malformed,
    mismatch,
    missing,
    plain_base64,
    shared_key,
    signed_time,
)

FIELDS = ("id", "timestamp", "signature")
PREFIXES = ("webhook-", "svix-")

_SHARED, _PUBLIC, _PRIVATE = b"whsec_", b"whpk_", b"whsk_"
_ID = re.compile(r"[!-\-/-~]{1,255}")
"""Visible ASCII but the full stop, which separates the parts that are signed."""


def parse_secret(secret: bytes) -> bytes:
    """The decoded key behind its prefix, `whsec_` (24 to 64 bytes) or `whpk_` (32 bytes). Raises ValueError."""
    if secret.startswith(_PRIVATE):
        raise ValueError("whsk_ is the sender's private key; configure the public key, which starts with whpk_")
    if not secret.startswith(_PUBLIC):
        return _SHARED + shared_key(secret)
    key = plain_base64(secret.removeprefix(_PUBLIC))
    if key is None or len(key) != 32:
        raise ValueError("a public key of Standard Webhooks is whpk_ and 32 bytes in base64")
    return _PUBLIC + key


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`. The signature's time may differ by `tolerance` seconds both ways."""
    event_id, time, signatures = _fields(arrival)
    if _ID.fullmatch(event_id) is None:
        raise malformed("Send an id of 1 to 255 visible ASCII characters without a full stop.")
    sent = signed_time(time)
    candidates = _candidates(signatures)
    secret = _matching(keys, candidates, f"{event_id}.{time}.".encode(), arrival.body)
    check_fresh(sent, arrival, behind=tolerance, ahead=tolerance)
    return Verified(event_id, Coverage.FULL, secret)


def _fields(arrival: Arrival) -> tuple[str, ...]:
    """The three fields; if both spellings of their names came, they must agree."""
    spelled = [tuple(lone_field(arrival, prefix + name) for name in FIELDS) for prefix in PREFIXES]
    present = [values for values in spelled if any(values)]
    if len(present) == len(PREFIXES) and present[0] != present[1]:
        raise malformed("Send webhook- or svix- headers; they must not contradict one another.")
    values = present[0] if present else ("", "", "")
    for name, value in zip(FIELDS, values, strict=True):
        if not value:
            raise missing("webhook-" + name)
    return values


def _candidates(signatures: str) -> list[tuple[str, bytes]]:
    elements = signatures.split(" ")
    if len(elements) > MAX_SIGNATURES:
        raise malformed(f"Send at most {MAX_SIGNATURES} signatures.")
    candidates = []
    for element in elements:
        version, comma, text = element.partition(",")
        if not (version and comma and text):
            raise malformed("Send signatures as VERSION,BASE64, separated by single spaces.")
        if (signature := plain_base64(text)) is not None:
            candidates.append((version, signature))
    return candidates


def _matching(keys: Sequence[bytes], candidates: Sequence[tuple[str, bytes]], prefix: bytes, body: bytes) -> int:
    shared = [signature for version, signature in candidates if version == "v1"]
    public = [signature for version, signature in candidates if version == "v1a"]
    for index, key in enumerate(keys[:MAX_SECRETS]):
        if key.startswith(_SHARED):
            fits = hmac_fits(shared, key.removeprefix(_SHARED), prefix, body)
        else:
            fits = _ed25519_fits(public, key.removeprefix(_PUBLIC), prefix, body)
        if fits:
            return index
    raise mismatch()


def _ed25519_fits(candidates: Sequence[bytes], key: bytes, prefix: bytes, body: bytes) -> bool:
    public = Ed25519PublicKey.from_public_bytes(key)
    for candidate in candidates:
        try:
            public.verify(candidate, prefix + body)
        except InvalidSignature:
            continue
        return True
    return False
