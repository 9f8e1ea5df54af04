"""Authorize.Net: `X-ANET-Signature: sha512=HEX`, HMAC-SHA512 of the body, keyed with the text of the signature key.

Source: https://developer.authorize.net/api/reference/features/webhooks.html. Digits come in both cases.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, any_hex_signature, body_id

_SCHEME = BodyMac("x-anet-signature", any_hex_signature, "sha512", prefix="sha512=", identity=body_id("notificationId"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
