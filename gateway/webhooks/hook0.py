"""Hook0: `X-Hook0-Signature: t=SECONDS,h=NAMES,v1=HEX`, or `t=SECONDS,v0=HEX` (Coinbase Developer Platform uses it).

Source: https://documentation.hook0.com, and `output-worker/src/work.rs` of the server. v1 is HMAC-SHA256 over the time,
the names of header fields, their values and the body, joined by full stops; v0 over time and body. Where there is a v1
no v0 counts. `X-Event-Id` is the identity where it is signed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.pure.webhook_macs import body_digest, hex_signature, matching, text_secret
from gateway.pure.webhooks import (
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    lone_field,
    malformed,
    needed_field,
    signed_time,
)

HEADER = "x-hook0-signature"
_EVENT_ID = "x-event-id"
_NAMES = re.compile(r"[a-z0-9-]+(?: [a-z0-9-]+){0,31}")

parse_secret = text_secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    pairs = [element.strip().partition("=") for element in text.split(",")]
    parts = {name: value for name, _, value in pairs}
    version = "v1" if "v1" in parts else "v0"
    if len(parts) != len(pairs) or not {"t", version} <= parts.keys() or ("h" in parts) != (version == "v1"):
        raise malformed("Send the X-Hook0-Signature header as t=SECONDS,h=NAMES,v1=SIGNATURE.")
    sent = signed_time(parts["t"])
    covered = _covered(arrival, parts["h"]) if version == "v1" else {}
    before = [parts["t"], *([parts["h"], ".".join(covered.values())] if version == "v1" else [])]
    signature = hex_signature(parts[version])
    candidates = [] if signature is None else [signature]
    index = matching(keys, candidates, f"{'.'.join(before)}.".encode(), arrival.body, "sha256")
    check_fresh(sent, arrival, behind=tolerance, ahead=tolerance)
    return Verified(covered.get(_EVENT_ID) or body_digest(arrival.body), Coverage.FULL, index)


def _covered(arrival: Arrival, names: str) -> dict[str, str]:
    """The values of the header fields that are signed."""
    if _NAMES.fullmatch(names) is None:
        raise malformed("Name the header fields that are signed in lower case, with a space between them.")
    return {name: lone_field(arrival, name) for name in names.split(" ")}
