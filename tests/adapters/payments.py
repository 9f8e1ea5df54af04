"""Operations on payments with what a test does not care about filled in, and what the store has written of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.operations import (
    AdmitCommand,
    AdmitRow,
    AdoptPayment,
    DueEvents,
    EndCommand,
    EndRow,
    EventDraft,
    FactsRow,
    FindPayment,
    OnMissing,
    OutboxEvent,
    PaymentRef,
    PaymentRow,
    RecordFacts,
    Result,
    ReviewPayment,
    SentEvents,
)
from gateway.ports import Store
from gateway.pure.events import event_id
from gateway.pure.lifecycle import Payment, Standing, Told
from gateway.pure.lifecycle_machine import Machine
from tests.adapters.operations import NOW
from tests.pure.lifecycles import card

_NUMBERS = itertools.count()


def draft() -> EventDraft:
    return EventDraft("payment", "/pangate/shop", lambda: event_id(NOW, next(_NUMBERS).to_bytes(10)))


@dataclass(slots=True)
class Till:
    """Asks a store about payments of one tenant at one upstream."""

    store: Store
    tenant: str = "shop"
    upstream: str = "psp"
    machine: Machine = field(default_factory=card)

    async def admit(
        self,
        command: str,
        amount: int | None = 100,
        *,
        owner: str = "req-1",
        payment: str | None = None,
        alias: str | None = None,
        currency: str | None = "EUR",
        on_missing: OnMissing = "reject",
        new_id: str = "pay_1",
        now: float = NOW,
    ) -> AdmitRow:
        ref = PaymentRef(self.upstream, alias, payment)
        asked = AdmitCommand(
            self.tenant, self.machine, ref, command, amount, currency, owner, new_id, now, on_missing, draft()
        )
        return (await self.store.commit([asked]))[asked]

    async def end(
        self,
        result: Result = "succeeded",
        amount: int | None = None,
        *,
        owner: str = "req-1",
        alias: str | None = None,
        facts: Iterable[Told] = (),
        invalid: bool = False,
        observed: bool = False,
        currency: str | None = None,
    ) -> EndRow:
        told = EndCommand(
            self.tenant,
            self.machine,
            owner,
            result,
            amount,
            alias,
            tuple(facts),
            NOW,
            draft(),
            invalid=invalid,
            observed=observed,
            currency=currency,
        )
        return (await self.store.commit([told]))[told]

    def facts(
        self,
        *facts: Told,
        alias: str = "pi_1",
        source: str | None = None,
        on_missing: OnMissing = "reject",
        new_id: str = "pay_9",
        currency: str | None = "EUR",
        now: float = NOW,
    ) -> RecordFacts:
        return RecordFacts(
            self.tenant,
            self.machine,
            self.upstream,
            alias,
            source,
            facts,
            now,
            on_missing,
            new_id,
            draft(),
            currency=currency,
        )

    async def hear(self, *facts: Told, **others: Any) -> FactsRow:
        told = self.facts(*facts, **others)
        return (await self.store.commit([told]))[told]

    async def adopt(
        self,
        *facts: Told,
        alias: str = "pi_1",
        currency: str = "EUR",
        source: str = "query:req-1",
        new_id: str = "pay_9",
    ) -> PaymentRow:
        told = AdoptPayment(
            self.tenant, self.machine, self.upstream, alias, currency, source, facts, NOW, new_id, draft()
        )
        return (await self.store.commit([told]))[told]

    async def review(self, payment: str = "pay_1") -> PaymentRow:
        asked = ReviewPayment(self.tenant, payment, self.machine, NOW, draft())
        return (await self.store.commit([asked]))[asked]

    async def find(self, payment: str | None = "pay_1", alias: str | None = None) -> PaymentRow:
        asked = FindPayment(self.tenant, self.machine, PaymentRef(self.upstream, alias, payment))
        return (await self.store.commit([asked]))[asked]

    async def record(self, payment: str = "pay_1") -> Payment:
        found = (await self.find(payment)).record
        assert found is not None
        return found

    async def standing(self, payment: str = "pay_1") -> Standing:
        found = (await self.find(payment)).standing
        assert found is not None
        return found

    async def captured(self, amount: int = 100, alias: str = "pi_1") -> None:
        """pay_1 has been authorised and captured."""
        await self.admit("sale", amount, owner="sold")
        await self.end(owner="sold", alias=alias)


async def published(store: Store, lease: float = 30.0) -> list[OutboxEvent]:
    """Every event that is due, and what becomes due when it was sent."""
    sent: list[OutboxEvent] = []
    while True:
        take = DueEvents(NOW + 1e6, 1000, lease)
        found = (await store.commit([take]))[take].events
        if not found:
            return sent
        sent += found
        await store.commit([SentEvents(tuple((event.tenant, event.id) for event in found), NOW)])


def told_in(event: OutboxEvent) -> dict[str, Any]:
    """The data of an event."""
    data: dict[str, Any] = json.loads(event.payload)["data"]
    return data


def kinds(events: Iterable[OutboxEvent]) -> list[str]:
    """What each event tells, as in `capture.succeeded`."""
    return [event.type.removeprefix("payment.").removesuffix(".v1") for event in events]
