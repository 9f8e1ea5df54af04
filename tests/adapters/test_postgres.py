"""What holds when several gateways write to one PostgreSQL: all that a single writer promises."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.adapters import postgres_connections
from gateway.adapters.postgres import PostgresStore
from gateway.adapters.postgres_connections import Address
from gateway.operations import (
    AdmitRow,
    DeliveryVerdict,
    DueEvents,
    KeyRow,
    OutboxEvent,
    SentEvents,
    TokenRow,
)
from gateway.ports import CommitInDoubt, Unavailable
from gateway.pure.lifecycle import Told
from tests.adapters.operations import NOW, ask, claim, delivery, put_token, verdict
from tests.adapters.payments import Till, published
from tests.conftest import HandClock, Recorder
from tests.postgres import connect, empty, open_store

RACES = 20


@pytest.fixture
async def stores(
    postgres_address: Address, clock: HandClock, telemetry: Recorder
) -> AsyncIterator[list[PostgresStore]]:
    """Three gateways."""
    stores = [await open_store(postgres_address, clock, telemetry) for _ in range(3)]
    yield stores
    for store in stores:
        await store.close()
    await empty(postgres_address)


async def test_of_a_hundred_who_claim_one_key_through_three_gateways_one_gets_it(stores: list[PostgresStore]) -> None:
    turns = zip(range(100), itertools.cycle(stores), strict=False)
    rows = await asyncio.gather(*(ask(store, claim(owner=f"req-{n}")) for n, store in turns))
    states = [row.state.value for row in rows if isinstance(row, KeyRow)]
    assert (states.count("new"), states.count("in_flight")) == (1, 99)


async def test_of_two_hundred_refunds_through_three_gateways_no_more_are_admitted_than_was_captured(
    stores: list[PostgresStore],
) -> None:
    await Till(stores[0]).captured(100)
    turns = zip(range(200), itertools.cycle(stores), strict=False)
    rows = await asyncio.gather(
        *(Till(store).admit("refund", 7, owner=f"req-{n:03}", payment="pay_1") for n, store in turns)
    )
    assert [row.refused for row in rows].count(False) == 100 // 7
    assert (await Till(stores[1]).standing()).remaining["refund"] == 100 % 7
    assert isinstance(rows[0], AdmitRow)


async def test_one_card_put_through_three_gateways_has_one_token(stores: list[PostgresStore]) -> None:
    for race in range(RACES):
        asked = [put_token(f"tok_{race}_{n}", fingerprint=b"%d" % race) for n in range(3)]
        rows = await asyncio.gather(*(ask(store, put) for store, put in zip(stores, asked, strict=True)))
        tokens = [row for row in rows if isinstance(row, TokenRow)]
        assert len({row.token for row in tokens}) == 1
        assert [row.new for row in tokens].count(True) == 1


async def test_a_delivery_that_comes_to_three_gateways_is_accepted_by_one(stores: list[PostgresStore]) -> None:
    for race in range(RACES):
        same = [verdict(store, delivery(f"d{race}.{n}", key=f"evt_{race}")) for n, store in enumerate(stores)]
        found = await asyncio.gather(*same)
        assert [verdict.value for verdict in sorted(found, key=lambda verdict: verdict.value)] == [
            "accepted",
            "duplicate",
            "duplicate",
        ]


async def test_of_other_bodies_under_one_key_one_is_accepted(stores: list[PostgresStore]) -> None:
    for race in range(RACES):
        asked = [delivery(f"d{race}.{n}", b"%d" % n, key=f"evt_{race}") for n in range(3)]
        found = await asyncio.gather(*(verdict(store, put) for store, put in zip(stores, asked, strict=True)))
        assert sorted(found, key=lambda verdict: verdict.value) == [
            DeliveryVerdict.ACCEPTED,
            DeliveryVerdict.CONFLICT,
            DeliveryVerdict.CONFLICT,
        ]


async def test_a_fact_that_comes_while_its_payment_is_bound_is_not_lost(stores: list[PostgresStore]) -> None:
    """One gateway parks what it hears of a name that nobody knows, while another binds the name."""
    answering, hearing, reading = (Till(store) for store in stores)
    for race in range(RACES):
        owner, name, alias = f"req-{race}", f"pay_{race}", f"pi_{race}"
        await answering.admit("sale", 100, owner=owner, new_id=name)
        await asyncio.gather(
            answering.end(owner=owner, alias=alias), hearing.hear(Told("chargeback", 40), alias=alias, source="evt_1")
        )
        assert (await reading.record(name)).amounts.disputed == 40


async def test_a_name_that_three_gateways_hear_of_at_once_is_one_payment(stores: list[PostgresStore]) -> None:
    for race in range(RACES):
        alias = f"pi_{race}"
        heard = [
            Till(store).hear(
                Told("external_authorize", 10), alias=alias, on_missing="observe", new_id=f"pay_{race}_{n}"
            )
            for n, store in enumerate(stores)
        ]
        rows = await asyncio.gather(*heard)
        assert len({row.payment for row in rows}) == 1
        assert (await Till(stores[0]).record(rows[0].payment)).amounts.authorised == 30


async def test_an_answer_is_recorded_by_one(stores: list[PostgresStore]) -> None:
    till = Till(stores[0])
    for race in range(RACES):
        owner, name = f"req-{race}", f"pay_{race}"
        await till.admit("sale", 100, owner=owner, new_id=name)
        rows = await asyncio.gather(*(Till(store).end(owner=owner) for store in stores))
        assert [row.refused for row in rows].count(False) == 1
        assert (await till.record(name)).amounts.captured == 100


async def test_events_go_out_in_turn_while_two_relays_send_and_three_gateways_write(
    stores: list[PostgresStore],
) -> None:
    payments, each = [f"pay_{n}" for n in range(8)], 12
    sent: list[OutboxEvent] = []
    done = asyncio.Event()

    async def relay(store: PostgresStore) -> None:
        while True:
            last = done.is_set()
            take = DueEvents(NOW + 1e6, 4, lease=1e9)
            found = (await store.commit([take]))[take].events
            sent.extend(found)
            await ask(store, SentEvents(tuple((event.tenant, event.id) for event in found), NOW))
            if last and not found:
                return

    async def write(store: PostgresStore, number: int) -> None:
        for n in range(each):
            for name in payments:
                news = Told("external_authorize", 1)
                source = f"{number}.{n}"
                await Till(store).hear(news, alias=name, new_id=name, on_missing="observe", source=source)

    relays = [asyncio.create_task(relay(store)) for store in stores[:2]]
    await asyncio.gather(*(write(store, number) for number, store in enumerate(stores)))
    done.set()
    await asyncio.gather(*relays)
    sent += await published(stores[2])
    for name in payments:
        assert [event.sequence for event in sent if event.aggregateid == name] == list(range(1, 3 * each + 1))


async def test_a_unit_is_of_one_tenant(stores: list[PostgresStore]) -> None:
    with pytest.raises(ValueError, match="one tenant"):
        await stores[0].commit([claim(), claim(tenant="rival")])


async def test_tenants_do_not_wait_for_one_another(stores: list[PostgresStore]) -> None:
    ours, theirs = stores[:2]
    connection = await theirs._connections.connect()
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO keys VALUES ('shop', 'key', 'done', '', '', NULL, 0)")
    held = asyncio.ensure_future(ask(ours, claim()))
    assert not (await ask(ours, claim(tenant="rival"))).refused
    assert not held.done()
    await connection.execute("ROLLBACK")
    await connection.close()
    assert not (await held).refused


# --- what goes wrong on the way --------------------------------------------------------------------------------------


async def test_a_transaction_that_waits_in_a_circle_is_begun_again(
    stores: list[PostgresStore], postgres_address: Address, telemetry: Recorder
) -> None:
    """Somebody holds the second key and wants the first; the store holds the first and wants the second."""
    other = await stores[1]._connections.connect()
    watch = await connect(postgres_address)
    await other.execute("BEGIN")
    await other.execute("SET LOCAL deadlock_timeout = '1h'")
    await other.execute("INSERT INTO keys VALUES ('shop', 'key 2', 'done', '', '', NULL, 0)")
    held = asyncio.ensure_future(stores[0].commit([claim(b"key 1"), claim(b"key 2")]))
    while not await watch.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    await other.execute("INSERT INTO keys VALUES ('shop', 'key 1', 'done', '', '', NULL, 0)")
    await other.execute("ROLLBACK")
    for connection in (other, watch):
        await connection.close()
    assert (await held).refused is None
    assert {line["event"] for line in telemetry.lines} == {"store_began_again"}


async def test_connections_that_died_while_they_were_idle_cost_nobody_an_error(
    stores: list[PostgresStore], postgres_address: Address
) -> None:
    store = stores[0]
    await asyncio.gather(*(ask(store, claim(tenant=f"t{n}")) for n in range(8)))
    admin = await connect(postgres_address)
    while await admin.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pangate'"
    ):
        pass
    await admin.close()
    rows = await asyncio.gather(*(ask(store, claim(b"next", tenant=f"t{n}")) for n in range(8)))
    assert [row.refused for row in rows] == [False] * 8


async def test_no_more_connections_are_made_than_are_allowed(
    postgres_address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    store = await open_store(postgres_address, clock, telemetry, most=2)
    admin = await connect(postgres_address)
    await asyncio.gather(*(ask(store, claim(tenant=f"t{n}")) for n in range(50)))
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pangate'"
    assert await admin.fetchval(query) <= 2
    await store.close()
    await admin.close()
    await empty(postgres_address)


async def test_a_server_that_says_nothing_is_given_up_and_asked_anew(
    stores: list[PostgresStore], postgres_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "STATEMENT_SECONDS", -0.8)
    store = stores[0]
    await ask(store, claim())
    pid = store._connections._idle[0].get_server_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="store"):
            await ask(store, claim(b"2"))
        assert not (await ask(store, claim(b"3"))).refused
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_value_that_cannot_be_sent_harms_no_other_unit(stores: list[PostgresStore]) -> None:
    units = [[claim(b"%d" % n)] for n in range(5)]
    units[2] = [replace(claim(b"2"), owner="\ud800")]
    found = await asyncio.gather(*(stores[0].commit(unit) for unit in units), return_exceptions=True)
    assert [isinstance(answer, Unavailable) for answer in found] == [False, False, True, False, False]


async def test_a_connection_lost_while_it_commits_promises_nothing(
    stores: list[PostgresStore], postgres_address: Address
) -> None:
    """Nobody knows what became of the transaction, so it is not begun again, and nobody is told that it stands."""
    admin = await connect(postgres_address)
    await admin.execute(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(9); RETURN NULL; END $$"
    )
    await admin.execute(
        "CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON tokens DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION hang()"
    )
    try:
        with pytest.raises(CommitInDoubt, match="store"):
            await ask(stores[0], put_token("tok_1"))
    finally:
        await admin.execute("DROP TRIGGER hang ON tokens; DROP FUNCTION hang()")
        await admin.close()
    assert (await ask(stores[0], put_token("tok_1"))).new  # type: ignore[attr-defined]
