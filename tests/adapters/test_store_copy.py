"""A store of SQLite, moved to PostgreSQL: everything is there, and nothing that was there is overwritten."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import asyncpg
import pytest

from gateway.adapters import store_copy
from gateway.adapters.postgres_connections import Address
from gateway.adapters.sqlite import open_sqlite
from gateway.adapters.store_copy import copy_store
from gateway.operations import AddKeys, AdmitRow, AskRewrap, ForwardedDelivery, KeyState, PurgeAudit
from gateway.pure.key_hierarchy import KeyRecord
from gateway.pure.lifecycle import Told
from tests.adapters.operations import NOW, ask, claim, delivery, due_ids, finish, key_row, put_token, record
from tests.adapters.payments import Till, published
from tests.adapters.test_store_calls import call, doubt, listed
from tests.conftest import HandClock, Recorder
from tests.postgres import connect, empty, open_store


@pytest.fixture
async def file(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> Path:
    """A store with something of everything in it."""
    path = tmp_path / "pangate.db"
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    await store.commit([claim(), put_token("tok_1", fingerprint=b"f")])
    await store.commit([finish(response=b"201", keep=1e6)])
    await store.commit([claim(b"other", tenant="rival")])
    await store.commit([put_token("tok_1", "tok_2"), record()])
    await store.commit([record(now=NOW + 1)])
    await store.commit([PurgeAudit(NOW + 1, 10, lambda *_: b"seal")])
    await store.commit([delivery("d1"), delivery("d2", key="evt_2"), ForwardedDelivery("shop", "d2", NOW)])
    till = Till(store)
    await till.captured(100)
    await till.admit("refund", 30, owner="req-7", payment="pay_1")
    for number in range(3):
        await till.hear(Told("disputed_total", 10 * number), alias="pi_later", source=None, now=NOW)
    await till.hear(Told("disputed_total", 5), alias="pi_later", source="evt_9", now=NOW)
    await store.commit([call("req-7"), doubt("req-7")])
    await store.commit([AddKeys("shop", (KeyRecord("shop", "tenant", 1, 0, b"wrapped", NOW),))])
    await store.commit([AskRewrap("shop", 100, NOW)])
    await store.close()
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("INSERT INTO reveals VALUES ('shop', 'req-0', 0, 'tok_1', 0, 'who', 'out', 'psp', 1, NULL, NULL)")
    return path


@pytest.fixture
async def target(postgres_address: Address) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(postgres_address)
    yield connection
    await connection.close()
    await empty(postgres_address)


async def copied(file: Path, target: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    db = apsw.Connection(str(file))
    try:
        return {found.table: (found.rows, found.written) async for found in copy_store(db, target)}
    finally:
        db.close()


async def test_a_store_goes_on_where_it_was_moved_to(
    file: Path, target: asyncpg.Connection, postgres_address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    counts = await copied(file, target)
    assert all(rows == written > 0 for rows, written in counts.values()), counts
    store = await open_store(postgres_address, clock, telemetry)
    row = await key_row(store)
    assert (row.state, row.response) == (KeyState.DONE, b"201")
    assert (await ask(store, put_token("tok_9", fingerprint=b"f"))).token == "tok_1"  # type: ignore[attr-defined]
    assert await due_ids(store) == ["d1"]
    till = Till(store)
    assert (await till.standing()).remaining["refund"] == 70
    assert [found.call.owner for found in await listed(store)] == ["req-7"]
    assert (await till.end(owner="req-7")).refused is False
    admitted = await till.admit("sale", 50, owner="req-8", new_id="pay_8")
    assert isinstance(admitted, AdmitRow)
    await till.end(owner="req-8", alias="pi_later")
    assert (await till.record("pay_8")).amounts.disputed == 5
    events = [event for event in await published(store) if event.aggregateid == "pay_1"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    await store.close()


async def test_every_table_of_the_file_is_copied(file: Path, target: asyncpg.Connection) -> None:
    with contextlib.closing(apsw.Connection(str(file))) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert (await copied(file, target)).keys() == {name for name in tables if not name.startswith("sqlite_")}


async def test_a_copy_that_was_broken_off_goes_on_and_one_that_is_whole_is_looked_over(
    file: Path, target: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_copy, "BATCH", 1)
    whole = await copied(file, target)
    await target.execute("DELETE FROM outbox; DELETE FROM facts WHERE source IS NOT NULL")
    again = await copied(file, target)
    assert {table: rows for table, (rows, _) in again.items()} == {table: rows for table, (rows, _) in whole.items()}
    assert {table for table, (_, written) in again.items() if written} == {"outbox", "facts"}
    assert {written for _, written in (await copied(file, target)).values()} == {0}


async def test_a_row_that_is_another_is_told_and_left(file: Path, target: asyncpg.Connection) -> None:
    await copied(file, target)
    await target.execute("UPDATE payments SET captured = 99")
    with pytest.raises(ValueError, match="payments: another row is there already, or none: tenant 'shop', id 'pay_1'"):
        await copied(file, target)
    assert await target.fetchval("SELECT captured FROM payments") == 99


async def test_a_database_in_use_is_left_alone(
    file: Path, target: asyncpg.Connection, postgres_address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    store = await open_store(postgres_address, clock, telemetry)
    with pytest.raises(ValueError, match="a gateway uses the database"):
        await copied(file, target)
    await store.close()
    assert (await copied(file, target))["tokens"] == (2, 2)
