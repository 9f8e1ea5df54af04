"""The beginning and the end of recording are on record, and where the chains end leaves the machine with the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.operations import ReadChain
from gateway.ports import Unavailable
from gateway.pure.audit import GATEWAY
from gateway.workers.witness import Witness
from tests.adapters.operations import record
from tests.conftest import HandClock, Recorder


@pytest.fixture
async def store(clock: HandClock, telemetry: Recorder) -> AsyncIterator[SqliteStore]:
    store = open_sqlite(":memory:", clock=clock, telemetry=telemetry)
    yield store
    await store.close()


@pytest.fixture
def witness(store: SqliteStore, tmp_path: Path, clock: HandClock, telemetry: Recorder) -> Witness:
    (tmp_path / "vault.key").touch(0o600)
    (tmp_path / "vault.key").write_text(generate_key())
    return Witness(store, FileKeys(tmp_path / "vault.key"), clock, telemetry)


async def test_begin_and_end_of_recording_are_entries(witness: Witness, store: SqliteStore) -> None:
    await witness.began("0123abcd")
    await witness.ended()
    asked = ReadChain(GATEWAY, "gateway", 0, 10)
    entries = [link.entry for link in (await store.commit([asked]))[asked].entries]
    assert [(entry.event, entry.purpose) for entry in entries] == [
        ("started", "configuration 0123abcd"),
        ("stopped", ""),
    ]


async def test_a_process_that_cannot_record_does_not_begin_and_ends_all_the_same(
    witness: Witness, store: SqliteStore
) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await witness.began("0123abcd")
    await witness.ended()


async def test_each_head_is_logged_once(witness: Witness, store: SqliteStore, telemetry: Recorder) -> None:
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            await store.commit([record()])
        if rounds == 3:
            raise asyncio.CancelledError

    await store.commit([record(tenant="rival")])
    with pytest.raises(asyncio.CancelledError):
        await witness.run(sleep=sleep)
    heads = [(line["tenant"], line["sequence"]) for line in telemetry.lines if line["event"] == "audit_head"]
    assert heads == [("rival", 1), ("shop", 1)]
