"""Paystack: `x-paystack-signature`, HMAC-SHA512 of the body in hexadecimal digits, keyed with the secret API key.

Source: https://paystack.com/docs/payments/webhooks/.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac

_SCHEME = BodyMac("x-paystack-signature", digest="sha512")

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
