"""Gateways that die, stand still or start again: what they left is found out about, and never too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from gateway.adapters.postgres import PostgresStore
from gateway.adapters.postgres_connections import Address
from gateway.adapters.postgres_nodes import TakenOver
from gateway.operations import KeyState, ResendCall
from gateway.ports import Unavailable
from tests.adapters.operations import NOW, ask, claim, finish, key_row
from tests.adapters.test_store_calls import call, doubt, listed, owners_due
from tests.conftest import HandClock, Recorder
from tests.postgres import connect, empty, open_store

Open = Callable[[str], Awaitable[PostgresStore]]


@pytest.fixture
async def gateway(postgres_address: Address, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Open]:
    opened: list[PostgresStore] = []

    async def start(node: str) -> PostgresStore:
        opened.append(await open_store(postgres_address, clock, telemetry, node=node))
        return opened[-1]

    yield start
    for store in opened:
        await store.close()
    await empty(postgres_address)


@pytest.fixture
async def admin(postgres_address: Address) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(postgres_address)
    yield connection
    await connection.close()


async def time_out(admin: asyncpg.Connection, node: str) -> None:
    """The lease of a node has run out."""
    await admin.execute("UPDATE nodes SET leased_until = clock_timestamp() - interval '1 ms' WHERE node = $1", node)


async def test_what_a_gateway_holds_is_not_in_doubt_when_another_starts(gateway: Open) -> None:
    ours = await gateway("a")
    await ours.commit([claim(), call()])
    other = await gateway("b")
    assert await other.take_over(expire=True) == TakenOver((), 0, 0)
    assert (await key_row(other)).state is KeyState.IN_FLIGHT
    assert not (await ask(ours, finish())).refused


async def test_what_a_dead_gateway_held_is_unknown_when_its_lease_has_run_out(
    gateway: Open, admin: asyncpg.Connection, clock: HandClock
) -> None:
    dead, other = await gateway("a"), await gateway("b")
    await dead.commit([claim(), call(), call("req-2", "manual")])
    await other.commit([claim(b"other"), call("req-3")])
    await time_out(admin, "a")
    assert await other.take_over(expire=True) == TakenOver((dead.node.holder,), 1, 2)
    assert (await key_row(other)).state is KeyState.UNKNOWN
    assert await owners_due(other, clock.now()) == ["req-1"]
    assert {found.call.owner for found in await listed(other)} == {"req-1", "req-2"}
    assert await other.take_over(expire=True) == TakenOver((), 0, 0)


async def test_nobody_is_taken_for_dead_by_who_may_not_say_so(gateway: Open, admin: asyncpg.Connection) -> None:
    late = await gateway("a")
    await late.commit([claim()])
    await time_out(admin, "a")
    other = await gateway("b")
    assert await other.take_over(expire=False) == TakenOver((), 0, 0)
    assert await late.renew()


async def test_a_gateway_that_starts_again_finds_out_at_once_about_what_it_left(gateway: Open) -> None:
    before = await gateway("a")
    await before.commit([claim(), call()])
    after = await gateway("a")
    assert (await key_row(after)).state is KeyState.UNKNOWN
    assert after.node.epoch > before.node.epoch


async def test_the_dead_are_forgotten_and_no_life_after_them_is_taken_for_theirs(
    gateway: Open, admin: asyncpg.Connection
) -> None:
    zombie, other = await gateway("a"), await gateway("b")
    await time_out(admin, "a")
    await other.take_over(expire=True)
    assert [row["node"] for row in await admin.fetch("SELECT node FROM nodes")] == ["b"]
    again = await gateway("a")
    assert again.node.epoch > zombie.node.epoch
    with pytest.raises(Unavailable):
        await zombie.commit([claim()])
    await again.commit([claim()])


async def test_a_gateway_that_was_taken_for_dead_learns_it_and_writes_nothing_more(
    gateway: Open, admin: asyncpg.Connection
) -> None:
    zombie, other = await gateway("a"), await gateway("b")
    await zombie.commit([claim()])
    assert await zombie.renew()
    await time_out(admin, "a")
    assert (await other.take_over(expire=True)).keys == 1
    assert not await zombie.renew()
    for unit in ([claim(b"another"), call()], [finish(response=b"late")]):
        with pytest.raises(Unavailable):
            await zombie.commit(unit)
    assert (await key_row(other)).state is KeyState.UNKNOWN
    assert await other.take_over(expire=True) == TakenOver((), 0, 0)


async def test_nobody_takes_himself_for_dead(gateway: Open, admin: asyncpg.Connection) -> None:
    late = await gateway("a")
    await late.commit([claim()])
    await time_out(admin, "a")
    assert await late.take_over(expire=True) == TakenOver((), 0, 0)
    assert await late.renew()


async def test_a_new_life_under_the_same_name_writes_again_and_the_old_one_does_not(gateway: Open) -> None:
    old = await gateway("o'connor")
    await old.commit([claim()])
    new = await gateway("o'connor")
    with pytest.raises(Unavailable):
        await old.commit([finish(response=b"late")])
    await new.commit([claim(b"another")])
    assert (await key_row(new)).state is KeyState.UNKNOWN


async def test_who_is_taken_for_dead_may_end_the_transaction_that_is_under_way(
    gateway: Open, admin: asyncpg.Connection, postgres_address: Address
) -> None:
    slow, other = await gateway("a"), await gateway("b")
    under_way = await connect(postgres_address)
    await under_way.execute(f"BEGIN; {slow.node.alive}")
    assert await slow.renew()
    await time_out(admin, "a")
    taking = asyncio.create_task(other.take_over(expire=True))
    assert await asyncio.wait({taking}, timeout=0.3) == (set(), {taking})
    await under_way.execute("COMMIT")
    assert (await taking).nodes == (slow.node.holder,)
    await under_way.close()


async def test_a_lease_is_renewed_by_the_databases_clock(gateway: Open, admin: asyncpg.Connection) -> None:
    store = await gateway("a")
    await admin.execute("UPDATE nodes SET leased_until = clock_timestamp() + interval '1 ms'")
    assert await store.renew()
    left = await admin.fetchval("SELECT leased_until - clock_timestamp() > interval '10 s' FROM nodes")
    assert left is True


async def test_a_gateway_that_closes_leaves_nothing_to_wait_for(gateway: Open) -> None:
    closing, other = await gateway("a"), await gateway("b")
    await closing.commit([claim()])
    await closing.close()
    assert (await other.take_over(expire=True)).keys == 1


async def test_a_call_that_is_sent_again_is_held_by_who_sends_it(gateway: Open, admin: asyncpg.Connection) -> None:
    dead, other, third = await gateway("a"), await gateway("b"), await gateway("c")
    await dead.commit([call(), doubt()])
    assert not (await ask(other, ResendCall("shop", "req-1", 1, NOW))).refused
    await time_out(admin, "a")
    assert (await third.take_over(expire=True)).calls == 0
    await time_out(admin, "b")
    assert (await third.take_over(expire=True)).calls == 1


async def test_a_key_that_is_claimed_anew_is_held_by_who_claims_it(gateway: Open, admin: asyncpg.Connection) -> None:
    first, second, third = await gateway("a"), await gateway("b"), await gateway("c")
    await first.commit([claim()])
    await first.commit([finish(keep=1)])
    assert not (await ask(second, claim(owner="req-2", now=NOW + 2))).refused
    await time_out(admin, "a")
    assert (await third.take_over(expire=True)).keys == 0
    await time_out(admin, "b")
    assert (await third.take_over(expire=True)).keys == 1
