"""Twilio: `X-Twilio-Signature`, HMAC-SHA1 in base64 of the address and the sorted fields of the form, or of the address
alone where its query holds the digest of the body (`bodySHA256`).

Source: https://www.twilio.com/docs/usage/webhooks/webhooks-security. The secret is the account's auth token. The
idempotency token in a header field is not signed: a body is its own identity.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import base64_signature, body_digest, matching, text_secret
from gateway.pure.webhooks import Arrival, Coverage, Verified, lone_field, malformed, mismatch, missing

HEADER = "x-twilio-signature"
_FORM = "application/x-www-form-urlencoded"
_DIGEST = "bodySHA256"

binds_url = True
"""The inbox needs `url`: what a client says of the host is not believed. Its query is that of the request."""

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text = lone_field(arrival, HEADER)
    if not text:
        raise missing(HEADER)
    address = arrival.url.partition("?")[0] + (f"?{arrival.query}" if arrival.query else "")
    signature = base64_signature(text)
    candidates = [] if signature is None else [signature]
    index = matching(keys, candidates, address.encode(), _signed_fields(arrival), "sha1")
    return Verified(body_digest(arrival.body), Coverage.BODY, index)


def _signed_fields(arrival: Arrival) -> bytes:
    """What of the body stands behind the address. A body that nothing covers is refused."""
    digests = parse_qs(arrival.query).get(_DIGEST, [])
    if digests:
        given = digests[0].lower().encode("utf-8", "replace")
        if len(digests) != 1 or not hmac.compare_digest(hashlib.sha256(arrival.body).hexdigest().encode(), given):
            raise mismatch()
        return b""
    if arrival.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise malformed(f"Send a form, or {_DIGEST} in the query.")
    try:
        fields = parse_qs(arrival.body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Refused(Reason.DELIVERY_INVALID, "Send a form.") from None
    return "".join(name + value for name in sorted(fields) for value in sorted(set(fields[name]))).encode()
