"""The rows about the store measure what they say: whole units, committed, and few statements in each."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from bench.rows import flow_store
from gateway.operations import AdmitCommand, ClaimKey, PutToken, RecordCall
from tests.pure.lifecycles import card


def test_a_unit_of_prepare_holds_all_that_a_payment_makes_durable() -> None:
    assert [type(operation) for operation in flow_store.prepare(card())] == [
        ClaimKey,
        PutToken,
        AdmitCommand,
        RecordCall,
    ]


async def test_every_unit_that_is_counted_was_committed_with_its_event(tmp_path: Path) -> None:
    path = tmp_path / "bench.db"
    assert await flow_store.rate(path, lambda: flow_store.prepare(card()), units=130) > 0
    db = apsw.Connection(str(path))
    for name in ("keys", "tokens", "payments", "reservations", "outbox", "calls"):
        assert db.execute(f"SELECT count(*) FROM {name}").get == 130
    db.close()


@pytest.mark.parametrize(("unit", "most"), [(flow_store.one_row, 1), (lambda: flow_store.prepare(card()), 9)])
async def test_a_unit_takes_few_statements(tmp_path: Path, unit: flow_store.Unit, most: int) -> None:
    assert await flow_store.statements(tmp_path / "bench.db", unit) <= most  # type: ignore[arg-type]


async def test_a_unit_that_is_refused_ends_the_measuring(tmp_path: Path) -> None:
    unit = flow_store.one_row()
    with pytest.raises(RuntimeError, match="refuses"):
        await flow_store.rate(tmp_path / "bench.db", lambda: unit, units=2)


async def test_records_that_were_filled_in_are_keys_that_are_done_and_spread(tmp_path: Path) -> None:
    path = tmp_path / "bench.db"
    await flow_store.filled(path, 1000)
    db = apsw.Connection(str(path))
    done, spread = db.execute("SELECT count(*), count(DISTINCT substr(scope, 1, 1)) FROM keys WHERE state = 'done'").get
    assert (done, spread, db.pragma("integrity_check")) == (1000, 256, "ok")
    db.close()


def test_a_rate_is_judged_by_its_median_and_growth_by_each_rounds_own_ratio() -> None:
    rates = {"store_units": [20_000, 30_000, 40_000], "store_prepare": [4_000, 4_900, 9_000]}
    rates |= {"few_1": [10, 20, 30], "many_1": [10, 10, 10], "few_64": [100] * 3, "many_64": [50] * 3}
    units, prepare, keys, saturated = flow_store.rows(rates, {"store_units": 1, "store_prepare": 9}, 1_000_000)
    assert (units.value, units.met, prepare.value, prepare.met) == (30_000, True, 4_900, False)
    assert (keys.value, keys.met, saturated.value, saturated.met) == (2.0, False, 2.0, None)
