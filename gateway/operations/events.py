"""The outbox: events written with what they tell of, and published at least once, in the order of each payment.

An event is pending until it was sent; only the first of a payment that is not sent can be due. A parked one blocks its
own payment, until it is replayed. Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.operations.base import Operation, PurgedRow, Row


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """`payload` is the whole CloudEvent as structured JSON; `aggregateid` the payment, `sequence` counts its events.

    `attempts` is what the relay last said; `note` why it failed last.
    """

    tenant: str
    id: str
    aggregateid: str
    type: str
    sequence: int
    payload: bytes = field(repr=False)
    created_at: float
    attempts: int
    next_at: float
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRow(Row):
    """Events, oldest first."""

    events: tuple[OutboxEvent, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DueEvents(Operation[EventsRow]):
    """Take events to publish now, at most one of a payment; nobody else gets them for `lease` seconds."""

    now: float
    limit: int
    lease: float


@dataclass(frozen=True, slots=True, eq=False)
class SentEvents(Operation[Row]):
    """These (tenant, id) were published; the next of their payments are due. One that is not pending is ignored."""

    keys: tuple[tuple[str, str], ...]
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class RetryEvent(Operation[Row]):
    """Could not be published: due again at `next_at`. `attempts` is the count to keep. Refused unless pending."""

    tenant: str
    id: str
    attempts: int
    next_at: float
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class ParkEvent(Operation[Row]):
    """Cannot be published: it and the events behind it wait for `ReplayEvent`. Refused unless pending."""

    tenant: str
    id: str
    attempts: int
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class ReplayEvent(Operation[Row]):
    """A parked event is due again, and a sent one is once more (after those it was sent before). Else refused."""

    tenant: str
    id: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LagRow(Row):
    """How many events are pending and parked; `oldest`: when the oldest pending one was written, 0 if none."""

    pending: int
    parked: int
    oldest: float


@dataclass(frozen=True, slots=True, eq=False)
class EventLag(Operation[LagRow]):
    """How far publishing is behind. Reads only; takes about a millisecond for 10,000 events that are not sent."""


@dataclass(frozen=True, slots=True, eq=False)
class ListEvents(Operation[EventsRow]):
    """Events not sent, of one tenant or (None) of all. Reads only."""

    tenant: str | None
    state: Literal["pending", "parked"]
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class PurgeEvents(Operation[PurgedRow]):
    """Delete at most `limit` events written before `before`: sent ones, or with `unsent` all, in whatever state."""

    before: float
    limit: int
    unsent: bool = False
