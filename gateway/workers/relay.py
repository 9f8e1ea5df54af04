"""Publishes events: at least once each, those of a payment in their order, and none that holds up another payment.

The store hands out only the first event of a payment that is not sent, under a lease; an event stays its payment's
first until it is recorded as sent. So whatever dies and whenever, the next event of a payment is never offered before
the one ahead of it was taken, and one whose confirmation was lost is offered again, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gateway.operations import (
    AdmitCommand,
    DueEvents,
    EndCommand,
    EventLag,
    Operation,
    OutboxEvent,
    ParkEvent,
    RecordFacts,
    ReplayEvent,
    RetryEvent,
    ReviewPayment,
    Row,
    Rows,
    SentEvents,
)
from gateway.ports import Ports, Publisher, Store, Unavailable
from gateway.pure.lru import Lru
from gateway.pure.metrics import Metric
from gateway.pure.relaying import LONGEST_PAUSE, TAKEN, Receipt, Taking, again, pause, verdict

LEASE = 30.0
"""Seconds for which the store hands an event to nobody else."""
DEADLINE = 25.0
"""Seconds after which an event counts as not taken: before its lease ends, so that nobody offers it meanwhile."""
BATCH = 100
"""Events that one commit hands out, and records as sent, at the most."""

_MEASURED_EVERY = 5.0
_COUNTED_A_SECOND = 10_000
"""Events for which measuring is put off by a second: the store counts them one by one, and payments wait for it."""
_PARTLY_SENT = 100_000
"""Events of which it is remembered who of several receivers took them; who took a forgotten one gets it again."""

_TELLING = (AdmitCommand, EndCommand, RecordFacts, ReviewPayment, ReplayEvent)
"""Operations that may leave something to publish."""

Key = tuple[str, str]
"""Tenant and id of an event."""


@dataclass(slots=True)
class _Flight:
    """An event on its way, and what its receivers said so far; those that took it before are not asked again."""

    event: OutboxEvent
    receipts: dict[str, Receipt] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.event.tenant, self.event.id


class Announcing:
    """A store that calls `wake` after each commit of a unit that may have written an event."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wake: Callable[[], None] = lambda: None

    def commit(self, unit: Sequence[Operation[Row]]) -> Awaitable[Rows]:
        committed = self._store.commit(unit)
        for operation in unit:
            if isinstance(operation, _TELLING):
                return self._announced(committed)
        return committed

    async def _announced(self, committed: Awaitable[Rows]) -> Rows:
        rows = await committed
        self.wake()
        return rows

    async def close(self) -> None:
        await self._store.close()


class Relay:
    """One loop for all events of a store; `publishers` (at least one) each get every event.

    An event that `attempts` times was given to its receiver and not taken is parked. Without a `wake`, the store is
    asked every `poll` seconds; after one, `linger` seconds later, so that a busy gateway asks for many at a time.
    """

    def __init__(
        self,
        ports: Ports,
        publishers: Sequence[Publisher],
        *,
        attempts: int,
        poll: float = 0.25,
        linger: float = 0.01,
    ) -> None:
        self._ports = ports
        self._publishers = publishers
        self._attempts = attempts
        self._poll = poll
        self._linger = linger
        self._room = min(publisher.concurrency for publisher in publishers)
        self._woken = asyncio.Event()
        self._stopping = False
        self._flights: dict[Key, _Flight] = {}
        """On their way, or their outcome is not yet recorded: not to be started again."""
        self._landed: list[_Flight] = []
        """All their receivers have spoken; what they said is to be recorded."""
        self._took: Lru[Key, frozenset[str]] = Lru(_PARTLY_SENT)
        """Who took an event that others did not take yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        """Rounds in a row that found a receiver away."""
        self._paused_until = 0.0
        self._measure_at = 0.0

    def wake(self) -> None:
        """There is, or may be, something to publish."""
        self._woken.set()

    async def run(self) -> None:
        """Step until `stop`."""
        while not self._stopping:
            self._woken.clear()
            delay = await self.step(self._ports.clock.now())
            if delay:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._woken.wait()
                if len(self._landed) < BATCH:
                    await asyncio.sleep(self._linger)

    async def stop(self) -> None:
        """Start nothing more, and wait until what is on its way has its outcome recorded."""
        self._stopping = True
        self.wake()
        await self.drain()

    async def drain(self) -> None:
        """Wait for the events that are on their way, and record what became of them."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(Unavailable):
            await self._exchange(self._ports.clock.now(), 0)

    async def step(self, now: float) -> float:
        """Record what landed, start what is due; seconds until it is worth asking again without a `wake`."""
        try:
            await self._measure(now)
            wanted = self._wanted()
            claimed = await self._exchange(now, wanted)
        except Unavailable:
            return self._poll
        self._start([event for event in claimed if (event.tenant, event.id) not in self._flights])
        return 0.0 if 0 < len(claimed) == wanted and self._wanted() else self._poll

    def _wanted(self) -> int:
        """How many events to start: one while a receiver is away, to see whether it is back."""
        if self._stopping or self._ports.clock.monotonic() < self._paused_until:
            return 0
        if self._failures:
            return 0 if self._flights else 1
        return min(BATCH, self._room - len(self._flights))

    async def _measure(self, now: float) -> None:
        if self._ports.clock.monotonic() < self._measure_at:
            return
        asked = EventLag()
        lag = (await self._ports.store.commit([asked]))[asked]
        wait = _MEASURED_EVERY + (lag.pending + lag.parked) / _COUNTED_A_SECOND
        self._measure_at = self._ports.clock.monotonic() + wait
        telemetry = self._ports.telemetry
        telemetry.set(Metric.OUTBOX_PENDING, lag.pending)
        telemetry.set(Metric.OUTBOX_PARKED, lag.parked)
        telemetry.set(Metric.OUTBOX_OLDEST_SECONDS, max(0.0, now - lag.oldest) if lag.oldest else 0.0)

    # --- the store's side

    async def _exchange(self, now: float, wanted: int) -> Sequence[OutboxEvent]:
        """What landed, for what is due: one commit, so that what a sent event held up is handed out in it.

        What could not be recorded stays landed. Raises `Unavailable`.
        """
        landed, self._landed = self._landed, []
        verdicts = [(flight, verdict(flight.receipts.values())) for flight in landed]
        sent = tuple(flight.key for flight, receipt in verdicts if receipt.taking is Taking.TAKEN)
        failed = [
            self._failed(flight, receipt, now) for flight, receipt in verdicts if receipt.taking is not Taking.TAKEN
        ]
        due = DueEvents(now=now, limit=wanted, lease=LEASE)
        unit: list[Operation[Row]] = [SentEvents(sent, now)] if sent else []
        unit += [due] if wanted else []
        try:
            await asyncio.gather(*(self._ports.store.commit([operation]) for operation in failed))
            rows = await self._ports.store.commit(unit) if unit else None
        except Unavailable:
            self._landed += landed
            raise
        for operation in failed:
            if isinstance(operation, ParkEvent):
                self._ports.telemetry.log("event_parked", level="error", id=operation.id, note=operation.note)
        self._recorded(verdicts)
        return rows[due].events if rows is not None and wanted else ()

    def _failed(self, flight: _Flight, receipt: Receipt, now: float) -> RetryEvent | ParkEvent:
        event = flight.event
        plan = again(receipt, event.attempts, self._attempts, now, self._jitter())
        if plan.next_at is None:
            return ParkEvent(event.tenant, event.id, plan.attempts, receipt.note)
        return RetryEvent(event.tenant, event.id, plan.attempts, plan.next_at, receipt.note)

    def _recorded(self, verdicts: Sequence[tuple[_Flight, Receipt]]) -> None:
        """Forget what landed; remember who took what others did not, and whether somebody is away."""
        for flight, receipt in verdicts:
            del self._flights[flight.key]
            sent = receipt.taking is Taking.TAKEN
            took = () if sent else (name for name, told in flight.receipts.items() if told.taking is Taking.TAKEN)
            if not sent or self._took.get(flight.key) is not None:
                self._took.put(flight.key, frozenset(took))
        if verdicts:
            self._heed([receipt for _, receipt in verdicts if receipt.taking is Taking.AWAY])

    def _heed(self, away: Sequence[Receipt]) -> None:
        """Slow down while a receiver is away: it is asked with one event at a time, and ever more seldom."""
        telemetry = self._ports.telemetry
        if away and not self._failures:
            telemetry.log("relay_slowed", level="warning", note=away[0].note)
        elif not away and self._failures:
            telemetry.log("relay_resumed")
        self._failures = self._failures + 1 if away else 0
        asked = max((receipt.wait for receipt in away), default=0.0)
        seconds = max(pause(self._failures, self._jitter()), min(asked, LONGEST_PAUSE))
        self._paused_until = self._ports.clock.monotonic() + seconds

    def _jitter(self) -> float:
        return int.from_bytes(self._ports.entropy(2), "big") / 65536

    # --- the receivers' side

    def _start(self, events: Sequence[OutboxEvent]) -> None:
        flights = [_Flight(event) for event in events]
        for flight in flights:
            self._flights[flight.key] = flight
            flight.receipts = dict.fromkeys(self._took.get(flight.key) or (), TAKEN)
        for publisher in self._publishers:
            asked = [flight for flight in flights if publisher.name not in flight.receipts]
            if asked:
                task = asyncio.create_task(self._publish(publisher, asked))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _publish(self, publisher: Publisher, flights: Sequence[_Flight]) -> None:
        """Offer events to one receiver; each gets its receipt, whatever the publisher does."""
        waiting = {flight.key: flight for flight in flights}
        began = self._ports.clock.monotonic()

        def told(event: OutboxEvent, receipt: Receipt) -> None:
            flight = waiting.pop((event.tenant, event.id), None)
            if flight is not None:
                self._tell(publisher.name, flight, receipt, began)

        note = "no receipt"
        try:
            async with asyncio.timeout(DEADLINE):
                await publisher.publish([flight.event for flight in flights], told)
        except Exception as error:  # noqa: BLE001 - one publisher's failure must not end the loop for the others
            note = type(error).__name__
        for flight in list(waiting.values()):
            told(flight.event, Receipt(Taking.REFUSED, note))

    def _tell(self, name: str, flight: _Flight, receipt: Receipt, began: float) -> None:
        telemetry = self._ports.telemetry
        telemetry.count(Metric.OUTBOX_PUBLISHED, name, receipt.taking.word)
        telemetry.observe(Metric.OUTBOX_PUBLISH_SECONDS, self._ports.clock.monotonic() - began, name)
        flight.receipts[name] = receipt
        if len(flight.receipts) == len(self._publishers):
            self._landed.append(flight)
            self.wake()
