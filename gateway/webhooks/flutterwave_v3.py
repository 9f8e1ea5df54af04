"""Flutterwave (v3): `verif-hash`, the secret hash itself; nothing is signed.

Source: https://developer.flutterwave.com/v3.0.0/docs/webhooks. Whoever reads a delivery can send another: let them come
by TLS, and ask Flutterwave for what they tell. `event` and `$.data.id` are the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from gateway.pure.webhook_macs import body_digest, body_id, text_secret
from gateway.pure.webhooks import MAX_SECRETS, Arrival, Coverage, Verified, lone_field, mismatch, missing

HEADER = "verif-hash"
_event, _subject = body_id("event"), body_id("data", "id")

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text = lone_field(arrival, HEADER)
    if not text:
        raise missing(HEADER)
    given = text.encode("utf-8", "replace")
    fits = [hmac.compare_digest(key, given) for key in keys[:MAX_SECRETS]]
    if True not in fits:
        raise mismatch()
    digest, named = body_digest(arrival.body), [_event(arrival.body), _subject(arrival.body)]
    return Verified(digest if digest in named else ":".join(named), Coverage.NONE, fits.index(True))
