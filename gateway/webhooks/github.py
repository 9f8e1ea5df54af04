"""GitHub: `X-Hub-Signature-256: sha256=HEX`, HMAC-SHA256 of the body.

Source: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries. X-GitHub-Delivery is not signed.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import BodyMac

_SCHEME = BodyMac("x-hub-signature-256", prefix="sha256=")

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
