"""Coinbase Commerce: `X-CC-Webhook-Signature`, HMAC-SHA256 of the body in hexadecimal digits.

Source: https://docs.cdp.coinbase.com/commerce/docs/webhooks-security. What repeats is `$.event`: the outer id and the
number of the attempt are new each time.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac, body_id, body_part

_SCHEME = BodyMac("x-cc-webhook-signature", identity=body_id("event", "id"), content=body_part("event"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
