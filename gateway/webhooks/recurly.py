"""Recurly: `recurly-signature: MILLISECONDS,HEX[,HEX]`, HMAC-SHA256 over `time.body`, identified by `$.id`.

Source: https://docs.recurly.com/recurly-subscriptions/docs/webhooks (signatures of JSON webhooks).
"""

from __future__ import annotations

from gateway.pure.webhook_macs import TimedMac, body_id


def _read(header: str) -> tuple[str, list[str]]:
    time, *signatures = header.split(",")
    return time, signatures


_SCHEME = TimedMac("recurly-signature", _read, b".", body_id("id"), unit=0.001)

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
