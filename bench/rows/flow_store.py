"""`store_units`, `store_prepare`, `store_keys`: what the store commits in a second, 64 units under way, on the disk.

`store_units` claims one idempotency key a unit, one row. `store_prepare` is all that a payment makes durable before it
is forwarded: the claim, a new vault token, the payment with its reservation, the event that tells of it, and the call
in case no answer comes. `store_keys` is how much longer a claim takes among a million idempotency records than
among few. The store is alone in this process: one core for its thread and for those who ask.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from bench.report import Row, at_least, at_most
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
from gateway.ports import Store
from gateway.pure.events import EVENT_ID_BYTES, event_id
from gateway.pure.ids import PAYMENT_ID_BYTES, payment_id
from gateway.pure.lifecycle_machine import Machine

IDS = ("store_units", "store_prepare", "store_keys")
AT_ONCE = 64
UNITS = 20_000
GOALS = {"store_units": 15_000.0, "store_prepare": 5_000.0}
KEYS = {"quick": 50_000, "usual": 1_000_000}
FEW_KEYS = 10_000
KEYS_MOST = 1.2
LONE_UNITS = 1_500
_ADD_KEY = """INSERT INTO keys (tenant, scope, state, fingerprint, owner, response, claimed_at, settled_at, expires_at)
    VALUES ('bench', ?, 'done', zeroblob(32), 'exchange', zeroblob(300), 1, 1, 4000000000000000)"""
_SEALED = bytes(560)
"""A request as a call keeps it."""

Unit = list[Operation[StoreRow]]


async def measure(stage: Stage, rounds: int) -> list[Row]:
    machine = load_lifecycles(stage.folder)["card"].machine
    kinds: dict[str, Callable[[], Unit]] = {"store_units": one_row, "store_prepare": lambda: prepare(machine)}
    stores = {"few": FEW_KEYS, "many": KEYS[stage.size]}
    for name, keys in stores.items():
        await filled(stage.folder / name, keys)
    rates: dict[str, list[float]] = defaultdict(list)
    counted = {}
    for number in range(rounds):
        for kind, unit in kinds.items():
            path = stage.folder / f"{kind}-{number}.db"
            counted[kind] = await statements(path, unit)
            rates[kind].append(await rate(path, unit))
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
        for name in stores:
            rates[f"{name}_1"].append(await rate(stage.folder / name, one_row, LONE_UNITS, at_once=1))
            rates[f"{name}_64"].append(await rate(stage.folder / name, one_row))
    return rows(rates, counted, stores["many"])


def rows(rates: Mapping[str, Sequence[float]], counted: Mapping[str, int], keys: int) -> list[Row]:
    """`counted`: statements of a unit; `keys`: records among which the rates of `many` were measured."""
    note = f"among {keys:,} records to among {FEW_KEYS:,}"
    return [
        *(
            at_least(name, statistics.median(rates[name]), goal, "units/s", f"{counted[name]} statements a unit")
            for name, goal in GOALS.items()
        ),
        at_most("store_keys", _growth(rates, 1), KEYS_MOST, "ratio", f"one claim at a time, {note}"),
        Row("store_keys_64", _growth(rates, AT_ONCE), "ratio", note=f"as many as the core can do, {note}"),
    ]


def _growth(rates: Mapping[str, Sequence[float]], at_once: int) -> float:
    pairs = zip(rates[f"few_{at_once}"], rates[f"many_{at_once}"], strict=True)
    return statistics.median(few / many for few, many in pairs)


async def filled(path: Path, keys: int) -> None:
    """A store that holds so many idempotency records."""
    with _store(path) as store:
        await store.close()
    fill_keys(path, keys)


def fill_keys(path: Path, count: int) -> None:
    """Add so many records to a store, evenly spread over their key space. In the order of the key: that is fast."""
    scopes = ((number * 2**64 // count).to_bytes(8) + os.urandom(24) for number in range(count))
    db = apsw.Connection(str(path))
    try:
        db.pragma("synchronous", "OFF")
        with db:
            db.executemany(_ADD_KEY, ((scope,) for scope in scopes))
    finally:
        db.close()


def one_row() -> Unit:
    return [ClaimKey("bench", os.urandom(32), bytes(32), "exchange", time.time())]


def prepare(machine: Machine) -> Unit:
    """A new payment of a card that was never seen."""
    now, owner = time.time(), os.urandom(16).hex()
    event = EventDraft("payment", "/pangate/bench", lambda: event_id(now, os.urandom(EVENT_ID_BYTES)))
    scope, payment = os.urandom(32), payment_id(now, os.urandom(PAYMENT_ID_BYTES))
    return [
        ClaimKey("bench", scope, bytes(32), owner, now),
        PutToken("bench", "pan", "opaque", os.urandom(32), lambda _: Candidate(os.urandom(16).hex(), bytes(45)), now),
        AdmitCommand(
            "bench", machine, PaymentRef("psp"), "authorize", 1000, "EUR", owner, payment, now, "reject", event
        ),
        RecordCall("bench", owner, "create-payment", "psp", "replay", _SEALED, now, scope),
    ]


async def rate(path: Path, unit: Callable[[], Unit], units: int = UNITS, at_once: int = AT_ONCE) -> float:
    """Units a second, `at_once` under way at any time."""
    with _store(path) as store:
        found = await commit_rate(store, unit, units, at_once)
        await store.close()
    return found


async def commit_rate(store: Store, unit: Callable[[], Unit], units: int = UNITS, at_once: int = AT_ONCE) -> float:
    """Units a second of an open store. Raises RuntimeError when it refuses one."""
    turns = iter(range(units))

    async def ask() -> None:
        for _ in turns:
            if (await store.commit(unit())).refused is not None:
                raise RuntimeError("the store refuses a unit of the benchmark")

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    return units / (time.perf_counter() - began)


async def statements(path: Path, unit: Callable[[], Unit]) -> int:
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
    return len([sql for sql in seen if sql not in ("BEGIN", "COMMIT")])


@contextmanager
def _store(path: Path) -> Iterator[SqliteStore]:
    clock = SystemClock()
    with Path(os.devnull).open("wb", buffering=0) as nowhere:
        telemetry = PrometheusTelemetry(clock, nowhere)
        try:
            yield open_sqlite(str(path), clock=clock, telemetry=telemetry)
        finally:
            telemetry.close()
