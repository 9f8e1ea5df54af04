"""Braintree: a form of `bt_signature` and `bt_payload`, HMAC-SHA1 of the payload in hexadecimal digits.

Source: https://developer.paypal.com/braintree/docs/guides/webhooks/parse and the SDKs' `webhook_notification.parse`.
The secret is `PUBLIC_KEY:PRIVATE_KEY`; the key of the HMAC is the SHA-1 of the private one. A signature is
`PUBLIC_KEY|HEX`, several are joined by `&`. A payload names no event: it is its own identity. Braintree tries an
endpoint by a GET with `bt_challenge`, which is answered by its HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import parse_qs, parse_qsl

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import body_digest, hex_signature, matching, text_secret
from gateway.pure.webhooks import MAX_SIGNATURES, Arrival, Coverage, Greeting, Verified, malformed, missing

_SIGNATURE, _PAYLOAD, _CHALLENGE = "bt_signature", "bt_payload", "bt_challenge"
_CHALLENGES = re.compile(r"[a-f0-9]{20,32}")


def parse_secret(secret: bytes) -> bytes:
    """PUBLIC_KEY:PRIVATE_KEY as it is. Raises ValueError."""
    public, colon, private = text_secret(secret).partition(b":")
    if not (public and colon and private) or not secret.isascii():
        raise ValueError("a secret of Braintree is PUBLIC_KEY:PRIVATE_KEY")
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text, payload = _form(arrival.body)
    pairs = [pair.split("|") for pair in text.split("&")]
    if len(pairs) > MAX_SIGNATURES or any(len(pair) != 2 for pair in pairs):
        raise malformed(f"Send {_SIGNATURE} as PUBLIC_KEY|SIGNATURE.")
    if _CHALLENGES.fullmatch(payload.decode().strip()):
        raise malformed("Send a notification: what is signed here for whoever asks is none.")
    known = [key.partition(b":") for key in keys]
    named = {public.decode() for public, _, _ in known}
    candidates = [raw for public, digits in pairs if public in named and (raw := hex_signature(digits)) is not None]
    macs = [_mac_key(private) for _, _, private in known]
    try:
        index = matching(macs, candidates, b"", payload, "sha1")
    except Refused:  # a line feed at the end is lost on some ways; the SDKs try with it too
        payload += b"\n"
        index = matching(macs, candidates, b"", payload, "sha1")
    return Verified(body_digest(payload), Coverage.BODY, index)


def handshake(arrival: Arrival, keys: Sequence[bytes]) -> Greeting | None:
    """By the first of the keys. Raises `Refused` for a challenge that is none of Braintree's: what is it to sign?"""
    if arrival.method != "GET":
        return None
    given = parse_qs(arrival.query, keep_blank_values=True).get(_CHALLENGE, [])
    if len(given) != 1 or _CHALLENGES.fullmatch(given[0]) is None:
        raise Refused(Reason.DELIVERY_INVALID, f"Send {_CHALLENGE} once, in 20 to 32 hexadecimal digits.")
    public, _, private = keys[0].partition(b":")
    mac = hmac.new(_mac_key(private), given[0].encode(), "sha1").hexdigest()
    return Greeting({"Content-Type": "text/plain"}, public + b"|" + mac.encode())


def _mac_key(private: bytes) -> bytes:
    return hashlib.sha1(private, usedforsecurity=False).digest()


def _form(body: bytes) -> tuple[str, bytes]:
    """The signatures, and the bytes that are signed."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Refused(Reason.DELIVERY_INVALID, "Send a form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused(Reason.DELIVERY_INVALID, "Send each field of the form once.")
    if not fields.get(_SIGNATURE):
        raise missing(_SIGNATURE)
    return fields[_SIGNATURE], fields.get(_PAYLOAD, "").encode()
