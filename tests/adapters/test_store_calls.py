"""What every store promises of calls: none is lost, and none is sent twice by two who resolve it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.sqlite import open_sqlite
from gateway.operations import (
    DoubtCall,
    DoubtLostCalls,
    DueCalls,
    DueCallsRow,
    EndCall,
    InDoubt,
    ListCalls,
    Operation,
    RecordCall,
    ResendCall,
    Row,
    UnknownCall,
)
from gateway.ports import Store
from tests.adapters.operations import NOW, ask, put_token
from tests.adapters.payments import Till
from tests.conftest import HandClock, Recorder


def call(owner: str = "req-1", in_doubt: InDoubt = "replay", tenant: str = "shop", sent_at: float = NOW) -> RecordCall:
    return RecordCall(tenant, owner, "create", "psp", in_doubt, b"sealed", sent_at, b"scope")


def doubt(owner: str = "req-1", next_at: float | None = NOW + 5, now: float = NOW) -> DoubtCall:
    return DoubtCall("shop", owner, now, next_at)


async def due(store: Store, now: float = NOW + 5, limit: int = 10, lease: float = 0.0) -> DueCallsRow:
    operation = DueCalls(now, limit, lease)
    return (await store.commit([operation]))[operation]


async def owners_due(store: Store, now: float = NOW + 5) -> list[str]:
    return [found.owner for found in (await due(store, now)).due]


async def listed(store: Store, tenant: str | None = None, owner: str | None = None) -> tuple[UnknownCall, ...]:
    operation = ListCalls(tenant, 10, owner)
    return (await store.commit([operation]))[operation].calls


async def test_a_call_in_flight_is_nobody_elses(store: Store) -> None:
    await ask(store, call())
    assert await due(store, NOW + 1e6) == DueCallsRow(due=(), unknown=0, oldest=0.0)
    assert await listed(store) == ()


async def test_a_call_in_doubt_is_due_from_its_time_on_and_as_it_was_recorded(store: Store) -> None:
    await ask(store, call())
    await ask(store, doubt(now=NOW + 2))
    early = await due(store, NOW + 4)
    assert (early.due, early.unknown, early.oldest) == ((), 1, NOW + 2)
    (found,) = (await due(store)).due
    assert (found.owner, found.route, found.upstream, found.in_doubt) == ("req-1", "create", "psp", "replay")
    assert (found.sealed, found.key_scope) == (b"sealed", b"scope")
    assert (found.attempt, found.sent_at, found.doubted_at, found.next_at) == (1, NOW, NOW + 2, NOW + 5)


async def test_a_call_is_sealed_with_the_rows_of_its_unit(store: Store) -> None:
    token = put_token("tok_1", fingerprint=b"f")
    sealed = RecordCall("shop", "req-1", "create", "psp", "replay", lambda rows: rows[token].token.encode(), NOW, None)
    await store.commit([token, sealed])
    await ask(store, doubt())
    assert (await due(store)).due[0].sealed == b"tok_1"


async def test_those_that_waited_longest_come_first(store: Store) -> None:
    for owner, next_at in (("req-1", NOW + 3), ("req-2", NOW + 1), ("req-3", NOW + 2)):
        await store.commit([call(owner), doubt(owner, next_at)])
    assert [found.owner for found in (await due(store, limit=2)).due] == ["req-2", "req-3"]


async def test_a_call_is_handed_out_once_while_its_lease_lasts_and_a_new_doubt_ends_the_lease(store: Store) -> None:
    await store.commit([call(), doubt()])
    assert [found.owner for found in (await due(store, lease=30)).due] == ["req-1"]
    leased = await due(store, NOW + 34)
    assert (leased.due, leased.unknown) == ((), 1)
    assert [found.owner for found in (await due(store, NOW + 35, lease=30)).due] == ["req-1"]
    await ask(store, doubt(next_at=NOW + 40))
    assert await owners_due(store, NOW + 40) == ["req-1"]


async def test_a_call_that_is_sent_again_and_lost_again_is_due_at_once(store: Store) -> None:
    await store.commit([call(), doubt()])
    await due(store, lease=30)
    await ask(store, ResendCall("shop", "req-1", 1, NOW + 6))
    await ask(store, DoubtLostCalls(before=NOW + 7, now=NOW + 8))
    assert await owners_due(store, NOW + 8) == ["req-1"]


async def test_a_call_that_has_ended_is_forgotten(store: Store) -> None:
    await store.commit([call(), doubt()])
    assert not (await ask(store, EndCall("shop", "req-1", NOW))).refused
    assert await owners_due(store) == []


@pytest.mark.parametrize(
    "late",
    [EndCall("shop", "req-1", NOW), doubt(), ResendCall("shop", "req-1", 1, NOW)],
    ids=["end", "doubt", "resend"],
)
async def test_what_comes_after_the_end_is_refused(store: Store, late: Operation[Row]) -> None:
    await ask(store, call())
    await ask(store, EndCall("shop", "req-1", NOW))
    assert (await ask(store, late)).refused


async def test_what_is_known_of_one_send_does_not_end_a_call_that_was_sent_again(store: Store) -> None:
    await store.commit([call(), doubt()])
    await ask(store, ResendCall("shop", "req-1", 1, NOW + 6))
    assert (await ask(store, EndCall("shop", "req-1", NOW, attempts=1))).refused
    assert not (await ask(store, EndCall("shop", "req-1", NOW, attempts=2))).refused


async def test_another_tenant_ends_no_call(store: Store) -> None:
    await ask(store, call())
    assert (await ask(store, EndCall("rival", "req-1", NOW))).refused


async def test_a_call_is_sent_again_by_one_alone(store: Store) -> None:
    await store.commit([call(), doubt()])
    again = ResendCall("shop", "req-1", 1, NOW + 6)
    assert not (await ask(store, again)).refused
    assert (await ask(store, again)).refused
    assert await owners_due(store, NOW + 1e6) == []
    await ask(store, doubt(next_at=NOW + 20, now=NOW + 7))
    assert (await ask(store, again)).refused
    (found,) = (await due(store, NOW + 20)).due
    assert (found.attempt, found.sent_at, found.doubted_at) == (2, NOW + 6, NOW)


async def test_a_call_in_flight_is_not_sent_again(store: Store) -> None:
    await ask(store, call())
    assert (await ask(store, ResendCall("shop", "req-1", 1, NOW))).refused


async def test_what_is_for_a_person_is_listed_and_never_due(store: Store) -> None:
    await store.commit([call(), doubt(next_at=None)])
    row = await due(store, NOW + 1e6)
    assert (row.due, row.unknown) == ((), 1)
    assert [found.call.next_at for found in await listed(store)] == [None]


async def test_the_listing_tells_the_payment_and_the_amount_that_are_held(store: Store) -> None:
    await Till(store).admit("authorize", 100, owner="req-1")
    await store.commit([call(), doubt(), call("req-2"), doubt("req-2", now=NOW + 1)])
    held, bare = await listed(store)
    assert (held.call.owner, held.payment, held.command, held.amount) == ("req-1", "pay_1", "authorize", 100)
    assert (bare.call.owner, bare.payment, bare.command, bare.amount) == ("req-2", None, None, None)


async def test_the_listing_is_of_one_tenant_or_of_one_call_if_asked(store: Store) -> None:
    await store.commit([call(), doubt(), call("req-2"), doubt("req-2")])
    await store.commit([call("req-3", tenant="rival"), DoubtCall("rival", "req-3", NOW, None)])
    assert [found.call.owner for found in await listed(store, "rival")] == ["req-3"]
    assert [found.call.owner for found in await listed(store, "shop", "req-2")] == ["req-2"]
    assert len(await listed(store)) == 3


# --- after a crash ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def reopened(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Store]:
    """A store whose last process died with three calls in flight, the third at its second attempt."""
    path = str(tmp_path / "pangate.db")
    before = open_sqlite(path, clock=clock, telemetry=telemetry)
    await before.commit([call(), call("req-2", "manual"), call("req-3"), doubt("req-3", now=clock.now() - 60)])
    await before.commit([ResendCall("shop", "req-3", 1, NOW)])
    await before.close()
    after = open_sqlite(path, clock=clock, telemetry=telemetry)
    yield after
    await after.close()


async def test_calls_of_a_process_that_died_are_in_doubt(reopened: Store, clock: HandClock) -> None:
    row = await due(reopened, clock.now())
    assert [(found.owner, found.attempt) for found in row.due] == [("req-3", 2), ("req-1", 1)]
    assert (row.unknown, row.oldest) == (3, clock.now() - 60)


async def test_those_for_a_person_stay_for_a_person(reopened: Store) -> None:
    assert "req-2" not in await owners_due(reopened, NOW + 1e9)


async def test_calls_in_flight_that_nobody_can_be_waiting_for_are_in_doubt(store: Store) -> None:
    await store.commit([call("old", sent_at=NOW - 2), call("new", sent_at=NOW), call("manual", "manual", sent_at=0)])
    await ask(store, DoubtLostCalls(before=NOW - 1, now=NOW))
    assert await owners_due(store, NOW) == ["old"]
    assert {found.call.owner: found.call.next_at for found in await listed(store)} == {"old": NOW, "manual": None}
