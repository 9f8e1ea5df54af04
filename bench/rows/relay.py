"""`relay`: events a second from the store to a stream in Valkey, in order for each payment, each recorded as sent.

The store is on the disk and holds payments with two events each, written as payments write them. Relay and store are
this process, on one core; Valkey runs on the other.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import IO, Any

import redis

from bench.processes import PROXY_CORE
from bench.report import Row, at_least
from bench.stage import Stage
from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_node import Access
from gateway.adapters.redis_stream import open_stream
from gateway.adapters.redis_topology import One
from gateway.adapters.sqlite import open_sqlite
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.config.lifecycles import load_lifecycles
from gateway.operations import AdmitCommand, EndCommand, EventDraft, EventLag, PaymentRef
from gateway.ports import Ports, Store, Telemetry
from gateway.pure.events import EVENT_ID_BYTES, event_id
from gateway.pure.lifecycle_machine import Machine
from gateway.workers.relay import Relay
from tests.servers import VOLATILE, address_of, running_redis

IDS = ("relay",)
PAYMENTS = 10_000
EVENTS_EACH = 2
LEAST = 8_000.0
"""Events a second."""
_AT_ONCE = 64


async def measure(stage: Stage, rounds: int) -> list[Row]:
    machine = load_lifecycles(stage.folder)["card"].machine
    with running_redis(stage.folder, *VOLATILE) as server:
        os.sched_setaffinity(server.process.pid, {PROXY_CORE})
        rates = [await rate(stage.folder / f"relay-{number}.db", server.url, machine) for number in range(rounds)]
    return [at_least("relay", statistics.median(rates), LEAST, "events/s", f"{EVENTS_EACH} of each payment")]


async def rate(path: Path, url: str, machine: Machine, payments: int = PAYMENTS) -> float:
    """Events a second until none is left. Raises RuntimeError if what arrived is not what was written, in order."""
    stream = path.stem
    with redis.Redis.from_url(url) as client, nowhere() as log:
        telemetry = PrometheusTelemetry(SystemClock(), log)
        store = open_sqlite(str(path), clock=SystemClock(), telemetry=telemetry)
        await fill(store, machine, payments)
        publisher = open_stream(
            "valkey", One(address_of(url)), Access(), stream, max_length=None, timeout=20, telemetry=telemetry
        )
        relay = Relay(_ports(store, telemetry), [publisher], attempts=1)
        running = asyncio.create_task(relay.run())
        began = time.perf_counter()
        while client.xlen(stream) < payments * EVENTS_EACH or await _pending(store):  # noqa: ASYNC110 - Valkey's progress
            await asyncio.sleep(0.01)
        taken = time.perf_counter() - began
        await relay.stop()
        await running
        await publisher.close()
        await store.close()
        telemetry.close()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    _verify(url, stream, payments)
    return payments * EVENTS_EACH / taken


def nowhere() -> IO[bytes]:
    return Path(os.devnull).open("wb", buffering=0)


async def fill(store: Store, machine: Machine, payments: int) -> None:
    """Payments that were authorised: one event for the request, one for the answer."""
    now = time.time()
    draft = EventDraft("payment", "/pangate/bench", lambda: event_id(now, os.urandom(EVENT_ID_BYTES)))
    numbers = iter(range(payments))

    async def pay() -> None:
        for number in numbers:
            owner, ref = os.urandom(16).hex(), PaymentRef("psp")
            payment = f"pay_{number}"
            asked = AdmitCommand("bench", machine, ref, "authorize", 1000, "EUR", owner, payment, now, "reject", draft)
            await store.commit([asked])
            await store.commit([EndCommand("bench", machine, owner, "succeeded", None, f"pi_{number}", (), now, draft)])

    await asyncio.gather(*(pay() for _ in range(_AT_ONCE)))


async def _pending(store: Store) -> int:
    asked = EventLag()
    return (await store.commit([asked]))[asked].pending


def _verify(url: str, stream: str, payments: int) -> None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange(stream)
        client.delete(stream)
    sequences: dict[str, list[str]] = {}
    for _, fields in entries:
        sequences.setdefault(fields["subject"], []).append(fields["sequence"])
    expected = [str(number + 1) for number in range(EVENTS_EACH)]
    if len(sequences) != payments or any(found != expected for found in sequences.values()):
        raise RuntimeError("the stream does not hold every event once and in order")


def _ports(store: Store, telemetry: Telemetry) -> Ports:
    unused: Any = None
    return Ports(
        clock=SystemClock(),
        entropy=os.urandom,
        store=store,
        shared=unused,
        sad=unused,
        keys=unused,
        key_sets=unused,
        telemetry=telemetry,
        files=unused,
    )
