"""What every store promises of units: atomic, apart from one another, and many to one commit."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.adapters.store_queue import BATCH_UNITS_MAX, QUEUE_UNITS_MAX
from gateway.operations import Candidate, KeyState, KnowTokens, Operation, ReleaseKey, Row
from gateway.ports import Store, Unavailable
from gateway.pure.metrics import Metric
from tests.adapters.operations import ask, claim, due, finish, key_row, put_token, reveal, start, writer_held
from tests.conftest import Recorder


async def test_a_refusal_undoes_what_its_unit_did_before_and_runs_nothing_behind_it(store: Store) -> None:
    await store.commit([claim(owner="req-0")])
    unit = [put_token("tok_1"), claim(), put_token("tok_2")]
    rows = await store.commit(unit)
    assert (rows.refused, len(rows.answered)) == (1, 2)
    for token in ("tok_1", "tok_2"):
        assert (await ask(store, KnowTokens("shop", "pan", (token,)))).refused


async def test_a_response_is_rendered_with_the_tokens_of_its_own_unit(store: Store) -> None:
    await store.commit([claim()])
    token = put_token("tok_1", "tok_2", fingerprint=b"f")
    await store.commit([token, finish(response=lambda rows: b"card=" + rows[token].token.encode())])
    assert (await key_row(store)).response == b"card=tok_1"


async def test_rows_of_another_unit_are_not_to_be_had(store: Store) -> None:
    rows = await store.commit([claim()])
    with pytest.raises(KeyError):
        rows[claim()]


async def test_a_response_that_cannot_be_rendered_leaves_the_claim_in_flight(store: Store) -> None:
    await store.commit([claim()])
    with pytest.raises(ZeroDivisionError):
        await store.commit([put_token("tok_1"), finish(response=lambda _: b"%d" % (1 // 0))])
    assert (await key_row(store)).state is KeyState.IN_FLIGHT
    assert (await ask(store, reveal("tok_1"))).refused


async def test_an_error_in_one_unit_reaches_its_caller_and_no_other(store: Store, telemetry: Recorder) -> None:
    async with writer_held(store) as held:
        before, broken, behind = start(
            store,
            [claim(b"before")],
            [claim(b"broken"), put_token(mint=lambda _: Candidate("no bytes", None))],  # type: ignore[arg-type]
            [claim(b"behind")],
        )
    await asyncio.gather(held, before, behind)
    with pytest.raises(Unavailable, match="store"):
        await broken
    assert not (await ask(store, claim(b"broken"))).refused
    assert telemetry.counts[Metric.STORE_UNITS, ("failed",)] == 1


async def test_an_unknown_kind_of_operation_is_an_error_of_its_unit(store: Store) -> None:
    with pytest.raises(KeyError):
        await store.commit([Operation()])
    assert (await key_row(store)).state is KeyState.NEW


async def test_a_mint_that_runs_dry_is_an_error_of_its_unit(store: Store) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.commit([put_token(mint=lambda _: next(iter(())))])
    assert (await key_row(store)).state is KeyState.NEW


async def test_not_even_an_exit_in_a_unit_ends_the_store(store: Store) -> None:
    with pytest.raises(Unavailable, match="store"):
        await store.commit([put_token(mint=lambda _: sys.exit())])
    assert (await key_row(store)).state is KeyState.NEW


async def test_a_log_that_cannot_be_written_stops_no_unit(
    store: Store, telemetry: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Recorder, "log")
    with pytest.raises(Unavailable, match="store"):
        await store.commit([put_token(mint=lambda _: Candidate("no bytes", "text"))])  # type: ignore[arg-type]
    assert (await key_row(store)).state is KeyState.NEW


async def test_units_that_wait_share_one_commit(store: Store, telemetry: Recorder) -> None:
    async with writer_held(store) as held:
        units = start(store, *([claim(b"%d" % n)] for n in range(BATCH_UNITS_MAX)))
    await asyncio.gather(held, *units)
    assert telemetry.counts[Metric.STORE_COMMITS, ()] == 2
    assert telemetry.counts[Metric.STORE_UNITS, ("committed",)] == BATCH_UNITS_MAX + 1


async def test_units_are_counted_by_their_result(store: Store, telemetry: Recorder) -> None:
    await store.commit([claim()])
    await store.commit([claim()])
    assert telemetry.counts[Metric.STORE_UNITS, ("refused",)] == 1
    assert telemetry.counts[Metric.STORE_UNITS, ("committed",)] == 1


async def test_reading_is_no_commit(store: Store, telemetry: Recorder) -> None:
    await due(store)
    assert (Metric.STORE_COMMITS, ()) not in telemetry.counts


async def test_a_caller_that_gives_up_harms_no_other(store: Store) -> None:
    async with writer_held(store) as held:
        gone, stays = start(store, [claim(b"gone")], [claim(b"stays")])
        await asyncio.sleep(0)
        gone.cancel()
    await held
    assert (await stays).refused is None


async def test_a_unit_that_its_caller_changes_while_it_waits_runs_as_it_was_asked(store: Store) -> None:
    async with writer_held(store):
        unit: list[Operation[Row]] = [claim(b"asked")]
        (task,) = start(store, unit)
        await asyncio.sleep(0)
        unit.append(claim(b"added"))
    await task
    assert not (await ask(store, claim(b"added"))).refused


async def test_beyond_its_bound_the_queue_refuses_at_once(store: Store) -> None:
    async with writer_held(store) as held:
        waiting = start(store, *([ReleaseKey("shop", b"%d" % n, "")] for n in range(QUEUE_UNITS_MAX)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="store"):
            await store.commit([claim()])
    assert len(await asyncio.gather(held, *waiting)) == QUEUE_UNITS_MAX + 1


async def test_closing_finishes_what_is_queued_and_takes_nothing_more(store: Store) -> None:
    async with writer_held(store) as held:
        units = start(store, *([claim(b"%d" % n)] for n in range(300)))
        await asyncio.sleep(0)
        closing = [asyncio.create_task(store.close()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="store"):
            await store.commit([claim()])
    await asyncio.gather(*closing)
    assert all(rows.refused is None for rows in await asyncio.gather(held, *units))
