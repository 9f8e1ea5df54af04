"""Paddle Billing: `Paddle-Signature: ts=SECONDS;h1=HEX[;h1=HEX]`, HMAC-SHA256 over `ts:body`.

Source: https://developer.paddle.com/webhooks/signature-verification. Two `h1` come while a secret is being replaced.
A delivery is identified by `$.event_id`.
"""

from __future__ import annotations

from gateway.pure.webhook_macs import TimedMac, body_id
from gateway.pure.webhooks import malformed


def _read(header: str) -> tuple[str, list[str]]:
    pairs = [element.partition("=") for element in header.split(";")]
    times = [value for name, _, value in pairs if name == "ts"]
    signatures = [value for name, _, value in pairs if name == "h1"]
    if len(times) != 1 or len(pairs) != len(times) + len(signatures):
        raise malformed("Send the Paddle-Signature header as ts=SECONDS;h1=SIGNATURE.")
    return times[0], signatures


_SCHEME = TimedMac("paddle-signature", _read, b":", body_id("event_id"))

parse_secret = _SCHEME.parse_secret
verify = _SCHEME.verify
