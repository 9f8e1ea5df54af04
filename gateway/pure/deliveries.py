"""Deliveries that wait: how one is kept, when it is sent (again), and with which header fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import orjson

from gateway.pure.http import Header
from gateway.pure.webhooks import sign

RETRY_DELAYS = (1, 5, 30, 120, 600, 3600, 7200, 14400, *(21600,) * 10)
"""Seconds before the second and each later attempt; about three days in all, then the delivery is parked."""
MAX_RETRY_AFTER = 21600.0
"""The longest wait that a backend may ask for, in seconds."""

OWN_FIELDS = frozenset({b"webhook-id", b"webhook-timestamp", b"webhook-signature"})
"""The fields of the signature of what is sent on."""
CONSUMED_FIELDS = OWN_FIELDS | {b"authorization"}
"""What of a delivery's own is not sent on: a provider's credentials are for us."""

_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A verified delivery as it came: all header fields, the raw body, and what its signature covers."""

    coverage: str
    headers: Sequence[Header] = field(repr=False)
    body: bytes = field(repr=False)


def pack(envelope: Envelope) -> bytes:
    """One value to be sealed: the length of the head (4 bytes), the head as JSON, the raw body."""
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in envelope.headers]
    head = orjson.dumps({"coverage": envelope.coverage, "headers": fields})
    return len(head).to_bytes(4, "big") + head + envelope.body


def unpack(packed: bytes) -> Envelope:
    """The inverse of `pack`. Raises ValueError for what `pack` did not make."""
    end = 4 + int.from_bytes(packed[:4], "big")
    head = orjson.loads(packed[4:end])
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]]
    return Envelope(head["coverage"], fields, packed[end:])


def original_fields(headers: Sequence[Header]) -> list[Header]:
    """The provider's own `webhook-*` fields, renamed to `Pangate-Original-Webhook-*`.

    The plain names (`OWN_FIELDS`) carry Pangate's signature, which is what a backend verifies, whoever the provider is.
    """
    return [(b"Pangate-Original-" + name.title(), value) for name, value in headers if name.lower() in OWN_FIELDS]


def signed_fields(delivery_id: str, provider: str, envelope: Envelope, now: float, key: bytes) -> list[Header]:
    """What Pangate adds: its own Standard Webhooks signature with a fresh time, and what it knows of the delivery."""
    timestamp = int(now)
    return [
        (b"webhook-id", delivery_id.encode()),
        (b"webhook-timestamp", str(timestamp).encode()),
        (b"webhook-signature", sign(delivery_id, timestamp, envelope.body, key).encode()),
        (b"Pangate-Webhook-Provider", provider.encode()),
        (b"Pangate-Webhook-Coverage", envelope.coverage.encode()),
    ]


def next_attempt(attempts: int, now: float, jitter: float, retry_after: float = 0.0) -> float | None:
    """Unix time of the next attempt after `attempts` failed ones (at least 1), or None: park it.

    `jitter` is uniform in [0, 1) and moves the delay by up to a fifth both ways, so that a backend that comes back is
    not met by all at once. `retry_after` (seconds) is what the backend asked for; it can only lengthen the delay.
    """
    if attempts > len(RETRY_DELAYS):
        return None
    delay = RETRY_DELAYS[attempts - 1] * (0.8 + 0.4 * jitter)
    return now + max(delay, min(retry_after, MAX_RETRY_AFTER))


def retry_after(value: bytes | None, now: float) -> float:
    """Seconds that a Retry-After field (RFC 9110 section 10.2.3) asks for; 0 if there is none that can be read."""
    text = (value or b"").decode("latin-1").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
