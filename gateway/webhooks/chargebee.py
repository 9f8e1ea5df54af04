"""Chargebee: nothing is signed; deliveries come with the user and password that are set for the endpoint (RFC 7617).

Source: https://www.chargebee.com/docs/2.0/events_and_webhooks.html. The secret is `USER:PASSWORD`. Whoever reads a
delivery can send another: let them come by TLS, and ask Chargebee for what they tell. `$.id` is the key.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.pure.webhook_macs import base64_signature, body_id, presented, text_secret
from gateway.pure.webhooks import Arrival, Coverage, Verified, malformed, needed_field

HEADER = "authorization"
_identity = body_id("id")


def parse_secret(secret: bytes) -> bytes:
    """USER:PASSWORD as it is. Raises ValueError."""
    user, colon, password = text_secret(secret).partition(b":")
    if not (user and colon and password):
        raise ValueError("the credentials of Chargebee are USER:PASSWORD")
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    scheme, _, encoded = text.partition(" ")
    credentials = base64_signature(encoded.strip()) if scheme.lower() == "basic" else None
    if not credentials:
        raise malformed("Send the Authorization header as Basic CREDENTIALS.")
    return Verified(_identity(arrival.body), Coverage.NONE, presented(keys, credentials))
