"""`store_units` and `store_prepare`: what the store commits in a second with 64 units under way, each on the disk.

`store_units` claims one idempotency key a unit, one row. `store_prepare` is all that a payment makes durable before it
is forwarded: the claim, a new vault token, the payment with its reservation, the event that tells of it, and the call
in case no answer comes. The store is alone in this process: one core for its thread and for those who ask.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from bench.report import Row, at_least
from bench.stage import Stage
from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.config.lifecycles import load_lifecycles
from gateway.operations import (
    AdmitCommand,
    Candidate,
    ClaimKey,
    EventDraft,
    Operation,
    PaymentRef,
    PutToken,
    RecordCall,
)
from gateway.operations import Row as StoreRow
from gateway.pure.events import EVENT_ID_BYTES, event_id
from gateway.pure.lifecycle_machine import Machine

IDS = ("store_units", "store_prepare")
AT_ONCE = 64
UNITS = 20_000
GOALS = {"store_units": 15_000.0, "store_prepare": 5_000.0}
_SEALED = bytes(560)
"""A request as a call keeps it."""

Unit = list[Operation[StoreRow]]


async def measure(stage: Stage, rounds: int) -> list[Row]:
    machine = load_lifecycles(stage.folder)["card"].machine
    kinds: dict[str, Callable[[], Unit]] = {"store_units": one_row, "store_prepare": lambda: prepare(machine)}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    counted: dict[str, float] = {}
    for number in range(rounds):
        for name, unit in kinds.items():
            path = stage.folder / f"{name}-{number}.db"
            counted[name] = await statements(path, unit)
            rates[name].append(await rate(path, unit))
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
    return [
        at_least(name, statistics.median(rates[name]), goal, "units/s", f"{counted[name]:.0f} statements a unit")
        for name, goal in GOALS.items()
    ]


def one_row() -> Unit:
    return [ClaimKey("bench", os.urandom(32), bytes(32), "exchange", time.time())]


def prepare(machine: Machine) -> Unit:
    """A new payment of a card that was never seen."""
    now, owner = time.time(), os.urandom(16).hex()
    event = EventDraft("payment", "/pangate/bench", lambda: event_id(now, os.urandom(EVENT_ID_BYTES)))
    scope = os.urandom(32)
    return [
        ClaimKey("bench", scope, bytes(32), owner, now),
        PutToken("bench", "pan", "opaque", os.urandom(32), lambda _: Candidate(os.urandom(16).hex(), bytes(45)), now),
        AdmitCommand(
            "bench", machine, PaymentRef("psp"), "authorize", 1000, "EUR", owner, f"pay_{owner}", now, "reject", event
        ),
        RecordCall("bench", owner, "create-payment", "psp", "replay", _SEALED, now, scope),
    ]


async def rate(path: Path, unit: Callable[[], Unit], units: int = UNITS) -> float:
    """Units a second, `AT_ONCE` under way at any time."""
    with _store(path) as store:
        turns = iter(range(units))

        async def ask() -> None:
            for _ in turns:
                if (await store.commit(unit())).refused is not None:
                    raise RuntimeError("the store refuses a unit of the benchmark")

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        taken = time.perf_counter() - began
        await store.close()
    return units / taken


async def statements(path: Path, unit: Callable[[], Unit]) -> float:
    """Statements that SQLite runs for a lone unit, without BEGIN and COMMIT, which many units share."""
    seen: list[str] = []

    def trace(db: apsw.Connection) -> None:
        db.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: seen.append(told["sql"]))

    apsw.connection_hooks.append(trace)
    try:
        with _store(path) as store:
            seen.clear()
            await store.commit(unit())
            await store.close()
    finally:
        apsw.connection_hooks.remove(trace)
    return float(len([sql for sql in seen if sql not in ("BEGIN", "COMMIT")]))


@contextmanager
def _store(path: Path) -> Iterator[SqliteStore]:
    clock = SystemClock()
    with Path(os.devnull).open("wb", buffering=0) as nowhere:
        telemetry = PrometheusTelemetry(clock, nowhere)
        try:
            yield open_sqlite(str(path), clock=clock, telemetry=telemetry)
        finally:
            telemetry.close()
