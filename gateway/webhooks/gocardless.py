"""GoCardless: `Webhook-Signature`, HMAC-SHA256 of the body in hexadecimal digits.

Source: https://developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks. A body is a batch of events.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac

_SCHEME = BodyMac("webhook-signature")

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
