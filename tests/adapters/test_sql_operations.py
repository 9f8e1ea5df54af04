"""What holds for every kind of operation on SQLite: it is known, its promises to the unit are true, old files open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import gateway.operations
from gateway.adapters.migrations import migrations
from gateway.adapters.sql_operations import HANDLERS, WRITES_LAST
from gateway.adapters.sqlite import open_sqlite
from gateway.adapters.sqlite_steps import run_unit
from gateway.operations import (
    DoubtCall,
    DoubtKey,
    EndCall,
    EventLag,
    KeyState,
    KnowTokens,
    Operation,
    RecordCall,
    ReleaseKey,
    ResendCall,
    Row,
    Rows,
)
from tests.adapters.operations import NOW, ask, claim, finish, key_row, put_token, record
from tests.adapters.payments import Till
from tests.conftest import HandClock, Recorder

CALL = RecordCall("shop", "req-1", "create", "psp", "replay", b"sealed", NOW, None)
LONE: tuple[tuple[list[Operation[Row]], Operation[Row]], ...] = (
    ([put_token("tok_1")], put_token("tok_1", "tok_2", fingerprint=b"f")),
    ([put_token("tok_1")], KnowTokens("shop", "pan", ("tok_1",))),
    ([], record()),
    ([], claim()),
    ([claim()], finish()),
    ([claim()], ReleaseKey("shop", b"key", "req-1")),
    ([claim()], DoubtKey("shop", b"key", "req-1", NOW)),
    ([], CALL),
    ([CALL], EndCall("shop", "req-1", NOW)),
    ([CALL], DoubtCall("shop", "req-1", NOW, None)),
    ([CALL, DoubtCall("shop", "req-1", NOW, None)], ResendCall("shop", "req-1", 1, NOW)),
)
"""Of each kind that needs no savepoint: what goes before, and one that changes something."""


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    db = apsw.Connection(":memory:")
    for migration in migrations("sqlite"):
        db.execute(migration.script)
    yield db
    db.close()


def kinds() -> set[type[Operation[Row]]]:
    named = (getattr(gateway.operations, name) for name in gateway.operations.__all__)
    return {kind for kind in named if isinstance(kind, type) and issubclass(kind, Operation)} - {Operation}


def test_every_kind_has_its_handler() -> None:
    assert HANDLERS.keys() == kinds()


def test_every_kind_without_a_savepoint_is_tried_here() -> None:
    assert {type(operation) for _, operation in LONE} == WRITES_LAST


@pytest.mark.parametrize(("before", "operation"), LONE, ids=[type(operation).__name__ for _, operation in LONE])
def test_a_kind_without_a_savepoint_changes_rows_with_one_statement_at_most(
    db: apsw.Connection, before: list[Operation[Row]], operation: Operation[Row]
) -> None:
    run_unit(db, tuple(before), Rows(before))
    changes: list[int] = [db.total_changes()]
    db.trace_v2(apsw.SQLITE_TRACE_PROFILE, lambda _: changes.append(db.total_changes()))
    rows = Rows([operation])
    run_unit(db, (operation,), rows)
    assert rows.refused is None
    assert sum(before != after for before, after in itertools.pairwise(changes)) <= 1


@pytest.mark.parametrize("version", range(1, len(migrations("sqlite"))))
async def test_a_file_of_an_older_version_opens_with_what_it_held(
    version: int, tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    path = tmp_path / "pangate.db"
    old = apsw.Connection(str(path))
    for migration in migrations("sqlite")[:version]:
        old.execute(migration.script)
    old.pragma("user_version", version)
    unit = (claim(), finish(response=b"kept"))
    run_unit(old, unit, Rows(unit))
    old.execute(
        """INSERT INTO tokens (tenant, token, class, format, sealed, created_at)
        VALUES ('shop', 'tok_1', 'pan', '', x'01', 0)"""
    )
    old.close()
    store = open_sqlite(str(path), clock=clock, telemetry=telemetry)
    row = await key_row(store)
    assert (row.state, row.response) == (KeyState.DONE, b"kept")
    assert not (await ask(store, KnowTokens("shop", "pan", ("tok_1",)))).refused
    assert not (await Till(store).admit("authorize")).refused
    await ask(store, EventLag())
    await store.close()
