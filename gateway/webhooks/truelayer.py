"""TrueLayer: `Tl-Signature`, a detached JWS (ES512) of method, path, the header fields that it names, and the body.

Source: https://github.com/TrueLayer/truelayer-signing, request-signing-v2.md. `jku` says where the keys are: it must be
one of those that are configured, letter by letter, and nothing else is ever fetched. `X-Tl-Webhook-Timestamp` must be
among the fields that are signed. `$.event_id` is the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from gateway.pure.jose import Jws, encode_base64url, read_jws
from gateway.pure.units import FileOrUrl
from gateway.pure.webhook_macs import body_id
from gateway.pure.webhooks import (
    Arrival,
    Coverage,
    ProviderSettings,
    Verified,
    check_fresh,
    lone_field,
    malformed,
    mismatch,
    missing,
    needed_field,
    written_time,
)
from gateway.verifying import KeySet, KeySets, sought

HEADER: Final = "tl-signature"
TIME: Final = "x-tl-webhook-timestamp"

_ALGORITHM: Final = "ES512"
_MEMBERS: Final = frozenset({"alg", "kid", "jku", "tl_version", "tl_headers"})
_NAMES: Final = re.compile(r"[A-Za-z0-9-]+(?:,[A-Za-z0-9-]+){0,31}")
_identity = body_id("event_id")


class Settings(ProviderSettings):
    """Where the keys of deliveries may be (`jku`; by default those of the live environment), and where they are fetched
    if not there (`jwks`).
    """

    jku: Annotated[
        tuple[Annotated[str, Field(pattern=r"^https://[!-~]+$")], ...], Field(min_length=1, max_length=4)
    ] = ("https://webhooks.truelayer.com/.well-known/jwks",)
    jwks: FileOrUrl | None = None


def provision(settings: Settings, key_sets: KeySets) -> TrueLayer:
    """Raises ValueError where a key set cannot be opened."""
    return TrueLayer({jku: key_sets.open(settings.jwks or jku) for jku in settings.jku})


@dataclass(frozen=True, slots=True)
class TrueLayer:
    """Judges deliveries by the keys that are at these addresses."""

    key_sets: Mapping[str, KeySet]

    async def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG002
        """Raises `Refused`, and `Unavailable`. The signed time may differ by `tolerance` seconds both ways."""
        text = needed_field(arrival, HEADER)
        first, *others = _readings(text, arrival)
        jku, kid = first.header.get("jku"), first.header.get("kid")
        key_set = self.key_sets.get(jku) if isinstance(jku, str) else None
        if key_set is None or not isinstance(kid, str):
            raise malformed("Sign with a key that is published where this endpoint looks for it (jku).")
        key = await sought(key_set, lambda: key_set.find(kid, _ALGORITHM))
        if key is None or not any(jws.signed_by(key.key) for jws in (first, *others)):
            raise mismatch()
        check_fresh(written_time(arrival.headers[TIME]), arrival, behind=tolerance, ahead=tolerance)
        return Verified(_identity(arrival.body), Coverage.FULL, 0)


def _readings(text: str, arrival: Arrival) -> list[Jws]:
    """What may have been signed, by path: the signature is the same."""
    head, gap, signature = text.partition("..")
    try:
        if not gap:
            raise ValueError("not detached")
        plain = read_jws(f"{head}.{encode_base64url(b'-')}.{signature}", _MEMBERS)
    except ValueError:
        raise malformed(f"Send the {HEADER} header as a detached JWS.") from None
    if plain.algorithm != _ALGORITHM or plain.header.get("tl_version") != "2":
        raise malformed("Sign with ES512, by version 2 of TrueLayer's scheme.")
    fields = _fields(plain.header.get("tl_headers"), arrival)
    return [plain.of(b"".join((path, fields, arrival.body))) for path in _requests(arrival)]


def _requests(arrival: Arrival) -> Iterator[bytes]:
    """Method and path as they came, and with the slash at the end that some put there and others do not."""
    path = urlsplit(arrival.url).path or "/"
    for spelled in (path, path.removesuffix("/") if path.endswith("/") else f"{path}/"):
        yield f"{arrival.method} {spelled}\n".encode()


def _fields(names: object, arrival: Arrival) -> bytes:
    """The header fields that are signed, as they came, by the names that the signature gives them."""
    if not isinstance(names, str) or _NAMES.fullmatch(names) is None:
        raise malformed("Name the header fields that are signed (tl_headers), separated by commas.")
    listed = names.split(",")
    lower = [name.lower() for name in listed]
    if len(set(lower)) != len(lower) or TIME not in lower:
        raise malformed(f"Sign each header field once, {TIME} among them.")
    values = [lone_field(arrival, name) for name in lower]
    absent = next((name for name in lower if name not in arrival.headers), None)
    if absent is not None:
        raise missing(absent)
    pairs = zip(listed, values, strict=True)
    return "".join(f"{name}: {value}\n" for name, value in pairs).encode("latin-1", "replace")
