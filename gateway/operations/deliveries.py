"""Webhook deliveries: stored once, forwarded until a backend took them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gateway.operations.base import Operation, Row


class DeliveryVerdict(enum.Enum):
    """What the inbox did with a verified webhook delivery."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow(Row):
    """CONFLICT: same key, other digest; the delivery was stored in quarantine."""

    verdict: DeliveryVerdict


@dataclass(frozen=True, slots=True, eq=False)
class PutDelivery(Operation[DeliveryRow]):
    """Store a verified delivery once. `key` and `digest` are keyed HMACs: of signed material, and of the raw body.

    `id` is ours, unique; `sealed` holds raw body and headers.
    """

    tenant: str
    id: str
    route: str
    provider: str
    key: str
    digest: bytes
    sealed: bytes = field(repr=False)
    now: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stored delivery that is due to be forwarded; `attempts` counts the forwards tried so far."""

    tenant: str
    id: str
    route: str
    provider: str
    key: str
    sealed: bytes = field(repr=False)
    received_at: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRow(Row):
    """`due`, oldest first; `pending` and `oldest` (Unix time, 0 if none) over all that is not yet forwarded."""

    due: tuple[Delivery, ...]
    pending: int
    oldest: float


@dataclass(frozen=True, slots=True, eq=False)
class DueDeliveries(Operation[DueRow]):
    """Deliveries to forward now; for `lease` seconds each is handed to nobody else."""

    now: float
    limit: int
    lease: float


@dataclass(frozen=True, slots=True, eq=False)
class ForwardedDelivery(Operation[Row]):
    """The backend took the delivery: never forward it again."""

    tenant: str
    id: str
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class RetryDelivery(Operation[Row]):
    """The backend did not take the delivery: try again at `next_at`, or never (`next_at` None: parked)."""

    tenant: str
    id: str
    next_at: float | None
    note: str
