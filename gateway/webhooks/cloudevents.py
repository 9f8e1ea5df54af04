"""CloudEvents over HTTP: an OPTIONS that asks whether an origin may deliver, then events with a bearer token.

Source: https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md, sections 3 and 4. The secret is the
token; it is not taken from the query, since URLs end up in logs. Nothing is signed. `WebHook-Request-Callback` is never
called: who may deliver is told at once, and an address that is not the origin's own is refused. `source` and `id` are
the key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field

from gateway.pure.errors import Reason, Refused
from gateway.pure.webhook_macs import body_digest, presented, text_secret
from gateway.pure.webhooks import (
    Arrival,
    Coverage,
    Greeting,
    ProviderSettings,
    Verified,
    bearer_token,
    lone_field,
    malformed,
    needed_field,
    signed_object,
)
from gateway.verifying import KeySets

ORIGIN: Final = "webhook-request-origin"
RATE: Final = "webhook-request-rate"
CALLBACK: Final = "webhook-request-callback"

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ORIGIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_RATE: Final = re.compile(r"[1-9][0-9]{0,8}")
_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_REQUIRED: Final = ("source", "id", "specversion", "type")

parse_secret = text_secret


class Settings(ProviderSettings):
    """The DNS names of origins that may deliver, and how many requests a minute each."""

    allowed_origins: Annotated[
        tuple[Annotated[str, Field(pattern=f"^{_ORIGIN.pattern}$")], ...], Field(min_length=1, max_length=64)
    ]
    allowed_rate: Annotated[int, Field(ge=1, le=999_999_999)]


def provision(settings: Settings, key_sets: KeySets) -> CloudEvents:  # noqa: ARG001 - nothing is fetched
    """Judges by the settings alone."""
    return CloudEvents(frozenset(name.lower() for name in settings.allowed_origins), settings.allowed_rate)


@dataclass(frozen=True, slots=True)
class CloudEvents:
    """Who may deliver (in lower case), and how often: requests a minute, told to the origin."""

    allowed_origins: frozenset[str]
    allowed_rate: int

    def handshake(self, arrival: Arrival, keys: Sequence[bytes]) -> Greeting | None:  # noqa: ARG002 - it proves nothing
        """Validation (section 4): raises `Refused`, by ORIGIN_NOT_ALLOWED where the origin is not welcome."""
        if arrival.method != "OPTIONS":
            return None
        origin, rate = needed_field(arrival, ORIGIN), lone_field(arrival, RATE)
        if _ORIGIN.fullmatch(origin) is None or (RATE in arrival.headers and _RATE.fullmatch(rate) is None):
            raise malformed("Send the origin as a DNS name, and the rate as a positive whole number.")
        calls_home = CALLBACK not in arrival.headers or _leads_to(lone_field(arrival, CALLBACK), origin)
        if origin.lower() not in self.allowed_origins or not calls_home:
            raise Refused(Reason.ORIGIN_NOT_ALLOWED, "Ask the operator to allow the origin; call back to it alone.")
        granted = min(self.allowed_rate, int(rate)) if rate else self.allowed_rate
        return Greeting({"Allow": "POST", "WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": str(granted)})

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG002
        """Raises `Refused`. No time is signed: freshness is not judged."""
        index = presented(keys, bearer_token(arrival).encode())
        return Verified(_identity(arrival), Coverage.NONE, index)


def _leads_to(address: str, origin: str) -> bool:
    """By https, to the origin or a name below it?"""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "https" and "@" not in parts.netloc and f".{host}".endswith(f".{origin.lower()}")


def _identity(arrival: Arrival) -> str:
    """`source` and `id` of an event: in the body where its type says so, else in header fields; a batch is its own."""
    media_type = arrival.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == _BATCH:
        return body_digest(arrival.body)
    event: dict[str, Any]
    if media_type == _STRUCTURED:
        event = signed_object(arrival.body)
    else:
        event = {name: lone_field(arrival, f"ce-{name}") for name in _REQUIRED}
    said = [str(value) for name in _REQUIRED if isinstance(value := event.get(name), str) and value]
    if len(said) != len(_REQUIRED):
        raise Refused(Reason.DELIVERY_INVALID, f"Send a CloudEvent with {', '.join(_REQUIRED)}.")
    return "\n".join(said[:2])
