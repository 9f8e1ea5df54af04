"""What an operator asks and says of events that are not published, over the admin listener."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from aiohttp import web

from gateway.operations import ListEvents, OutboxEvent, ReplayEvent
from gateway.ports import Clock, Store, Unavailable
from gateway.server.admin import json_response

LISTED_MAX = 1000
_STATES: Mapping[str, Literal["parked", "pending"]] = {"parked": "parked", "pending": "pending"}


def event_routes(store: Store, clock: Clock) -> list[web.RouteDef]:
    """`GET /events?state=parked|pending&tenant=NAME`; `POST /events/replay` with `{"tenant", "id"}`.

    200, or 409 with `complaints`; 400 for what is not understood; 503 while the store is away.
    """

    async def listed(request: web.Request) -> web.Response:
        state = _STATES.get(request.query.get("state", "parked"))
        if state is None:
            return json_response(400, {"complaints": ["state is parked or pending"]})
        asked = ListEvents(request.query.get("tenant"), state, LISTED_MAX)
        try:
            events = (await store.commit([asked]))[asked].events
        except Unavailable:
            return _unavailable()
        return json_response(200, {"events": [_shown(event) for event in events]})

    async def replayed(request: web.Request) -> web.Response:
        try:
            asked = ReplayEvent(*_named(await request.read()), clock.now())
            refused = (await store.commit([asked])).refused is not None
        except ValueError as error:
            return json_response(400, {"complaints": [str(error)]})
        except Unavailable:
            return _unavailable()
        complaints = ["there is no event of this tenant and id that is parked or sent"] if refused else []
        return json_response(409 if refused else 200, {"complaints": complaints})

    return [web.get("/events", listed), web.post("/events/replay", replayed)]


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


def _unavailable() -> web.Response:
    return json_response(503, {"complaints": ["the store is not available: try again in a moment"]})
