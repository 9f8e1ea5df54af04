"""Square: `x-square-hmacsha256-signature`, HMAC-SHA256 in base64 of the notification URL, as configured, and the body.

Source: https://developer.squareup.com/docs/webhooks/step3validate. The older `x-square-signature` (SHA-1) is not taken.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, base64_signature, body_id

_SCHEME = BodyMac("x-square-hmacsha256-signature", base64_signature, identity=body_id("event_id"), url_first=True)

binds_url = True
"""The inbox needs `url`: what a client says of the host is not believed."""

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
