"""What an operator asks and says of calls in doubt, over the admin listener."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import orjson

from gateway.operations import UnknownCall
from gateway.pure.ids import is_provider_id
from gateway.server.actions import Action, Reply, decided

LISTED_MAX = 1000
NOTE_CHARACTERS_MAX = 200


class Decisions(Protocol):
    """Who finds out (`gateway.workers.resolver.Resolver`); the texts are complaints, empty if there are none."""

    async def listed(self, tenant: str | None, limit: int) -> Sequence[UnknownCall]: ...
    async def retry(self, tenant: str, owner: str) -> str: ...
    async def decide(
        self, tenant: str, owner: str, decision: Literal["done", "failed"], note: str, alias: str
    ) -> str: ...


def payment_actions(resolver: Decisions) -> list[Action]:
    """`GET /payments`; `POST /payments/retry|done|failed` with `{"tenant", "id", "note", "provider_id"}`.

    200, or 409 with `complaints`; 400 for what is not understood; 503 while the store is away.
    """

    async def listed(query: Mapping[str, str], _: bytes) -> Reply:
        calls = await resolver.listed(query.get("tenant"), LISTED_MAX)
        return 200, {"calls": [_shown(call) for call in calls]}

    async def retried(_: Mapping[str, str], body: bytes) -> Reply:
        tenant, owner, _note, _alias = _asked(body, "retry")
        return decided(await resolver.retry(tenant, owner))

    def ended(decision: Literal["done", "failed"]) -> Action:
        async def act(_: Mapping[str, str], body: bytes) -> Reply:
            tenant, owner, note, alias = _asked(body, decision)
            return decided(await resolver.decide(tenant, owner, decision, note, alias))

        return Action("POST", f"/payments/{decision}", act)

    return [
        Action("GET", "/payments", listed),
        Action("POST", "/payments/retry", retried),
        ended("done"),
        ended("failed"),
    ]


def _asked(body: bytes, action: str) -> tuple[str, str, str, str]:
    """Tenant, id, note, and the provider's id of the payment. Raises ValueError."""
    document: Any = orjson.loads(body)
    names = ("tenant", "id", "note")
    texts = [document.get(name, "") for name in names] if isinstance(document, dict) else []
    if not texts or not all(isinstance(text, str) and len(text) <= NOTE_CHARACTERS_MAX for text in texts):
        raise ValueError('send {"tenant": ..., "id": ..., "note": ...}, each a text of at most 200 characters')
    tenant, owner, note = texts
    alias = document.get("provider_id", "")
    if alias != "" and (action != "done" or not isinstance(alias, str) or not is_provider_id(alias)):
        raise ValueError("provider_id goes with done, and is 1 to 255 visible ASCII characters")
    return tenant, owner, note, alias


def _shown(unknown: UnknownCall) -> dict[str, object]:
    call = unknown.call
    return {
        "tenant": call.tenant,
        "id": call.owner,
        "route": call.route,
        "upstream": call.upstream,
        "in_doubt": call.in_doubt,
        "attempt": call.attempt,
        "sent_at": call.sent_at,
        "doubted_at": call.doubted_at,
        "next_at": call.next_at,
        "payment": unknown.payment,
        "provider_id": unknown.alias,
        "command": unknown.command,
        "amount": unknown.amount,
    }
