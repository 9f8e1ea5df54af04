"""Mercado Pago: `x-signature: ts=TIME,v1=HEX`, HMAC-SHA256 of `id:…;request-id:…;ts:…;`; what is absent is left out.

Source: https://www.mercadopago.com/developers/en/docs/your-integrations/notifications/webhooks. `id` is `data.id` of
the query, in lower case. The body is not signed: a backend asks for what it is told of. TIME is in seconds or
milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs

from gateway.pure.webhook_macs import hex_signature, matching, text_secret
from gateway.pure.webhooks import Arrival, Coverage, Verified, check_fresh, lone_field, malformed, needed_field

HEADER = "x-signature"
_REQUEST_ID = "x-request-id"
_TIME = re.compile(r"([1-9][0-9]{9})([0-9]{3})?")

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    pairs = [element.strip().partition("=") for element in text.split(",")]
    times = [value for name, _, value in pairs if name == "ts"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or len(signatures) != 1:
        raise malformed(f"Send the {HEADER} header as ts=TIME,v1=SIGNATURE.")
    time = _TIME.fullmatch(times[0])
    if time is None:
        raise malformed("Send the time of the signature as Unix seconds or milliseconds.")
    identity = parse_qs(arrival.query).get("data.id", [])
    if len(identity) > 1:
        raise malformed("Send data.id in the query once: it is what is signed.")
    said = {"id": "".join(identity).lower(), "request-id": lone_field(arrival, _REQUEST_ID), "ts": times[0]}
    manifest = "".join(f"{name}:{value};" for name, value in said.items() if value)
    signature = hex_signature(signatures[0])
    candidates = [] if signature is None else [signature]
    index = matching(keys, candidates, b"", manifest.encode("utf-8", "replace"), "sha256")
    check_fresh(int(time[1]) + int(time[2] or 0) / 1000, arrival, behind=tolerance, ahead=tolerance)
    return Verified(manifest, Coverage.PARTIAL, index)
