"""Razorpay: `X-Razorpay-Signature`, HMAC-SHA256 of the body in hexadecimal digits.

Source: https://razorpay.com/docs/webhooks/validate-test/. X-Razorpay-Event-Id is not signed.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac

_SCHEME = BodyMac("x-razorpay-signature")

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
