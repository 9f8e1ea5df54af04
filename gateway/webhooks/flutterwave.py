"""Flutterwave (v4): `flutterwave-signature`, HMAC-SHA256 of the body in base64.

Source: https://developer.flutterwave.com/docs/webhooks. The `verif-hash` of v3 signs nothing and is not taken.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, base64_signature

_SCHEME = BodyMac("flutterwave-signature", base64_signature)

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
