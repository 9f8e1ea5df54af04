"""The relay against everything that can go wrong between it, its receivers and its store, in any order."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.operations import OutboxEvent
from gateway.workers.relay import LEASE, Relay
from tests.outbox_world import AFTER, AWAY, BEFORE, REFUSES, SILENT, TAKES, UNHEARD, Failing, Outbox, Receiver, outbox

PAYMENTS = ("a", "b", "c", "poisoned")
POISON = 2
"""Which event of the poisoned payment nobody ever takes."""
ATTEMPTS = 200
CAREFUL = settings(max_examples=60)

acts = st.lists(
    st.one_of(
        st.sampled_from(PAYMENTS).map(lambda name: ("tell", name)),
        st.just(("step", "")),
        st.just(("step", "")),
        st.just(("let", "")),
        st.just(("crash", "")),
        st.sampled_from(["hold", "free"]).map(lambda what: ("receiver", what)),
        st.sampled_from(["1", "40", "100000"]).map(lambda seconds: ("pass", seconds)),
    ),
    max_size=60,
)
replies = st.lists(st.sampled_from([TAKES, TAKES, UNHEARD, REFUSES, AWAY, SILENT]), max_size=40)
failures = st.lists(st.sampled_from([None, None, None, BEFORE, AFTER]), max_size=40)


def poisonous(event: OutboxEvent) -> bool:
    return event.aggregateid == "poisoned" and event.sequence == POISON


class Course:
    """A world, its receivers, and the relay that runs right now."""

    def __init__(self, world: Outbox, receivers: list[Receiver], store: Failing) -> None:
        self.world = world
        self.receivers = receivers
        self.store = store
        self.crashes = 0
        self.relay = self._relay()

    def _relay(self) -> Relay:
        ports = replace(self.world.ports, store=self.store)
        return Relay(ports, self.receivers, attempts=ATTEMPTS)

    async def act(self, kind: str, what: str) -> None:
        match kind:
            case "tell":
                await self.world.tell(what)
            case "step":
                await self.relay.step(self.world.clock.now())
            case "let":
                for _ in range(10):
                    await asyncio.sleep(0)
            case "crash":
                await self._crash()
            case "receiver":
                for receiver in self.receivers:
                    receiver.held.set() if what == "free" else receiver.held.clear()
            case "pass":
                self.world.clock.advance(float(what))

    async def _crash(self) -> None:
        """All that the relay knew is gone, and what it was doing breaks off; its leases end."""
        self.crashes += 1
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.world.clock.advance(LEASE + 1)
        self.relay = self._relay()

    async def heal(self) -> None:
        """Everything works again but the poison; until nothing more can be sent."""
        self.store.fails = lambda: None
        for receiver in self.receivers:
            receiver.reply = lambda event: REFUSES if poisonous(event) else TAKES
            receiver.held.set()
        for _ in range(10 * ATTEMPTS):
            await self.relay.step(self.world.clock.now())
            await self.relay.drain()
            self.world.clock.advance(7 * 3600)
            blocked = {event.aggregateid for event in await self.world.parked()}
            if {event.aggregateid for event in await self.world.pending()} <= blocked:
                return
        raise AssertionError("events are left over")


async def run(course: list[tuple[str, str]], said: list[list[object]], failing: list[str | None]) -> None:
    async with outbox() as world:
        store = Failing(world.store)
        receivers = [receiver(f"receiver-{n}", list(script)) for n, script in enumerate(said)]
        going = Course(world, receivers, store)
        script = iter(failing)
        store.fails = lambda: next(script, None)
        for kind, what in course:
            await going.act(kind, what)
        await going.heal()
        for one in receivers:
            verify(going, one)


def receiver(name: str, script: list[object]) -> Receiver:
    rest = iter(script)

    def reply(event: OutboxEvent) -> object:
        said = next(rest, TAKES)
        return REFUSES if poisonous(event) and said in (TAKES, UNHEARD) else said

    return Receiver(name, reply)  # type: ignore[arg-type]


def verify(course: Course, receiver: Receiver) -> None:
    for payment in PAYMENTS:
        told = course.world.told[payment]
        took = receiver.sequences(payment)
        complete = told if payment != "poisoned" else min(told, POISON - 1)
        assert sorted({*took}) == list(range(1, complete + 1)), "an event is lost, or one behind the poison got through"
        assert all(later - earlier in (0, 1) for earlier, later in pairwise([0, *took])), "out of order"
    for event_id, times in Counter(event.id for event in receiver.taken).items():
        excuses = receiver.unheard[event_id] + course.crashes
        assert times <= 1 + excuses, "sent again although it was confirmed"


@CAREFUL
@given(acts, replies, failures)
@example([("tell", "poisoned"), ("step", "")], [], [None, AFTER])
def test_one_receiver_gets_every_event_in_order_and_twice_only_if_it_was_not_heard(
    course: list[tuple[str, str]], said: list[object], failing: list[str | None]
) -> None:
    asyncio.run(run(course, [said], failing))


@CAREFUL
@given(acts, replies, replies)
def test_several_receivers_each_get_every_event_in_order_and_twice_only_if_they_were_not_heard(
    course: list[tuple[str, str]], said: list[object], others: list[object]
) -> None:
    asyncio.run(run(course, [said, others], []))
