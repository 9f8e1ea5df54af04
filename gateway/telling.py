"""What rules and the inbox share where they write of payments: the events' drafts, and facts as one operation."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.operations import EventDraft, PutDelivery, RecordFacts
from gateway.operations.payments import OnMissing
from gateway.ports import Ports
from gateway.pure.events import EVENT_ID_BYTES, event_id
from gateway.pure.ids import PAYMENT_ID_BYTES, payment_id
from gateway.pure.lifecycle import Told
from gateway.pure.lifecycle_machine import Machine

EVENT_PREFIX = "payment"


def draft(ports: Ports, tenant: str) -> EventDraft:
    """Events of this moment: of types `payment...`, from `/pangate/TENANT`."""
    now, entropy = ports.clock.now(), ports.entropy
    return EventDraft(EVENT_PREFIX, f"/pangate/{tenant}", lambda: event_id(now, entropy(EVENT_ID_BYTES)))


def new_id(ports: Ports) -> str:
    """For a payment that is not known yet."""
    return payment_id(ports.clock.now(), ports.entropy(PAYMENT_ID_BYTES))


def facts(
    ports: Ports,
    machine: Machine,
    *,
    tenant: str,
    upstream: str,
    alias: str,
    told: Sequence[Told],
    on_missing: OnMissing,
    currency: str | None,
    source: str | None = None,
    given: PutDelivery | None = None,
) -> RecordFacts:
    """What was told of one payment, now."""
    return RecordFacts(
        tenant=tenant,
        machine=machine,
        upstream=upstream,
        alias=alias,
        source=source,
        facts=tuple(told),
        now=ports.clock.now(),
        on_missing=on_missing,
        new_id=new_id(ports),
        event=draft(ports, tenant),
        currency=currency,
        given=given,
    )
