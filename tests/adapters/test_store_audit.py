"""The audit chain in every store: linked in the order of its commits, cut by retention alone, found by token."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from gateway.adapters.postgres_connections import Address
from gateway.adapters.sqlite import open_sqlite
from gateway.operations import FindReveals, ListChains, PurgeAudit, ReadChain, RecordAudit
from gateway.ports import Store, Unavailable
from gateway.pure.audit import (
    End,
    Ends,
    Entry,
    Linked,
    Place,
    first_wrong,
    paired,
    sealed_end,
    token_digest,
    wrong_ends,
)
from tests.adapters.operations import AUDIT_KEY, NOW, ask, claim, put_token, record, reveal, start, writer_held
from tests.conftest import HandClock, Recorder
from tests.postgres import empty, open_store

PLACE = Place("shop", "gateway")


async def chains(store: Store, *, unmarked: bool = True) -> list[Ends]:
    asked = ListChains(None, unmarked)
    return list((await store.commit([asked]))[asked].chains)


async def entries(store: Store, place: Place = PLACE, after: int = 0, limit: int = 1000) -> list[Linked]:
    asked = ReadChain(*place, after, limit)
    return list((await store.commit([asked]))[asked].entries)


async def complaints(store: Store) -> list[str]:
    """Of all chains, from base to head."""
    found = []
    for ends in await chains(store):
        links = await entries(store, ends.place, ends.base.sequence)
        found += [*wrong_ends(ends, AUDIT_KEY)]
        found += filter(None, [first_wrong(ends.place, ends.base, links, AUDIT_KEY)])
        found += ["cut"] if (links[-1].end if links else ends.base) != ends.head else []
    return found


async def test_what_units_record_is_one_chain_in_the_order_of_their_commits(store: Store) -> None:
    for n in range(3):
        await store.commit([record(exchange=f"req-{n}")])
    async with writer_held(store) as held:
        together = start(store, *([record(exchange=f"req-{n}", now=NOW + n)] for n in range(3, 60)))
    await asyncio.gather(held, *together)
    links = await entries(store)
    assert [link.sequence for link in links] == list(range(1, 61))
    assert [link.entry.exchange for link in links[:3]] == ["req-0", "req-1", "req-2"]
    assert {link.entry.exchange for link in links} == {f"req-{n}" for n in range(60)}
    assert await complaints(store) == []
    assert await entries(store, after=57, limit=2) == links[57:59]


async def test_a_unit_that_comes_to_nothing_records_nothing(store: Store) -> None:
    await store.commit([claim()])
    for unit in ([record(), claim(owner="req-2")], [record(), reveal("tok_none")]):
        assert (await store.commit(unit)).refused == 1
    assert await entries(store) == []
    assert (await store.commit([record(), claim(b"other")])).refused is None
    assert len(await entries(store)) == 1


async def test_each_tenant_has_a_chain_of_its_own(store: Store) -> None:
    await store.commit([record(tenant="shop")])
    await store.commit([record(tenant="rival")])
    assert [(ends.place.tenant, ends.head.sequence) for ends in await chains(store)] == [("rival", 1), ("shop", 1)]
    assert await complaints(store) == []


async def test_a_clock_that_was_put_back_is_in_the_chain(store: Store) -> None:
    await store.commit([record()])
    await store.commit([record(now=NOW - 30)])
    assert [link.skew for link in await entries(store)] == [0, 30_000_000]


def seal(place: Place, end: End) -> bytes:
    return sealed_end("base", place, end, AUDIT_KEY)


async def test_retention_cuts_the_oldest_and_leaves_a_chain_that_is_whole(store: Store) -> None:
    for n in range(7):
        await store.commit([record(now=NOW + n)])
    for limit, count in ((2, 2), (10, 2), (10, 0)):
        purge = PurgeAudit(NOW + 4, limit, seal)
        assert (await store.commit([purge]))[purge].count == count
    assert [link.sequence for link in await entries(store)] == [5, 6, 7]
    assert await complaints(store) == []
    everything = PurgeAudit(NOW + 99, 10, seal)
    await store.commit([everything])
    assert await complaints(store) == []
    await store.commit([record(now=NOW + 100)])
    assert [link.sequence for link in await entries(store)] == [8]
    assert await complaints(store) == []


async def test_every_reveal_of_a_token_is_found_with_what_became_of_it(store: Store) -> None:
    await store.commit([put_token("tok_1")])
    digests = [token_digest(token, AUDIT_KEY) for token in ("tok_1", "tok_2")]
    for n in range(3):
        intents = tuple(Entry("reveal", n, f"req-{n}", "payments", token=digest) for digest in digests)
        await store.commit([RecordAudit("shop", AUDIT_KEY, intents)])
    await store.commit([record(exchange="req-0", outcome="answered")])
    await store.commit([record(exchange="req-2", outcome="unknown")])
    await store.commit([record(exchange="req-9", outcome="answered")])
    asked = FindReveals("shop", "tok_1", digests[0])
    row = (await store.commit([asked]))[asked]
    assert [(found.meant.exchange, found.outcome) for found in paired(row.entries)] == [
        ("req-0", "answered"),
        ("req-1", ""),
        ("req-2", "unknown"),
    ]
    assert row.found == ("pan", "6t4", NOW, None)
    stranger = FindReveals("rival", "tok_1", digests[0])
    row = (await store.commit([stranger]))[stranger]
    assert (row.entries, row.found) == ((), None)


async def test_two_gateways_of_one_name_write_one_chain(
    postgres_address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    first, second = [await open_store(postgres_address, clock, telemetry, node=node) for node in ("one", "two")]
    await first.commit([record()])
    await asyncio.gather(*((first, second)[n % 2].commit([record(exchange=f"req-{n}")]) for n in range(40)))
    assert len(await entries(first)) == 41
    assert await complaints(first) == []
    for store in (first, second):
        await store.close()
    await empty(postgres_address)


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ("DELETE FROM audit WHERE sequence = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE sequence = 3", "cut"),
        ("DELETE FROM audit", "cut"),
        ("UPDATE audit SET principal = 'nobody' WHERE sequence = 3", "entry 3 was changed"),
        ("UPDATE audit SET tenant = 'rival'", "entry 1 was changed"),
        ("DELETE FROM audit_ends", "the head of the chain was changed"),
        (
            """DELETE FROM audit WHERE sequence = 3; UPDATE audit_ends SET sequence = 2,
            mac = (SELECT mac FROM audit WHERE sequence = 2)""",
            "the head of the chain was changed",
        ),
        (
            """INSERT INTO audit SELECT tenant, 'copy', sequence, at, skew, event, exchange, principal, origin, route,
            destination, purpose, token, outcome, mac FROM audit""",
            "entry 1 was changed",
        ),
    ],
)
async def test_what_is_done_to_the_file_is_seen(
    tmp_path: Path, clock: HandClock, telemetry: Recorder, done: str, told: str
) -> None:
    path = tmp_path / "pangate.db"
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    for n in range(3):
        await store.commit([record(exchange=f"req-{n}")])
    assert await complaints(store) == []
    await store.close()
    db = apsw.Connection(str(path))
    db.execute(done)
    db.close()
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    found = await complaints(store)
    await store.close()
    assert any(told in complaint for complaint in found), found


async def test_a_reveal_from_before_there_was_a_chain_is_found(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    path = tmp_path / "pangate.db"
    await open_sqlite(str(path), clock=clock, telemetry=telemetry).close()
    db = apsw.Connection(str(path))
    db.execute("INSERT INTO reveals VALUES ('shop', 'req-0', 0, 'tok_1', 0, 'who', 'out', 'psp', 5, 'answered', 6)")
    db.close()
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    asked = FindReveals("shop", "tok_1", b"digest")
    (found,) = paired((await store.commit([asked]))[asked].entries)
    assert (found.meant.principal, found.meant.destination, found.outcome) == ("who", "psp", "answered")
    await store.close()


async def test_nothing_is_committed_that_cannot_be_recorded(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    path = tmp_path / "pangate.db"
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    store._db.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no room'); END")
    with pytest.raises(Unavailable):
        await store.commit([put_token("tok_1"), record()])
    store._db.execute("DROP TRIGGER full")
    assert (await ask(store, reveal("tok_1"))).refused
    await store.commit([replace(record())])
    assert len(await entries(store)) == 1
    await store.close()
