"""`postgres_units`, `postgres_rate`: the store on PostgreSQL, with its durability as it comes, beside SQLite.

- `postgres_units` claims one idempotency key a unit, one row, 64 units under way: those who ask on one core, PostgreSQL
  on the other.
- `postgres_rate` is the route `durable` over 64 connections: requests a second by the clock of a gateway on one core,
  with its rows in PostgreSQL, to those with its rows in SQLite. PostgreSQL shares the core of loader and backend.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from bench.loader import Load, Target
from bench.processes import PROXY_CORE
from bench.report import Row, at_least
from bench.rounds import WARM_UP
from bench.rows.flow_store import AT_ONCE, commit_rate, one_row
from bench.stage import CONFIG, Stage
from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres import open_postgres
from gateway.adapters.telemetry import PrometheusTelemetry
from tests.postgres import Server, running_postgres

IDS = ("postgres_units", "postgres_rate")
UNITS_LEAST = 13_000.0
RATE_LEAST = 0.6
CONNECTIONS = 64
REQUESTS = 4_000
UNITS = 20_000
LEASE = 15.0
_AS_IT_COMES: tuple[str, ...] = ()


async def measure(stage: Stage, rounds: int) -> list[Row]:
    found: dict[str, list[float]] = defaultdict(list)
    with running_postgres(_AS_IT_COMES) as server:
        store = await asyncio.to_thread(server.migrated)
        for _ in range(rounds):
            found["units"].append(await units(server, store))
        proxies = {
            "sqlite": stage.pangate(name="sqlite"),
            "postgres": stage.pangate(configured(stage.folder / "postgres", store), "postgres"),
        }
        for _ in range(rounds):
            for name, proxy in proxies.items():
                found[name].append(rate(stage.work(proxy, "durable")))
    return rows(found)


def rows(found: Mapping[str, Sequence[float]]) -> list[Row]:
    """`found` has a value a round of each figure."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    ratio = statistics.median(a / b for a, b in zip(found["postgres"], found["sqlite"], strict=True))
    note = f"{middle['postgres']:.0f} to {middle['sqlite']:.0f} requests/s"
    return [
        at_least("postgres_units", middle["units"], UNITS_LEAST, "units/s", f"{AT_ONCE} under way"),
        at_least("postgres_rate", ratio, RATE_LEAST, "ratio", note),
    ]


async def units(server: Server, store: str) -> float:
    """One-row units a second, from the core of the proxies."""
    database = store.removeprefix("postgresql:///").partition("?")[0]
    clock, before = SystemClock(), os.sched_getaffinity(0)
    with on_core(PROXY_CORE, before):
        telemetry = PrometheusTelemetry(clock, BytesIO())
        opened = await open_postgres(server.of(database), node="bench", clock=clock, telemetry=telemetry, lease=LEASE)
        try:
            return await commit_rate(opened, one_row, UNITS)
        finally:
            await opened.close()
            telemetry.close()


@contextmanager
def on_core(core: int, before: set[int]) -> Iterator[None]:
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def configured(folder: Path, store: str) -> Path:
    """The bench's configuration with this store."""
    folder.mkdir()
    (folder / "policies").symlink_to(CONFIG.parent / "policies")
    text = CONFIG.read_text()
    assert "sqlite:${BENCH_STORE}" in text
    config = folder / CONFIG.name
    config.write_text(text.replace("sqlite:${BENCH_STORE}", store))
    return config


def rate(target: Target) -> float:
    load = Load(target)
    try:
        load.connect(CONNECTIONS)
        load.run(CONNECTIONS * WARM_UP)
        began = time.perf_counter()
        load.run(REQUESTS)
        return REQUESTS / (time.perf_counter() - began)
    finally:
        load.close()
