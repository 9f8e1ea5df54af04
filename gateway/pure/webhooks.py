"""Webhook deliveries: what arrives, what a provider's scheme answers, and how Pangate signs what it sends on.

Every refusal about the header fields of a signature says SIGNATURE_REQUIRED (a field is missing or empty) or
SIGNATURE_INVALID (malformed, repeated, or no candidate fits); one about its time DELIVERY_STALE; one about the signed
body DELIVERY_INVALID. Signatures are judged before times, so that "stale" is said of genuine deliveries only.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import enum
import hmac
import json
import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from pydantic import BaseModel, ConfigDict

from gateway.pure.errors import Reason, Refused

MAX_SECRETS = 4
"""Secrets of one endpoint; a configuration with more is refused, and `verify` tries no more."""
MAX_SIGNATURES = 8
"""Signatures of one delivery; a delivery with more is refused."""
MAX_FIELD = 2048
"""Characters of one header field that takes part in a signature."""

_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)
_WRITTEN_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_CANONICAL_TIME = re.compile(r"0|[1-9][0-9]{0,11}")


class Coverage(enum.Enum):
    """How much of a delivery its signature authenticates."""

    FULL = "full"
    BODY = "body"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery as it came in. Header names in `headers` are in lower case; `received_at` is Unix time."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    repeated: frozenset[str]
    """Names, in lower case, of header fields that came more than once."""
    url: str
    received_at: float
    query: str = field(default="", repr=False)
    """Of the request's target, as it came."""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Verified:
    """A delivery whose signature holds. `key` deduplicates and is signed material; `secret` is the index that fit.

    `live` is what the signed body says of real money: True, False (a sandbox), or None where the scheme has no such
    notion. `content` is what is the same at every attempt to deliver `key`, if that is not the whole body.
    """

    key: str
    coverage: Coverage
    secret: int
    live: bool | None = None
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer, by status 200, to a provider that asks whether deliveries are welcome at all."""

    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


class Verifier(Protocol):
    """Judges the deliveries of one provider. It may also have a `handshake` (see `Handshake`)."""

    def verify(
        self, arrival: Arrival, keys: Sequence[bytes], tolerance: float
    ) -> Verified | Coroutine[Any, Any, Verified]:
        """Raises `Refused` with a reason of the inbox, and `Unavailable` while keys that are fetched are not there."""
        ...


class Handshake(Protocol):
    """What a provider asks before it delivers."""

    def __call__(self, arrival: Arrival, keys: Sequence[bytes]) -> Greeting | None:
        """None if it is a delivery. Raises `Refused`."""
        ...


class Scheme(Verifier, Protocol):
    """A signature scheme that needs nothing but secrets: a module of `gateway.webhooks`, named after its provider."""

    def parse_secret(self, secret: bytes) -> bytes:
        """The key of a configured secret. Raises ValueError when it cannot be one."""
        ...

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        """Raises `Refused` with a reason of the inbox; never anything else."""
        ...


class ProviderSettings(BaseModel):
    """What deliveries of one provider must say (`inbox.expect`). Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def malformed(detail: str) -> Refused:
    """Header fields that cannot be a signature."""
    return Refused(Reason.SIGNATURE_INVALID, detail)


def missing(name: str) -> Refused:
    """A delivery without a header field that its signature needs."""
    return Refused(Reason.SIGNATURE_REQUIRED, f"Send a signed delivery: the {name} header is missing or empty.")


def mismatch() -> Refused:
    """A delivery none of whose signatures fits any of the endpoint's secrets."""
    return Refused(
        Reason.SIGNATURE_INVALID,
        "No signature fits. Sign the exact bytes of the body with the secret that is configured for this endpoint.",
    )


def lone_field(arrival: Arrival, name: str) -> str:
    """The value of a field that may come once; empty if it did not come. Raises `Refused` if repeated or too long."""
    value = arrival.headers.get(name, "")
    if name in arrival.repeated or len(value) > MAX_FIELD:
        raise malformed(f"Send the {name} header once, with at most {MAX_SIGNATURES} signatures.")
    return value


def needed_field(arrival: Arrival, name: str) -> str:
    """The same, of a field without which there is no signature. Raises `Refused` also if it did not come."""
    value = lone_field(arrival, name)
    if not value:
        raise missing(name)
    return value


def bearer_token(arrival: Arrival) -> str:
    """The token of the Authorization field (RFC 6750 section 2.1). Raises `Refused`."""
    bearer = _BEARER.fullmatch(needed_field(arrival, "authorization"))
    if bearer is None:
        raise malformed("Send the Authorization header as Bearer TOKEN.")
    return bearer[1]


def signed_time(text: str) -> int:
    """Unix seconds in their one spelling: ASCII digits, no sign, no fraction, no leading zero."""
    if _CANONICAL_TIME.fullmatch(text) is None:
        raise malformed("Send the time of the signature as Unix seconds: digits only.")
    return int(text)


def written_time(text: str) -> float:
    """Unix seconds of a time as RFC 3339 writes it, offset included. Raises `Refused`."""
    try:
        if _WRITTEN_TIME.fullmatch(text) is None:
            raise ValueError("not RFC 3339")
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise malformed("Send the time of the signature as RFC 3339 says, with its offset.") from None


def check_fresh(sent: float, arrival: Arrival, *, behind: float, ahead: float) -> None:
    """Raise `Refused` unless `sent` lies at most `behind` seconds before the arrival and `ahead` seconds after it."""
    if not arrival.received_at - behind <= sent <= arrival.received_at + ahead:
        raise Refused(Reason.DELIVERY_STALE, "Sign the delivery anew when it is sent, with a clock that is right.")


def plain_base64(text: str | bytes) -> bytes | None:
    """The bytes of a base64 text (RFC 4648 section 4) in its one spelling, padding included; else None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    spelling = text.encode("ascii") if isinstance(text, str) else text
    return data if base64.b64encode(data) == spelling else None


def hmac_fits(candidates: Sequence[bytes], key: bytes, prefix: bytes, body: bytes) -> bool:
    """Is one of the candidates the HMAC-SHA256 of prefix and body? Each is compared in constant time."""
    expected = _hmac_sha256(key, prefix, body)
    return any(hmac.compare_digest(expected, candidate) for candidate in candidates)


def _hmac_sha256(key: bytes, prefix: bytes, body: bytes) -> bytes:
    mac = hmac.new(key, prefix, "sha256")
    mac.update(body)
    return mac.digest()


def signed_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a signed body. Raises `Refused` for any other bytes, and for a name that repeats.

    Not the strict reader of bodies that rules change: this one is signed and goes on untouched, and a genuine event
    must not be lost because two names in a merchant's metadata differ in case only.
    """
    try:
        document = json.loads(body.decode(), object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(Reason.DELIVERY_INVALID, "Send one JSON object (UTF-8) in which no name repeats.")
    return document


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name repeats")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a number of JSON")


def shared_key(secret: bytes) -> bytes:
    """The key of a `whsec_` secret of Standard Webhooks: 24 to 64 bytes in base64. Raises ValueError."""
    key = plain_base64(secret.removeprefix(b"whsec_")) if secret.startswith(b"whsec_") else None
    if key is None or not 24 <= len(key) <= 64:
        raise ValueError("a shared secret of Standard Webhooks is whsec_ and 24 to 64 bytes in base64")
    return key


def sign(delivery_id: str, timestamp: int, body: bytes, key: bytes) -> str:
    """The `webhook-signature` of Standard Webhooks (v1): HMAC-SHA256 over `id.timestamp.body`, in base64."""
    mac = _hmac_sha256(key, f"{delivery_id}.{timestamp}.".encode(), body)
    return "v1," + base64.b64encode(mac).decode()
