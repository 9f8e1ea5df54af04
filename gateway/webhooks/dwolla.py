"""Dwolla: `X-Request-Signature-SHA-256`, HMAC-SHA256 of the body in hexadecimal digits, identified by `$.id`.

Source: https://developers.dwolla.com/docs/working-with-webhooks.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, body_id

_SCHEME = BodyMac("x-request-signature-sha-256", identity=body_id("id"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
