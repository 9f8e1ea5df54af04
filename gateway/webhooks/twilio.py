"""Twilio: `X-Twilio-Signature`, HMAC-SHA1 in base64 of the address and the sorted fields of the form, or of the address
alone where its query holds the digest of the body (`bodySHA256`).

Source: https://www.twilio.com/docs/usage/webhooks/webhooks-security. The secret is the account's auth token. The
idempotency token in a header field is not signed: a body is its own identity.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import parse_qs

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import base64_signature, body_digest, matching, text_secret
from gateway.pure.webhooks import Arrival, Coverage, Verified, malformed, mismatch, needed_field

HEADER = "x-twilio-signature"
_FORM = "application/x-www-form-urlencoded"
_DIGEST = "bodySHA256"
_PORTS = {"http": ":80", "https": ":443"}
_PORT = re.compile(r":[0-9]+$")

binds_url = True
"""The inbox needs `url`: what a client says of the host is not believed. Its query is that of the request."""

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    signature, fields = base64_signature(text), _signed_fields(arrival)
    candidates = [] if signature is None else [signature]
    written, other = _addresses(arrival)
    try:
        index = matching(keys, candidates, written.encode(), fields, "sha1")
    except Refused:
        index = matching(keys, candidates, other.encode(), fields, "sha1")
    return Verified(body_digest(arrival.body), Coverage.BODY, index)


def _addresses(arrival: Arrival) -> tuple[str, str]:
    """As it is written, and with the port of its scheme left out or put in: Twilio signs the one or the other."""
    address = arrival.url.partition("?")[0] + (f"?{arrival.query}" if arrival.query else "")
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    port = _PORTS.get(scheme, "")
    plain = host.removesuffix(port)
    host = plain if plain != host else host + port if _PORT.search(host) is None else host
    return address, f"{scheme}://{host}{slash}{path}"


def _signed_fields(arrival: Arrival) -> bytes:
    """What of the body stands behind the address. A body that nothing covers is refused."""
    digests = parse_qs(arrival.query).get(_DIGEST, [])
    if digests:
        given = digests[0].lower().encode("utf-8", "replace")
        if len(digests) != 1 or not hmac.compare_digest(hashlib.sha256(arrival.body).hexdigest().encode(), given):
            raise mismatch()
        return b""
    if not arrival.body:
        return b""
    if arrival.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise malformed(f"Send a form, or {_DIGEST} in the query.")
    try:
        fields = parse_qs(arrival.body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Refused(Reason.DELIVERY_INVALID, "Send a form.") from None
    return "".join(name + value for name in sorted(fields) for value in sorted(set(fields[name]))).encode()
