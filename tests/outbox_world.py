"""A store with an outbox in it, payments that write events as they really do, and a receiver that may do anything."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.config.lifecycles import load_lifecycles
from gateway.operations import (
    AdmitCommand,
    EndCommand,
    EventDraft,
    EventLag,
    LagRow,
    ListEvents,
    Operation,
    OutboxEvent,
    PaymentRef,
    Row,
    Rows,
)
from gateway.ports import Ports, Store, Told, Unavailable
from gateway.pure.relaying import TAKEN, Receipt, Taking
from tests.conftest import CountingEntropy, HandClock, Recorder

TENANT = "shop"


class Reply(NamedTuple):
    """What a receiver does with an event, and what the relay hears of it (None: nothing)."""

    took: bool
    receipt: Receipt | None


TAKES = Reply(True, TAKEN)
UNHEARD = Reply(True, Receipt(Taking.REFUSED, "unheard"))
REFUSES = Reply(False, Receipt(Taking.REFUSED, "refuses"))
AWAY = Reply(False, Receipt(Taking.AWAY, "away"))
GONE = Reply(False, Receipt(Taking.GONE, "gone"))
SILENT = Reply(False, None)


class Receiver:
    """Implements `ports.Publisher`. What it was offered, and what it took, in order; `held` keeps it from replying."""

    def __init__(self, name: str = "receiver", reply: Callable[[OutboxEvent], Reply] = lambda _: TAKES) -> None:
        self.name = name
        self.concurrency = 400
        self.reply = reply
        self.offered: list[OutboxEvent] = []
        self.taken: list[OutboxEvent] = []
        self.unheard: Counter[str] = Counter()
        """How often the receiver took an event and the relay did not hear it."""
        self.held = asyncio.Event()
        self.held.set()
        self._on_their_way: set[tuple[str, str]] = set()

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        payments = [(event.tenant, event.aggregateid) for event in events]
        assert len({*payments}) == len(payments), "two events of one payment at a time"
        assert not self._on_their_way.intersection(payments), "two events of one payment at a time"
        self._on_their_way.update(payments)
        self.offered += events
        try:
            await self.held.wait()
            for event in events:
                took, receipt = self.reply(event)
                if took:
                    self.taken.append(event)
                    self.unheard[event.id] += receipt is not TAKEN
                if receipt is not None:
                    self._on_their_way.discard((event.tenant, event.aggregateid))
                    told(event, receipt)
        finally:
            self._on_their_way.difference_update(payments)

    async def close(self) -> None:
        pass

    def sequences(self, payment: str) -> list[int]:
        """What it took of a payment, repetitions included."""
        return [event.sequence for event in self.taken if event.aggregateid == payment]


BEFORE, AFTER = "before", "after"


class Failing:
    """A store that is away when `fails` says so: BEFORE it commits, or AFTER, so that nobody hears of it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.fails: Callable[[], str | None] = lambda: None

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        when = self.fails()
        if when == BEFORE:
            raise Unavailable("store")
        rows = await self.inner.commit(unit)
        if when == AFTER:
            raise Unavailable("store")
        return rows

    async def close(self) -> None:
        pass


class Outbox:
    """Payments are named by tests; each `tell` is the next change of one, and writes one event."""

    def __init__(self, store: Store, clock: HandClock, telemetry: Recorder) -> None:
        self.store: Store = store
        self.clock = clock
        self.telemetry = telemetry
        unused: Any = None
        self.ports = Ports(
            clock=clock,
            entropy=CountingEntropy(),
            store=store,
            shared=unused,
            sad=unused,
            keys=unused,
            key_sets=unused,
            telemetry=telemetry,
            files=unused,
        )
        self.told: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._machine = load_lifecycles(Path("no such folder"))["card"].machine

    async def tell(self, *payments: str) -> None:
        for payment in payments:
            self.told[payment] += 1
            count = self.told[payment]
            draft = EventDraft("payment", "/pangate/shop", lambda: f"evt_{next(self._ids)}")
            owner = f"{payment}-{(count + 1) // 2}"
            await self.store.commit([self._admit(payment, owner, draft) if count % 2 else self._end(owner, draft)])

    def _admit(self, payment: str, owner: str, draft: EventDraft) -> AdmitCommand:
        first = self.told[payment] == 1
        ref = PaymentRef("psp", None, None if first else payment)
        command, amount = ("authorize", 1_000_000) if first else ("capture", 1)
        now = self.clock.now()
        return AdmitCommand(TENANT, self._machine, ref, command, amount, "EUR", owner, payment, now, "reject", draft)

    def _end(self, owner: str, draft: EventDraft) -> EndCommand:
        return EndCommand(TENANT, self._machine, owner, "succeeded", None, None, (), self.clock.now(), draft)

    async def lag(self) -> LagRow:
        asked = EventLag()
        return (await self.store.commit([asked]))[asked]

    async def parked(self) -> list[OutboxEvent]:
        asked = ListEvents(None, "parked", 1000)
        return list((await self.store.commit([asked]))[asked].events)

    async def pending(self) -> list[OutboxEvent]:
        asked = ListEvents(None, "pending", 1000)
        return list((await self.store.commit([asked]))[asked].events)


@asynccontextmanager
async def outbox(path: str = ":memory:") -> AsyncIterator[Outbox]:
    clock, telemetry = HandClock(), Recorder()
    store: SqliteStore = open_sqlite(path, clock=clock, telemetry=telemetry)
    try:
        yield Outbox(store, clock, telemetry)
    finally:
        await store.close()
