"""What every store promises of its outbox: the events of a payment in turn, none lost, and none that blocks others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.sqlite import open_sqlite
from gateway.operations import (
    DueEvents,
    EventLag,
    LagRow,
    ListEvents,
    Operation,
    OutboxEvent,
    ParkEvent,
    PurgeEvents,
    ReplayEvent,
    RetryEvent,
    Row,
    SentEvents,
)
from gateway.ports import Store
from gateway.pure.lifecycle import Told
from tests.adapters.operations import NOW, ask
from tests.adapters.payments import Till, published, told_in
from tests.conftest import HandClock, Recorder


async def tell(store: Store, payment: str = "pay_1", count: int = 1, tenant: str = "shop", now: float = NOW) -> None:
    """So many events of a payment, one a commit."""
    for _ in range(count):
        news = Told("external_authorize", 1)
        await Till(store, tenant).hear(news, alias=payment, new_id=payment, on_missing="observe", now=now)


async def take(store: Store, now: float = NOW, limit: int = 100, lease: float = 30.0) -> list[OutboxEvent]:
    operation = DueEvents(now, limit, lease)
    return list((await store.commit([operation]))[operation].events)


async def sent(store: Store, *events: OutboxEvent) -> None:
    await ask(store, SentEvents(tuple((event.tenant, event.id) for event in events), NOW))


async def lag(store: Store) -> LagRow:
    operation = EventLag()
    return (await store.commit([operation]))[operation]


async def listed(store: Store, state: str, tenant: str | None = None) -> list[OutboxEvent]:
    operation = ListEvents(tenant, state, 10)  # type: ignore[arg-type]
    return list((await store.commit([operation]))[operation].events)


async def purge(store: Store, before: float, limit: int = 10, *, unsent: bool = False) -> int:
    operation = PurgeEvents(before, limit, unsent)
    return (await store.commit([operation]))[operation].count


async def test_of_each_payment_the_first_event_that_was_not_sent_is_due(store: Store) -> None:
    await tell(store, "pay_1", 3)
    await tell(store, "pay_2", 2)
    first = await take(store)
    assert sorted((event.aggregateid, event.sequence) for event in first) == [("pay_1", 1), ("pay_2", 1)]
    await sent(store, *(event for event in first if event.aggregateid == "pay_1"))
    assert [(event.aggregateid, event.sequence) for event in await take(store)] == [("pay_1", 2)]


async def test_an_event_is_taken_by_one_until_its_lease_is_over(store: Store) -> None:
    await tell(store)
    (event,) = await take(store, lease=30)
    assert await take(store, NOW + 29) == []
    assert await take(store, NOW + 30) == [event]


async def test_those_that_waited_longest_come_first(store: Store) -> None:
    for name, now in (("pay_1", NOW + 2), ("pay_2", NOW), ("pay_3", NOW + 1)):
        await tell(store, name, now=now)
    assert [event.aggregateid for event in await take(store, NOW + 9, limit=2)] == ["pay_2", "pay_3"]


async def test_an_event_holds_what_is_published(store: Store) -> None:
    await tell(store)
    (event,) = await take(store)
    assert (event.tenant, event.aggregateid, event.sequence) == ("shop", "pay_1", 1)
    assert event.type == "payment.facts.recorded.v1"
    assert told_in(event)["change"] == {"authorised": 1}
    assert (event.created_at, event.attempts, event.note) == (NOW, 0, None)


async def test_a_new_event_of_a_payment_whose_events_were_all_sent_is_due_at_once(store: Store) -> None:
    await tell(store)
    await published(store)
    await tell(store)
    assert [event.sequence for event in await take(store)] == [2]


async def test_what_is_told_as_sent_twice_is_sent_once(store: Store) -> None:
    await tell(store, count=3)
    (event,) = await take(store)
    await sent(store, event)
    await sent(store, event)
    assert [found.sequence for found in await take(store)] == [2]


async def test_an_event_that_could_not_be_published_is_due_again_at_its_time(store: Store) -> None:
    await tell(store, count=2)
    (event,) = await take(store)
    await ask(store, RetryEvent("shop", event.id, 3, NOW + 10, "refused"))
    assert await take(store, NOW + 9) == []
    (again,) = await take(store, NOW + 10)
    assert (again.id, again.attempts, again.note) == (event.id, 3, "refused")


async def test_a_parked_event_blocks_its_own_payment_and_no_other(store: Store) -> None:
    await tell(store, "pay_1", 2)
    await tell(store, "pay_2", 2)
    (poison,) = (event for event in await take(store) if event.aggregateid == "pay_1")
    await ask(store, ParkEvent("shop", poison.id, 8, "400"))
    later = await take(store, NOW + 1e6)
    assert [event.aggregateid for event in later] == ["pay_2"]
    (parked,) = await listed(store, "parked")
    assert (parked.id, parked.attempts, parked.note) == (poison.id, 8, "400")
    assert not (await ask(store, ReplayEvent("shop", poison.id, NOW))).refused
    (again,) = (event for event in await take(store) if event.aggregateid == "pay_1")
    assert (again.id, again.attempts) == (poison.id, 0)
    assert [event.sequence for event in await published(store) if event.aggregateid == "pay_1"] == [1, 2]


async def test_an_event_written_behind_a_parked_one_waits(store: Store) -> None:
    await tell(store)
    (poison,) = await take(store)
    await ask(store, ParkEvent("shop", poison.id, 8, "400"))
    await tell(store)
    assert await take(store, NOW + 1e6) == []


@pytest.mark.parametrize("late", ["retry", "park"])
async def test_what_was_sent_is_neither_retried_nor_parked(store: Store, late: str) -> None:
    await tell(store)
    (event,) = await take(store)
    await sent(store, event)
    operation: Operation[Row] = (
        RetryEvent("shop", event.id, 1, NOW, "") if late == "retry" else ParkEvent("shop", event.id, 1, "")
    )
    assert (await ask(store, operation)).refused
    assert await lag(store) == LagRow(pending=0, parked=0, oldest=0.0)


async def test_an_event_that_is_sent_again_brings_none_of_those_behind_it(store: Store) -> None:
    await tell(store, count=3)
    first, *_ = await published(store)
    await ask(store, ReplayEvent("shop", first.id, NOW))
    assert [again.id for again in await published(store)] == [first.id]
    assert await take(store, NOW + 1e9) == []


async def test_an_event_that_was_sent_may_be_sent_again(store: Store) -> None:
    await tell(store)
    (event,) = await published(store)
    assert not (await ask(store, ReplayEvent("shop", event.id, NOW))).refused
    assert [again.id for again in await published(store)] == [event.id]


@pytest.mark.parametrize(("tenant", "known"), [("rival", True), ("shop", False)])
async def test_only_a_tenants_own_events_are_replayed(store: Store, tenant: str, known: bool) -> None:
    await tell(store)
    (event,) = await published(store)
    assert (await ask(store, ReplayEvent(tenant, event.id if known else "none", NOW))).refused


async def test_a_pending_event_is_not_replayed(store: Store) -> None:
    await tell(store)
    (event,) = await take(store)
    assert (await ask(store, ReplayEvent("shop", event.id, NOW))).refused


async def test_the_lag_counts_what_is_pending_and_what_is_parked(store: Store) -> None:
    assert await lag(store) == LagRow(pending=0, parked=0, oldest=0.0)
    await tell(store, "pay_1", 3, now=NOW + 1)
    await tell(store, "pay_2", now=NOW)
    assert (await lag(store)).pending == 4
    assert (await lag(store)).oldest == NOW
    (old,) = (event for event in await take(store, NOW + 9) if event.aggregateid == "pay_2")
    await ask(store, ParkEvent("shop", old.id, 1, ""))
    row = await lag(store)
    assert (row.pending, row.parked) == (3, 1)


async def test_the_listing_is_of_one_tenant_if_asked(store: Store) -> None:
    await tell(store)
    await tell(store, "pay_2", tenant="rival")
    assert [event.tenant for event in await listed(store, "pending", "rival")] == ["rival"]
    assert len(await listed(store, "pending")) == 2
    assert await listed(store, "parked") == []


async def test_old_events_are_deleted_only_when_they_were_sent(store: Store) -> None:
    for number in range(4):
        await tell(store, f"pay_{number}", now=NOW + number)
    events = await take(store, NOW + 9)
    await sent(store, *events[:3])
    assert await purge(store, NOW + 2) == 2
    assert await purge(store, NOW + 9) == 1
    assert (await lag(store)).pending == 1


async def test_no_more_are_deleted_at_once_than_was_asked(store: Store) -> None:
    for number in range(3):
        await tell(store, f"pay_{number}")
    await published(store)
    assert [await purge(store, NOW + 1, limit=2) for _ in range(2)] == [2, 1]


async def test_where_nobody_publishes_events_go_by_age_and_those_behind_them_are_due(store: Store) -> None:
    await tell(store, count=2)
    await tell(store, now=NOW + 60)
    assert await purge(store, NOW + 1, unsent=True) == 2
    assert [event.sequence for event in await take(store, NOW + 60)] == [3]


async def test_a_process_that_died_holds_no_event_back_and_hastens_none(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    path = str(tmp_path / "pangate.db")
    before = open_sqlite(path, clock=clock, telemetry=telemetry)
    await tell(before)
    taken = await take(before, lease=1e6)
    await before.close()
    after = open_sqlite(path, clock=clock, telemetry=telemetry)
    assert await take(after) == taken
    await ask(after, RetryEvent("shop", taken[0].id, 1, NOW + 10, "refused"))
    await after.close()
    again = open_sqlite(path, clock=clock, telemetry=telemetry)
    assert await take(again, NOW + 9) == []
    await again.close()
