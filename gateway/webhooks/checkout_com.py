"""Checkout.com: `Cko-Signature`, HMAC-SHA256 of the body in hexadecimal digits, identified by `$.id`.

Source: https://www.checkout.com/docs/developer-resources/webhooks/manage-webhooks.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, body_id

_SCHEME = BodyMac("cko-signature", identity=body_id("id"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
