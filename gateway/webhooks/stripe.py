"""Stripe: `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX]`, HMAC-SHA256 over `t.body` keyed with the secret's text.

Source: https://docs.stripe.com/webhooks#verify-manually. Schemes other than v1 are ignored, v0 of test mode above all:
accepting it would be a downgrade. Snapshot and thin events alike are identified by `$.id`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhooks import (
    MAX_SECRETS,
    MAX_SIGNATURES,
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    hmac_fits,
    malformed,
    mismatch,
    needed_field,
    signed_object,
    signed_time,
)

HEADER = "stripe-signature"
AHEAD = 60.0
"""Seconds a signature may come from the future. Stripe signs at each attempt: only clocks that differ explain more."""

_SECRET = re.compile(rb"whsec_[A-Za-z0-9+/=_-]{16,249}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HEX = re.compile(r"[0-9a-f]{64}")
_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


def parse_secret(secret: bytes) -> bytes:
    """The endpoint's signing secret; its text is the key, prefix included. Raises ValueError for any other text."""
    if _SECRET.fullmatch(secret) is None:
        raise ValueError("a Stripe signing secret starts with whsec_ (Dashboard: Webhooks, the endpoint, Reveal)")
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`. A signature may be `tolerance` seconds old, and at most `AHEAD` seconds early."""
    header = needed_field(arrival, HEADER)
    time, candidates = _read(header)
    sent = signed_time(time)
    secret = _matching(keys, candidates, time.encode() + b".", arrival.body)
    check_fresh(sent, arrival, behind=tolerance, ahead=min(tolerance, AHEAD))
    event = signed_object(arrival.body)
    key, live = event.get("id"), event.get("livemode")
    if not isinstance(key, str) or _EVENT_ID.fullmatch(key) is None:
        raise Refused(Reason.DELIVERY_INVALID, "Send an event with an id: letters, digits, _ and -, at most 255.")
    return Verified(key, Coverage.FULL, secret, live if isinstance(live, bool) else None)


def _read(header: str) -> tuple[str, list[bytes]]:
    times: list[str] = []
    candidates: list[str] = []
    for element in header.split(","):
        name, _, value = element.partition("=")
        if _NAME.fullmatch(name) is None or not value:
            raise malformed("Send the Stripe-Signature header as t=SECONDS,v1=SIGNATURE.")
        if name == "t":
            times.append(value)
        elif name == "v1":
            candidates.append(value)
    if len(times) != 1 or not 1 <= len(candidates) <= MAX_SIGNATURES:
        raise malformed(f"Send one t and 1 to {MAX_SIGNATURES} v1 in the Stripe-Signature header.")
    return times[0], [bytes.fromhex(text) for text in candidates if _HEX.fullmatch(text)]


def _matching(keys: Sequence[bytes], candidates: Sequence[bytes], prefix: bytes, body: bytes) -> int:
    for index, key in enumerate(keys[:MAX_SECRETS]):
        if hmac_fits(candidates, key, prefix, body):
            return index
    raise mismatch()
