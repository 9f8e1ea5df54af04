"""What an operator asks and says of events that are not published, over the admin listener."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson

from gateway.operations import ListEvents, OutboxEvent, ReplayEvent
from gateway.ports import Clock, Store
from gateway.server.actions import Action, Reply, decided

LISTED_MAX = 1000
_STATES: Mapping[str, Literal["parked", "pending"]] = {"parked": "parked", "pending": "pending"}


def event_actions(store: Store, clock: Clock) -> list[Action]:
    """`GET /events?state=parked|pending&tenant=NAME`; `POST /events/replay` with `{"tenant", "id"}`.

    200, or 409 with `complaints`; 400 for what is not understood; 503 while the store is away.
    """

    async def listed(query: Mapping[str, str], _: bytes) -> Reply:
        state = _STATES.get(query.get("state", "parked"))
        if state is None:
            raise ValueError("state is parked or pending")
        asked = ListEvents(query.get("tenant"), state, LISTED_MAX)
        events = (await store.commit([asked]))[asked].events
        return 200, {"events": [_shown(event) for event in events]}

    async def replayed(_: Mapping[str, str], body: bytes) -> Reply:
        refused = (await store.commit([ReplayEvent(*_named(body), clock.now())])).refused is not None
        return decided("there is no event of this tenant and id that is parked or sent" if refused else "")

    return [Action("GET", "/events", listed), Action("POST", "/events/replay", replayed)]


def _named(body: bytes) -> tuple[str, str]:
    """Tenant and id. Raises ValueError."""
    document: Any = orjson.loads(body)
    match document:
        case {"tenant": str(tenant), "id": str(event)}:
            return tenant, event
    raise ValueError('send {"tenant": ..., "id": ...}, each a text')


def _shown(event: OutboxEvent) -> dict[str, object]:
    return {
        "tenant": event.tenant,
        "id": event.id,
        "payment": event.aggregateid,
        "type": event.type,
        "sequence": event.sequence,
        "created_at": event.created_at,
        "attempts": event.attempts,
        "next_at": event.next_at,
        "note": event.note,
    }
