"""Mollie (next-generation webhooks): `X-Mollie-Signature: [sha256=]HEX`, HMAC-SHA256 of the body.

Source: https://docs.mollie.com/reference/webhooks-best-practices. Deliveries without a signature are of the
older kind, and refused.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, body_id

_SCHEME = BodyMac("x-mollie-signature", prefix="sha256=", optional_prefix=True, identity=body_id("id"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
