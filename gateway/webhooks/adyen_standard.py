"""Adyen standard webhooks: `additionalData.hmacSignature` of each item, HMAC-SHA256 in base64 over eight of its fields.

Source: https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures. The fields are
joined by `:` and nothing escapes one within, so only the merchant's reference may hold any: the signed text then has
one reading. All else in an item is not signed. Items are identified by `pspReference`, `eventCode` and `success`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import base64_signature, hex_secret, matching
from gateway.pure.webhooks import MAX_SIGNATURES, Arrival, Coverage, Verified, malformed, missing, signed_object

parse_secret = hex_secret

_ITEMS: Final = "notificationItems"
_WORD: Final = re.compile(r"[^:]*")
_FIELDS: Final = {
    "pspReference": _WORD,
    "originalReference": _WORD,
    "merchantAccountCode": _WORD,
    "merchantReference": re.compile(r".*", re.DOTALL),
    "value": re.compile(r"-?[0-9]{1,18}"),
    "currency": re.compile(r"[A-Z]{3}"),
    "eventCode": re.compile(r"[A-Z0-9_]+"),
    "success": re.compile(r"true|false"),
}
"""What is signed, in its order, and what each may be."""


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Every item must be signed; some SDKs look at the first alone. Raises `Refused`."""
    items = signed_object(arrival.body).get(_ITEMS)
    if not isinstance(items, list) or not 0 < len(items) <= MAX_SIGNATURES:
        raise Refused(Reason.DELIVERY_INVALID, f"Send {_ITEMS}, with at most {MAX_SIGNATURES} of them.")
    verified = [_item(item, keys) for item in items]
    return Verified(",".join(key for key, _ in verified), Coverage.PARTIAL, max(index for _, index in verified))


def _item(item: Any, keys: Sequence[bytes]) -> tuple[str, int]:
    """The identity of an item, and which key fits."""
    fields = item.get("NotificationRequestItem") if isinstance(item, dict) else None
    more = fields.get("additionalData") if isinstance(fields, dict) else None
    text = more.get("hmacSignature") if isinstance(more, dict) else None
    if not isinstance(fields, dict) or not isinstance(text, str) or not text:
        raise missing("additionalData.hmacSignature")
    amount = fields.get("amount")
    signed = {**fields, **(amount if isinstance(amount, dict) else {})}
    values = [_text(signed.get(name)) for name in _FIELDS]
    if not all(known.fullmatch(value) for known, value in zip(_FIELDS.values(), values, strict=True)):
        raise malformed("Send items whose signed fields are what their names say, without a colon.")
    signature = base64_signature(text)
    candidates = [] if signature is None else [signature]
    index = matching(keys, candidates, b"", ":".join(values).encode("utf-8", "surrogatepass"), "sha256")
    return f"{values[0]}:{values[6]}:{values[7]}", index


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
