"""Adyen standard webhooks: `additionalData.hmacSignature` of each item, HMAC-SHA256 in base64 over eight of its fields.

Source: https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures. The fields are
joined by `:` and nothing escapes one within, so only the merchant's reference may hold any: the signed text then has
one reading. All else in an item is not signed. Items are identified by `pspReference`, `eventCode` and `success`. The
accounts of a company may share a key: `merchant_accounts` names those that are meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import base64_signature, hex_secret, matching
from gateway.pure.webhooks import (
    MAX_SIGNATURES,
    Arrival,
    Coverage,
    ProviderSettings,
    Verified,
    malformed,
    missing,
    signed_object,
)
from gateway.verifying import KeySets

parse_secret = hex_secret

_Account = Annotated[str, Field(pattern=r"^[^:]+$")]
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


class Settings(ProviderSettings):
    """The merchant accounts whose items are taken; without, those of any that the key is for."""

    merchant_accounts: Annotated[tuple[_Account, ...], Field(min_length=1)] | None = None


def provision(settings: Settings, key_sets: KeySets) -> AdyenStandard:  # noqa: ARG001 - nothing is fetched
    """Judges by the settings and the secrets."""
    accounts = settings.merchant_accounts
    return AdyenStandard(None if accounts is None else frozenset(accounts))


@dataclass(frozen=True, slots=True)
class AdyenStandard:
    """Judges the items of these merchant accounts, or of all."""

    accounts: frozenset[str] | None

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG002
        """Every item must be signed; some SDKs look at the first alone. Raises `Refused`. No time is signed."""
        items = signed_object(arrival.body).get(_ITEMS)
        if not isinstance(items, list) or not 0 < len(items) <= MAX_SIGNATURES:
            raise Refused(Reason.DELIVERY_INVALID, f"Send {_ITEMS}, with at most {MAX_SIGNATURES} of them.")
        verified = [_item(item, keys) for item in items]
        if self.accounts is not None and not self.accounts.issuperset(account for _, account, _ in verified):
            raise malformed("Send items of the merchant accounts that this endpoint is for.")
        key = ",".join(identity for identity, _, _ in verified)
        return Verified(key, Coverage.PARTIAL, max(index for _, _, index in verified))


def _item(item: Any, keys: Sequence[bytes]) -> tuple[str, str, int]:
    """The identity of an item, its merchant account, and which key fits."""
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
    return f"{values[0]}:{values[6]}:{values[7]}", values[2], index


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
