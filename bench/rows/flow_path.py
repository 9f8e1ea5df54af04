"""`flow_rate`, `flow_latency`: a payment that is durable from end to end, through `pangate run` on SQLite.

Each request has a key and a card of its own and passes mutual TLS, JWT, idempotency, a token's vault row, the payment's
life cycle and the record in case no answer comes; both gates commit to the disk, and the relay publishes both events to
a stream in Valkey meanwhile. The payment behind is authorised, under an id that was never given before. Every answer is
checked, and in the end the stream: it holds both events of every payment, in order.

- `flow_rate` is requests a second by the clock, over 64 connections, until the last was answered. `flow_rate_published`
  is the same until the last event was in the stream, and `flow_cost` the CPU that all of it took.
- `flow_latency` is what the gateway adds to the median answer of the backend itself, one request at a time.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis

from bench.loader import Load, Target
from bench.processes import LOADER_CORE, free_port
from bench.report import Row, at_least, at_most
from bench.rounds import WARM_UP
from bench.rows.latency import direct_microseconds
from bench.stage import CONFIG, PYTHON, Proxy, Stage, payment, post
from tests.servers import VOLATILE, running_redis

IDS = ("flow_rate", "flow_latency")
CONNECTIONS = 64
REQUESTS = 6_000
LONE_REQUESTS = 600
RATE_LEAST = 1_800.0
ADDED_MOST = 5_000.0
"""Microseconds."""
EVENTS_EACH = 2
PUBLISHED_SECONDS = 60.0
FLOW = CONFIG.parent / "flow" / "config.yaml"
STREAM = "pangate:events"
_ANSWER = b'{"id":"pay_', b'","status":"authorized","amount":1999,"currency":"EUR"}'


async def measure(stage: Stage, rounds: int) -> list[Row]:
    backend = free_port()
    command = [*PYTHON, "bench.backend", "--port", str(backend), "--payments"]
    stage.start("payments", command, backend, LOADER_CORE)
    with running_redis(stage.folder, *VOLATILE) as server, redis.Redis.from_url(server.url) as client:
        proxy = stage.pangate(FLOW, "flow", BENCH_BACKEND=str(backend), BENCH_EVENTS=server.url)
        pay = Target(proxy.port, stage.context, payments(stage.token()), right)
        flow, bare = Flow(proxy, pay, client), replace(pay, request=post("/bare"))
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for name, value in flow.play().items():
                found[name].append(value)
            found["direct"].append(direct_microseconds(backend, right))
            found["alone"].append(flow.alone(pay))
            found["bare"].append(flow.alone(bare))
        flow.verify()
    return rows(found)


def rows(found: Mapping[str, Sequence[float]]) -> list[Row]:
    """`found` has a value a round of each figure."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    added = statistics.median(a - b for a, b in zip(found["alone"], found["direct"], strict=True))
    note = f"busy {middle['busy']:.0%} of its core"
    return [
        at_least("flow_rate", middle["rate"], RATE_LEAST, "requests/s", note),
        Row("flow_rate_published", middle["published"], "requests/s"),
        Row("flow_cost", middle["cost"], "us CPU/request", note=f"{1e6 / middle['cost']:.0f} requests a core second"),
        at_most("flow_latency", added, ADDED_MOST, "us", "to the backend's own, without TLS"),
        Row("flow_latency_bare", middle["bare"], "us", note="of the same gateway, forwarding only"),
        Row("flow_latency_durable", middle["alone"], "us"),
    ]


class Flow:
    """A gateway, the payments that it is asked to make, so many so far, and where its events arrive."""

    def __init__(self, proxy: Proxy, pay: Target, client: redis.Redis, asked: int = 0) -> None:
        self._proxy = proxy
        self._client = client
        self._asked = asked
        self.pay = pay

    def play(self) -> dict[str, float]:
        """A round over many connections; it begins and ends with all events published."""
        load = Load(self.pay)
        try:
            load.connect(CONNECTIONS)
            self._run(load, CONNECTIONS * WARM_UP)
            self._published()
            cpu, began = self._proxy.cpu(), time.perf_counter()
            self._run(load, REQUESTS)
            answered, busy = time.perf_counter() - began, self._proxy.cpu() - cpu
            self._published()
            published, cost = time.perf_counter() - began, self._proxy.cpu() - cpu
        finally:
            load.close()
        return {
            "rate": REQUESTS / answered,
            "published": REQUESTS / published,
            "cost": cost / REQUESTS / 1000,
            "busy": busy / answered / 1e9,
        }

    def alone(self, target: Target) -> float:
        """The median time of an answer over one connection, in microseconds."""
        load = Load(target)
        try:
            load.connect(1)
            load.run(WARM_UP)
            taken = load.run(LONE_REQUESTS)
        finally:
            load.close()
        self._asked += (WARM_UP + LONE_REQUESTS) * (target is self.pay)
        return statistics.median(taken) / 1000

    def verify(self) -> None:
        """Raises RuntimeError unless the stream holds both events of every payment, once, and in order."""
        self._published()
        sequences: dict[str, list[int]] = defaultdict(list)
        entries: Any = self._client.xrange(STREAM)
        for _, fields in entries:
            sequences[fields[b"subject"]].append(int(fields[b"sequence"]))
        expected = [*range(1, EVENTS_EACH + 1)]
        if len(sequences) != self._asked or any(found != expected for found in sequences.values()):
            raise RuntimeError("the stream does not hold every event once and in order")

    def _run(self, load: Load, requests: int) -> None:
        load.run(requests)
        self._asked += requests

    def _published(self) -> None:
        """Wait until every event is in the stream. Raises RuntimeError when that takes too long."""
        deadline = time.monotonic() + PUBLISHED_SECONDS
        while self._client.xlen(STREAM) < self._asked * EVENTS_EACH:
            if time.monotonic() > deadline:
                raise RuntimeError("the relay publishes no more")
            time.sleep(0.005)


def payments(token: str) -> Callable[[int], bytes]:
    """Each time another key, also from one round to the next."""
    keys, body = itertools.count(1), payment()
    head = "POST /v1/payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Expect-Token: 1\r\n"
    start = f"{head}Authorization: Bearer {token}\r\nIdempotency-Key: flow-".encode()
    end = f"\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return lambda _: b"%b%012d%b" % (start, next(keys), end)


def right(head: bytes, body: bytes) -> bool:
    """An authorised payment as the backend gave it, and not an answer from before."""
    start, end = _ANSWER
    fresh = b"idempotent-replayed" not in head.lower()
    return fresh and head.startswith(b"HTTP/1.1 201") and body.startswith(start) and body.endswith(end)
