"""Lemon Squeezy: `X-Signature`, HMAC-SHA256 of the body in hexadecimal digits.

Source: https://docs.lemonsqueezy.com/help/webhooks/signing-requests. A delivery has no id of its own.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac

_SCHEME = BodyMac("x-signature")

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
