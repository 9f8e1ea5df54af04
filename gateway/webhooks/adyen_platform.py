"""Adyen, platform and management webhooks: `HmacSignature`, HMAC-SHA256 of the body in base64, the key in hexadecimal.

Source: https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures. Standard
webhooks, whose signature is inside of the body, are another scheme.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, base64_signature, hex_secret

_SCHEME = BodyMac("hmacsignature", base64_signature, parse_secret=hex_secret)

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
