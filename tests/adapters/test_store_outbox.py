"""Events of payments, published any way it goes, against a model: always the first that was not sent, and no other."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gateway.adapters.postgres_connections import Address
from gateway.operations import (
    DueEvents,
    EventLag,
    LagRow,
    OutboxEvent,
    ParkEvent,
    PurgeEvents,
    ReplayEvent,
    RetryEvent,
    SentEvents,
)
from gateway.ports import Store
from gateway.pure.lifecycle import Told
from tests.adapters.engines import Engine, PostgresEngine, SqliteEngine
from tests.adapters.operations import ask
from tests.adapters.payments import Till
from tests.conftest import HandClock

T = TypeVar("T")
LEASE = 10.0
payments = st.sampled_from(["pay_1", "pay_2", "pay_3"])


@dataclass
class Queue:
    """Of one payment: how many events there are and how many were sent, and what has become of the first unsent."""

    written: int = 0
    sent: int = 0
    parked: bool = False
    not_before: float = 0.0


async def due(store: Store, now: float) -> tuple[OutboxEvent, ...]:
    operation = DueEvents(now, 100, LEASE)
    return (await store.commit([operation]))[operation].events


class Outbox(RuleBasedStateMachine):
    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or SqliteEngine()
        self.clock = HandClock()
        self.queues: dict[str, Queue] = {}
        self.taken: list[OutboxEvent] = []
        self.first: dict[tuple[str, int], str] = {}

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.engine.run(asked)

    @initialize()
    def open(self) -> None:
        self.store = self.engine.open(self.clock)

    @rule(payment=payments, count=st.integers(1, 3))
    def tell(self, payment: str, count: int) -> None:
        for _ in range(count):
            news, till = Told("external_authorize", 1), Till(self.store)
            self.run(till.hear(news, alias=payment, new_id=payment, on_missing="observe", now=self.clock.now()))
        self.queues.setdefault(payment, Queue()).written += count

    @rule()
    def take(self) -> None:
        now = self.clock.now()
        found = self.run(due(self.store, now))
        expected = {
            (name, queue.sent + 1)
            for name, queue in self.queues.items()
            if queue.sent < queue.written and not queue.parked and queue.not_before <= now
        }
        assert {(event.aggregateid, event.sequence) for event in found} == expected
        assert len(found) == len(expected)
        for event in found:
            assert self.first.setdefault((event.aggregateid, event.sequence), event.id) == event.id
            self.queues[event.aggregateid].not_before = now + LEASE
        self.taken += found

    def pending(self, event: OutboxEvent) -> Queue | None:
        """The queue that this event is the first of, if it was not sent or parked since it was taken."""
        queue = self.queues[event.aggregateid]
        return queue if event.sequence == queue.sent + 1 and not queue.parked else None

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        events = data.draw(st.lists(st.sampled_from(self.taken), max_size=4))
        self.run(ask(self.store, SentEvents(tuple((event.tenant, event.id) for event in events), self.clock.now())))
        for event in events:
            queue = self.pending(event)
            if queue is not None:
                queue.sent += 1
                queue.not_before = 0.0

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), seconds=st.integers(0, 20))
    def retry(self, data: st.DataObject, seconds: int) -> None:
        event = data.draw(st.sampled_from(self.taken))
        queue, at = self.pending(event), self.clock.now() + seconds
        row = self.run(ask(self.store, RetryEvent(event.tenant, event.id, 1, at, "refused")))
        assert row.refused is (queue is None)
        if queue is not None:
            queue.not_before = at

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.taken))
        queue = self.pending(event)
        assert self.run(ask(self.store, ParkEvent(event.tenant, event.id, 9, "poison"))).refused is (queue is None)
        if queue is not None:
            queue.parked = True

    @precondition(lambda self: any(queue.parked for queue in self.queues.values()))
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, queue in self.queues.items() if queue.parked)))
        queue = self.queues[name]
        event = self.first[name, queue.sent + 1]
        assert not self.run(ask(self.store, ReplayEvent("shop", event, self.clock.now()))).refused
        queue.parked, queue.not_before = False, self.clock.now()

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def purge(self) -> None:
        self.run(ask(self.store, PurgeEvents(self.clock.now() - 5, 2)))

    @rule()
    def restart(self) -> None:
        """Where one process has the store, its leases are void when it is gone; when to try again is not."""
        self.store = self.engine.restart(self.clock)
        if self.engine.leases_end:
            for name, next_at in self.engine.rows("SELECT aggregateid, next_at FROM outbox WHERE state = 'due'"):
                self.queues[name].not_before = min(self.queues[name].not_before, next_at / 1e6)

    @rule()
    def count(self) -> None:
        operation = EventLag()
        lag = self.run(ask(self.store, operation))
        unsent = sum(queue.written - queue.sent for queue in self.queues.values())
        parked = sum(queue.parked for queue in self.queues.values())
        assert isinstance(lag, LagRow)
        assert (lag.pending, lag.parked) == (unsent - parked, parked)

    def teardown(self) -> None:
        self.engine.end()


TestOutbox = Outbox.TestCase
TestOutbox.settings = settings(max_examples=30, stateful_step_count=30, database=None)


def test_the_outbox_on_postgres(postgres_address: Address) -> None:
    run_state_machine_as_test(
        lambda: Outbox(PostgresEngine(postgres_address)), settings=settings(TestOutbox.settings, max_examples=4)
    )
