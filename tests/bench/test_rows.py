"""What rows conclude from rounds: the goals are those that were set, and a peer that is missing is named."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bench.processes import core_nanoseconds, cpu_nanoseconds
from bench.report import Row
from bench.rounds import Samples, median, ratio
from bench.rows import cost, handshake, idle, latency, workers
from bench.stage import BODY_BYTES, Proxy, payment, saved_card_payment

UNEVEN = {"a": [10.0, 40.0, 20.0], "b": [10.0, 10.0, 40.0]}
"""By round: 1, 4 and a half. The medians are 20 and 10."""
ALL = ("bare", "policed", "durable", "durable_in_memory", *cost.PEERS)
NO_ENVOY = dict.fromkeys(("envoy", "extproc", "extproc_sqlite"), "no envoy here")


def costs(values: Mapping[str, float]) -> dict[str, Samples]:
    """One round, over 16 and over 64 connections."""
    return {
        f"{name}_{connections}": Samples(cpu=[value], busy=[0.9], noise=[0.02], loader=[20.0], latency=[300.0])
        for name, value in values.items()
        for connections in (16, 64)
    }


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    found = {row.name: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_ratio_compares_within_rounds() -> None:
    found = {name: Samples(cpu=values) for name, values in UNEVEN.items()}
    assert median(found, "a") == 20
    assert ratio(found, "a", "b") == 1
    assert ratio(found, "a", "c") is None


def test_the_goals_of_cost_are_those_that_were_set() -> None:
    rows = cost.rows(costs(dict.fromkeys(ALL, 100.0)), {})
    assert {row.name: row.goal for row in rows if row.goal} == {
        "policed_to_envoy": "at most 1.2",
        "policed_to_extproc": "at least 5.5",
        "durable_to_envoy": "at most 1.7",
        "durable_to_extproc_sqlite": "at least 6",
        "durable_to_mitmproxy": "at least 14",
        "bare_to_nginx": "at most 2.3",
        "durable_to_minimal_aiohttp_16": "at most 1",
        "durable_to_minimal_aiohttp_64": "at most 1",
        "durable_to_minimal_aiohttp_uvloop_16": "at most 1",
        "durable_to_minimal_aiohttp_uvloop_64": "at most 1",
    }


def test_a_ratio_is_ours_to_theirs_and_times_cheaper_theirs_to_ours() -> None:
    rows = by_name(list(cost.rows(costs(dict.fromkeys(ALL, 100.0) | {"policed": 50.0, "extproc": 400.0}), {})))
    assert (rows["policed_to_envoy"].value, rows["policed_to_envoy"].met) == (0.5, True)
    assert (rows["policed_to_extproc"].value, rows["policed_to_extproc"].met) == (8.0, True)
    assert (rows["durable_to_mitmproxy"].value, rows["durable_to_mitmproxy"].met) == (1.0, False)


def test_a_missing_peer_has_all_its_rows_and_meets_none_of_its_goals() -> None:
    here = {name: 100.0 for name in ALL if name not in NO_ENVOY}
    rows = by_name(list(cost.rows(costs(here), NO_ENVOY)))
    assert rows.keys() == by_name(list(cost.rows(costs(dict.fromkeys(ALL, 1.0)), {}))).keys()
    missing = [row for row in rows.values() if row.value is None]
    assert {row.name for row in missing} > {"envoy_16", "extproc_64", "policed_to_envoy", "durable_to_extproc_sqlite"}
    assert {(row.met, row.note) for row in missing} == {(None, "not measured: no envoy here")}
    assert rows["bare_to_nginx"].value == 1


def test_the_loader_says_what_it_takes_and_how_long_proxies_waited() -> None:
    found = costs(dict.fromkeys(ALL, 100.0))
    found["nginx_16"].busy = [0.5]
    row = cost.loader(found, 16)
    assert (row.name, row.value, row.note) == ("loader_16", 20.0, "the proxies were busy 90% of the time, nginx 50%")


def test_what_is_added_to_an_answer_is_compared_within_rounds() -> None:
    found = {
        "bare": Samples(latency=[200.0, 200.0, 200.0]),
        "policed": Samples(latency=[300.0, 400.0, 500.0]),
        "durable": Samples(latency=[700.0, 900.0, 1100.0]),
        "envoy": Samples(latency=[100.0, 500.0, 100.0]),
    }
    rows = by_name(list(latency.rows(found, [150.0], [20.0], {"nginx": "not measured: no nginx here"})))
    assert (rows["latency"].value, rows["latency"].goal, rows["latency"].met) == (600.0, "at most 600", True)
    assert rows["latency_durability"].value == 500
    assert rows["latency_fdatasync"].value == 150
    assert (rows["latency_nginx"].value, rows["latency_nginx"].note) == (None, "not measured: no nginx here")


def test_two_workers_are_compared_with_one_round_by_round() -> None:
    found = {
        "workers_1": Samples(cpu=[100.0, 200.0, 100.0]),
        "workers_2": Samples(cpu=[105.0, 210.0, 130.0]),
        "workers_shared": Samples(cpu=[120.0, 240.0, 120.0]),
    }
    rows = by_name(workers.rows(found))
    assert (rows["workers"].value, rows["workers"].goal, rows["workers"].met) == (1.05, "at most 1.1", True)
    assert (rows["workers_shared"].value, rows["workers_shared"].met) == (1.2, None)
    assert (rows["workers_1_cost"].value, rows["workers_2_cost"].value) == (100.0, 130.0)


def test_a_handshake_is_compared_with_nginx() -> None:
    rows = by_name(list(handshake.rows({"pangate": [2800.0], "nginx": [2000.0]}, {"envoy": "not measured: none"})))
    assert (rows["handshake"].value, rows["handshake"].met) == (1.4, True)
    assert by_name(list(handshake.rows({"pangate": [2800.0]}, {"nginx": "why"})))["handshake"].met is None


def test_memory_of_an_idle_connection_is_judged_on_the_default_loop() -> None:
    found = {"idle": [54.0, 56.0, 55.0], "idle_asyncio": [290.0, 291.0, 300.0], "idle_envoy": []}
    rows = by_name(list(idle.rows(found, {"idle_envoy": "why"})))
    assert (rows["idle"].value, rows["idle"].met) == (55, True)
    assert (rows["idle_asyncio"].value, rows["idle_asyncio"].goal) == (291, "")
    assert (rows["idle_envoy"].value, rows["idle_envoy"].note) == (None, "why")


def test_memory_that_is_used_is_seen() -> None:
    own = Proxy("own", (os.getpid(),), 0)
    before = idle.kibibytes(own)
    with mmap.mmap(-1, 32 << 20) as held:  # from the allocator it might be memory that is there already
        held.write(os.urandom(len(held)))
        assert idle.kibibytes(own) - before > len(held) / 1024 / 2


def test_time_on_a_core_is_seen() -> None:
    before = cpu_nanoseconds(os.getpid())
    os.urandom(8 << 20)
    assert cpu_nanoseconds(os.getpid()) - before > 1_000_000
    assert all(core_nanoseconds(core) > 0 for core in os.sched_getaffinity(0))


def test_a_write_to_the_disk_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    assert latency.fdatasync_microseconds(tmp_path / "sync") > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [payment(), saved_card_payment()])
def test_payments_have_the_size_that_is_stated(body: bytes) -> None:
    assert len(body) == BODY_BYTES
