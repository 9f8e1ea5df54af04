"""Flutterwave (v3): `verif-hash`, the secret hash itself; nothing is signed.

Source: https://developer.flutterwave.com/v3.0.0/docs/webhooks. Whoever reads a delivery can send another: let them come
by TLS, and ask Flutterwave for what they tell. `event` and `$.data.id` are the key.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.pure.webhook_macs import body_digest, body_id, presented, text_secret
from gateway.pure.webhooks import Arrival, Coverage, Verified, needed_field

HEADER = "verif-hash"
_event, _subject = body_id("event"), body_id("data", "id")

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    index = presented(keys, needed_field(arrival, HEADER).encode("utf-8", "replace"))
    digest, named = body_digest(arrival.body), [_event(arrival.body), _subject(arrival.body)]
    return Verified(digest if digest in named else ":".join(named), Coverage.NONE, index)
