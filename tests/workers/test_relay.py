from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.operations import EventLag, LagRow, Operation, OutboxEvent, ReplayEvent, Row, Rows
from gateway.pure.metrics import Metric
from gateway.pure.relaying import LONGEST_PAUSE, Receipt, Taking
from gateway.workers.relay import BATCH, DEADLINE, LEASE, Announcing, Relay
from tests.outbox_world import (
    AWAY,
    BEFORE,
    GONE,
    REFUSES,
    SILENT,
    TAKES,
    TENANT,
    UNHEARD,
    Failing,
    Outbox,
    Receiver,
    Reply,
    outbox,
)

DAY = 86400.0


def relay(world: Outbox, *receivers: Receiver, attempts: int = 3) -> Relay:
    return Relay(world.ports, receivers, attempts=attempts)


async def settle(world: Outbox, *relays: Relay, steps: int = 8, seconds: float = 0.0) -> None:
    """Let relays step, with so many seconds between two steps."""
    for _ in range(steps):
        for one in relays:
            await one.step(world.clock.now())
            await one.drain()
        world.clock.advance(seconds)


async def test_every_event_is_published_in_the_order_of_its_payment() -> None:
    async with outbox() as world:
        receiver = Receiver()
        await world.tell(*"abcaabbbca")
        await settle(world, relay(world, receiver))

        assert {name: receiver.sequences(name) for name in "abc"} == {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2]}
        assert (await world.lag()).pending == 0


async def test_events_of_different_payments_are_on_their_way_together_and_those_of_one_are_not() -> None:
    async with outbox() as world:
        receiver = Receiver()
        receiver.held.clear()
        await world.tell(*"aabbc")
        one = relay(world, receiver)
        for _ in range(3):
            await one.step(world.clock.now())
            await asyncio.sleep(0)

        assert [(event.aggregateid, event.sequence) for event in receiver.offered] == [("a", 1), ("b", 1), ("c", 1)]
        receiver.held.set()
        await one.drain()


async def test_an_event_that_is_on_its_way_is_not_started_again_when_its_lease_is_over() -> None:
    async with outbox() as world:
        receiver = Receiver()
        receiver.held.clear()
        await world.tell("a")
        one = relay(world, receiver)
        for _ in range(3):
            await one.step(world.clock.now())
            await asyncio.sleep(0)
            world.clock.advance(LEASE + 1)

        assert len(receiver.offered) == 1
        receiver.held.set()
        await one.drain()


def test_an_event_is_given_up_before_its_lease_is_over() -> None:
    assert DEADLINE < LEASE


async def test_an_event_whose_confirmation_got_lost_is_sent_again_before_the_next_one() -> None:
    async with outbox() as world:
        replies = iter([UNHEARD, TAKES, TAKES])
        receiver = Receiver(reply=lambda _: next(replies))
        await world.tell(*"aa")
        await settle(world, relay(world, receiver), seconds=2)

        assert receiver.sequences("a") == [1, 1, 2]
        assert len({event.id for event in receiver.taken}) == 2


async def test_a_poisonous_event_is_parked_and_holds_up_its_own_payment_alone() -> None:
    async with outbox() as world:
        receiver = Receiver(reply=lambda event: REFUSES if event.aggregateid == "bad" else TAKES)
        await world.tell("bad", "good", "bad", "good")
        await settle(world, relay(world, receiver, attempts=3), steps=20, seconds=10)
        await world.tell("good")
        await settle(world, relay(world, receiver), seconds=DAY)

        (parked,) = await world.parked()
        assert (parked.aggregateid, parked.sequence, parked.attempts, parked.note) == ("bad", 1, 3, "refuses")
        assert sum(event.aggregateid == "bad" for event in receiver.offered) == 3
        assert receiver.sequences("good") == [1, 2, 3]
        assert [line["id"] for line in world.telemetry.lines if line["event"] == "event_parked"] == [parked.id]


async def test_an_event_whose_receiver_is_gone_is_parked_at_once() -> None:
    async with outbox() as world:
        receiver = Receiver(reply=lambda _: GONE)
        await world.tell("a")
        await settle(world, relay(world, receiver, attempts=99), steps=2)

        assert len(await world.parked()) == len(receiver.offered) == 1


async def test_a_replayed_event_goes_first_and_then_those_behind_it() -> None:
    async with outbox() as world:
        receiver = Receiver(reply=lambda _: GONE)
        await world.tell(*"aaa")
        one = relay(world, receiver)
        await settle(world, one)
        (parked,) = await world.parked()
        receiver.reply = lambda _: TAKES
        await world.store.commit([ReplayEvent(TENANT, parked.id, world.clock.now())])
        await settle(world, one)

        assert receiver.sequences("a") == [1, 2, 3]


async def test_no_event_is_parked_while_its_receiver_is_away_and_all_arrive_when_it_is_back() -> None:
    async with outbox() as world:
        receiver = Receiver(reply=lambda _: AWAY)
        await world.tell(*"abcdef", *"abcdef")
        one = relay(world, receiver, attempts=1)
        await settle(world, one, steps=200, seconds=DAY / 100)
        assert (len(await world.parked()), receiver.taken) == (0, [])

        receiver.reply = lambda _: TAKES
        await settle(world, one, steps=20, seconds=60)
        assert [receiver.sequences(name) for name in "abcdef"] == [[1, 2]] * 6
        logged = [line["event"] for line in world.telemetry.lines if str(line["event"]).startswith("relay_")]
        assert logged == ["relay_slowed", "relay_resumed"]


async def test_a_receiver_that_is_away_is_asked_with_one_event_at_a_time_and_ever_more_seldom() -> None:
    async with outbox() as world:
        receiver = Receiver(reply=lambda _: AWAY)
        await world.tell(*(f"p{n}" for n in range(50)))
        one = relay(world, receiver)
        await settle(world, one, steps=1)
        assert len(receiver.offered) == 50

        receiver.offered.clear()
        await settle(world, one, steps=600, seconds=1)
        assert 600 / (1.2 * LONGEST_PAUSE) - 2 <= len(receiver.offered) <= 600 / (0.8 * LONGEST_PAUSE) + 10
        assert len({event.id for event in receiver.offered}) > 10, "one event keeps all others from being tried"


async def test_what_a_receiver_asks_for_is_waited_for() -> None:
    async with outbox() as world:
        busy = Reply(False, Receipt(Taking.AWAY, "status 429", 20))
        receiver = Receiver(reply=lambda _: busy)
        await world.tell(*"ab")
        one = relay(world, receiver)
        await settle(world, one, steps=19, seconds=1)
        assert len(receiver.offered) == 2
        receiver.reply = lambda _: TAKES
        await settle(world, one, steps=4, seconds=1)
        assert len(receiver.taken) == 2


async def test_a_publisher_that_says_nothing_or_raises_is_taken_for_a_refusal() -> None:
    class Broken(Receiver):
        async def publish(self, events: Sequence[OutboxEvent], told: Any) -> None:
            raise KeyError("ours")

    async with outbox() as world:
        await world.tell(*"a")
        await settle(world, relay(world, Broken()), steps=1)
        assert [event.note for event in await world.pending()] == ["KeyError"]

    async with outbox() as world:
        await world.tell(*"a")
        await settle(world, relay(world, Receiver(reply=lambda _: SILENT)), steps=1)
        assert [event.note for event in await world.pending()] == ["no receipt"]


# --- several receivers -----------------------------------------------------------------------------------------------


async def test_an_event_is_sent_when_every_receiver_took_it_and_none_gets_it_twice() -> None:
    async with outbox() as world:
        replies = iter([REFUSES, REFUSES])
        slow = Receiver("slow", lambda _: next(replies, TAKES))
        quick = Receiver("quick")
        await world.tell(*"aa")
        await settle(world, relay(world, quick, slow, attempts=9), seconds=5)

        assert quick.sequences("a") == slow.sequences("a") == [1, 2]
        assert len(slow.offered) == 4


async def test_a_replay_of_an_event_that_all_took_reaches_all() -> None:
    async with outbox() as world:
        replies = iter([REFUSES])
        receivers = Receiver("one", lambda _: next(replies, TAKES)), Receiver("two")
        await world.tell("a")
        one = relay(world, *receivers)
        await settle(world, one, seconds=5)
        (event,) = receivers[0].taken
        await world.store.commit([ReplayEvent(TENANT, event.id, world.clock.now())])
        await settle(world, one)

        assert [receiver.sequences("a") for receiver in receivers] == [[1, 1], [1, 1]]


# --- the store -------------------------------------------------------------------------------------------------------


async def test_an_outcome_that_the_store_could_not_take_is_recorded_later_and_nothing_is_sent_again() -> None:
    async with outbox() as world:
        failing = Failing(world.store)
        world.ports = replace(world.ports, store=failing)
        receiver = Receiver()
        await world.tell(*"aa")
        one = relay(world, receiver)
        await one.step(world.clock.now())
        failing.fails = lambda: BEFORE
        await one.drain()
        for _ in range(5):
            await one.step(world.clock.now())
            world.clock.advance(LEASE)
        failing.fails = lambda: None
        await settle(world, one)

        assert receiver.sequences("a") == [1, 2]


# --- the loop --------------------------------------------------------------------------------------------------------


async def test_the_loop_publishes_what_it_is_woken_for_and_stops_when_all_is_recorded() -> None:
    async with outbox() as world:
        arrived = asyncio.Event()

        def reply(_: OutboxEvent) -> Reply:
            arrived.set()
            return TAKES

        receiver = Receiver(reply=reply)
        one = Relay(world.ports, [receiver], attempts=3, poll=3600, linger=0)
        running = asyncio.create_task(one.run())
        await asyncio.sleep(0)
        await world.tell("a")
        one.wake()
        await asyncio.wait_for(arrived.wait(), 60)
        await one.stop()
        await running

        assert (await world.lag()).pending == 0


async def test_a_long_queue_is_published_without_waiting_between_batches() -> None:
    async with outbox() as world:
        receiver = Receiver()
        await world.tell(*(f"p{n}" for n in range(3 * BATCH)))
        one = Relay(world.ports, [receiver], attempts=3, poll=3600, linger=0)
        running = asyncio.create_task(one.run())
        while len(receiver.taken) < 3 * BATCH:  # noqa: ASYNC110 - another task's progress
            await asyncio.sleep(0)
        await one.stop()
        await running

        assert (await world.lag()).pending == 0


async def test_who_took_a_full_batch_looks_for_more_at_once_as_long_as_there_is_room() -> None:
    async with outbox() as world:
        receiver = Receiver()
        receiver.concurrency = 2 * BATCH
        receiver.held.clear()
        await world.tell(*(f"p{n}" for n in range(3 * BATCH)))
        one = relay(world, receiver)
        delays = [await one.step(world.clock.now()) for _ in range(3)]
        await asyncio.sleep(0)

        assert delays == [0.0, 0.25, 0.25]
        assert len(receiver.offered) == 2 * BATCH
        receiver.held.set()
        await one.drain()


async def test_the_longer_the_queue_the_more_seldom_it_is_counted() -> None:
    async with outbox() as world:
        counted: list[float] = []

        class Counting(Failing):
            async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
                rows = await super().commit(unit)
                for operation in unit:
                    if isinstance(operation, EventLag):
                        counted.append(world.clock.now())
                        rows.answered[0] = LagRow(pending=1_000_000, parked=0, oldest=0)
                return rows

        world.ports = replace(world.ports, store=Counting(world.store))
        await settle(world, relay(world, Receiver()), steps=200, seconds=1)

        assert [later - counted[0] for later in counted] == [0, 105]


async def test_a_commit_that_tells_something_wakes_the_relay_and_no_other_does() -> None:
    async with outbox() as world:
        woken: list[int] = []
        announcing = Announcing(world.store)
        announcing.wake = lambda: woken.append(world.told["a"])
        world.store = announcing
        await world.tell("a")
        await world.tell("a")
        await world.lag()

        assert woken == [1, 2]


async def test_metrics_say_how_far_behind_publishing_is() -> None:
    async with outbox() as world:
        await world.tell(*"ab")
        world.clock.advance(7)
        receiver = Receiver(reply=lambda event: GONE if event.aggregateid == "a" else TAKES)
        one = relay(world, receiver)
        await settle(world, one, steps=1)
        counts = world.telemetry.counts
        assert (counts[Metric.OUTBOX_PENDING, ()], counts[Metric.OUTBOX_OLDEST_SECONDS, ()]) == (2, 7)

        world.clock.advance(10)
        await settle(world, one, steps=1)
        assert (counts[Metric.OUTBOX_PENDING, ()], counts[Metric.OUTBOX_PARKED, ()]) == (0, 1)
        assert counts[Metric.OUTBOX_OLDEST_SECONDS, ()] == 0
        assert counts[Metric.OUTBOX_PUBLISHED, ("receiver", "taken")] == 1
        assert counts[Metric.OUTBOX_PUBLISHED, ("receiver", "gone")] == 1
