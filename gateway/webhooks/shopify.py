"""Shopify: `X-Shopify-Hmac-SHA256`, HMAC-SHA256 of the body in base64.

Source: https://shopify.dev/docs/apps/build/webhooks/subscribe/https. The id of the event is in a field that
is not signed.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, base64_signature

_SCHEME = BodyMac("x-shopify-hmac-sha256", base64_signature)

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
