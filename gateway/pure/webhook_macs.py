"""Schemes of providers that sign the bytes of a body with an HMAC: all they differ in is data.

The key of a delivery is what the signed body says of its identity; a body that says nothing of it is its own identity,
for what stands in header fields is not signed and could be changed by whoever sends an old delivery again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.pure.errors import Refused
from gateway.pure.webhooks import (
    MAX_SECRETS,
    MAX_SIGNATURES,
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    malformed,
    mismatch,
    needed_field,
    plain_base64,
    signed_object,
    signed_time,
)

_SECRET_MAX = 512
_ID = re.compile(r"[!-~]{1,255}")


def text_secret(secret: bytes) -> bytes:
    """A secret whose text is the key. Raises ValueError."""
    if not secret or len(secret) > _SECRET_MAX:
        raise ValueError(f"a signing secret has 1 to {_SECRET_MAX} bytes")
    return secret


def hex_secret(secret: bytes) -> bytes:
    """A secret that spells the key in hexadecimal digits. Raises ValueError."""
    if re.fullmatch(rb"(?:[0-9A-Fa-f]{2}){16,64}", secret) is None:
        raise ValueError("this signing key is 32 to 128 hexadecimal digits")
    return bytes.fromhex(secret.decode())


def hex_signature(text: str) -> bytes | None:
    """Bytes of a signature in lower-case hexadecimal digits, its one spelling; else None."""
    return bytes.fromhex(text) if re.fullmatch("(?:[0-9a-f]{2})+", text) else None


def any_hex_signature(text: str) -> bytes | None:
    """The same, for providers that write both cases."""
    return hex_signature(text.lower()) if text.isascii() else None


def base64_signature(text: str) -> bytes | None:
    """Bytes of a signature in base64; else None."""
    return plain_base64(text) if text.isascii() else None


def body_id(*path: str) -> Callable[[bytes], str]:
    """The identity that stands at these names of the body, text or a number; of other bodies, their digest."""

    def read(body: bytes) -> str:
        try:
            value: Any = signed_object(body)
        except Refused:
            return body_digest(body)
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        text = str(value) if isinstance(value, str) or type(value) is int else ""
        return text if _ID.fullmatch(text) else body_digest(body)

    return read


def body_part(name: str) -> Callable[[bytes], bytes | None]:
    """What stands under this name of the body, in one spelling: for bodies whose rest is new at each attempt."""

    def read(body: bytes) -> bytes | None:
        try:
            part = signed_object(body).get(name)
        except Refused:
            return None
        return None if part is None else json.dumps(part, sort_keys=True, separators=(",", ":")).encode()

    return read


def _whole(_: bytes) -> None:
    return None


def body_digest(body: bytes) -> str:
    """The identity of a delivery that carries none that is signed."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class BodyMac:
    """A field that holds the HMAC of the raw body (a `gateway.pure.webhooks.Scheme`).

    `prefix` stands before the signature; `optional_prefix` may be left out. `url_first`: the address of the endpoint,
    as it is configured, is signed before the body. `content` is what of a body is the same at every attempt, None all.
    """

    header: str
    decode: Callable[[str], bytes | None] = hex_signature
    digest: Literal["sha256", "sha512"] = "sha256"
    prefix: str = ""
    optional_prefix: bool = False
    identity: Callable[[bytes], str] = body_digest
    parse_secret: Callable[[bytes], bytes] = text_secret
    url_first: bool = False
    content: Callable[[bytes], bytes | None] = _whole

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG002
        """Raises `Refused`. No time is signed: freshness is not judged."""
        text = needed_field(arrival, self.header)
        if not text.startswith(self.prefix) and not self.optional_prefix:
            raise malformed(f"Send the {self.header} header as {self.prefix}SIGNATURE.")
        signature = self.decode(text.removeprefix(self.prefix))
        before = arrival.url.encode() if self.url_first else b""
        index = matching(keys, [] if signature is None else [signature], before, arrival.body, self.digest)
        return Verified(self.identity(arrival.body), Coverage.BODY, index, content=self.content(arrival.body))


@dataclass(frozen=True, slots=True)
class TimedMac:
    """A field that holds a time and HMACs of `time`, `separator` and the raw body (a `Scheme`).

    `read` takes the field apart: the time as it was written, and the signatures. `unit` is the time's, in seconds.
    """

    header: str
    read: Callable[[str], tuple[str, list[str]]]
    separator: bytes
    identity: Callable[[bytes], str]
    unit: float = 1.0
    parse_secret: Callable[[bytes], bytes] = text_secret

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        """Raises `Refused`. The signed time may differ by `tolerance` seconds both ways."""
        text = needed_field(arrival, self.header)
        time, texts = self.read(text)
        if not 1 <= len(texts) <= MAX_SIGNATURES:
            raise malformed(f"Send 1 to {MAX_SIGNATURES} signatures in the {self.header} header.")
        sent = signed_time(time) if self.unit == 1.0 else _long_time(time)
        candidates = [signature for text in texts if (signature := hex_signature(text)) is not None]
        index = matching(keys, candidates, time.encode() + self.separator, arrival.body, "sha256")
        check_fresh(sent * self.unit, arrival, behind=tolerance, ahead=tolerance)
        return Verified(self.identity(arrival.body), Coverage.FULL, index)


def _long_time(text: str) -> int:
    if re.fullmatch("[1-9][0-9]{9,15}", text) is None:
        raise malformed("Send the time of the signature in digits only.")
    return int(text)


def matching(keys: Sequence[bytes], candidates: Sequence[bytes], before: bytes, body: bytes, digest: str) -> int:
    """The index of the key by which one of the candidates is the HMAC, compared in constant time. Raises `Refused`."""
    for index, key in enumerate(keys[:MAX_SECRETS]):
        mac = hmac.new(key, before, digest)
        mac.update(body)
        if any(hmac.compare_digest(mac.digest(), candidate) for candidate in candidates):
            return index
    raise mismatch()


def presented(keys: Sequence[bytes], given: bytes) -> int:
    """The index of the key that was sent itself, compared in constant time. Raises `Refused`."""
    fits = [hmac.compare_digest(key, given) for key in keys[:MAX_SECRETS]]
    if True not in fits:
        raise mismatch()
    return fits.index(True)
