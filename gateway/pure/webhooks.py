"""Webhook deliveries: what arrives, what a provider's scheme answers, and how Pangate signs what it sends on."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Coverage(enum.Enum):
    """How much of a delivery its signature authenticates."""

    FULL = "full"
    BODY = "body"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery as it came in. Header names in `headers` compare without case; `received_at` is Unix time."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    repeated: frozenset[str]
    """Names, in lower case, of header fields that came more than once."""
    url: str
    received_at: float


@dataclass(frozen=True, slots=True)
class Verified:
    """A delivery whose signature holds. `key` deduplicates and is signed material; `secret` is the index that fit."""

    key: str
    coverage: Coverage
    secret: int


class Scheme(Protocol):
    """A provider's signature scheme: one module of `gateway.webhooks`, named after the provider."""

    def parse_secret(self, secret: bytes) -> bytes:
        """The key of a configured secret. Raises ValueError when it cannot be one."""
        ...

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        """Raises `Refused` with a reason of the inbox; never anything else."""
        ...
