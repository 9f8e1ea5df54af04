"""The hand-driven world of unit tests: a clock that moves when told, randomness that counts, and an exchange."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gateway.exchange import Exchange, Peer, Request
from gateway.pure.metrics import Metric
from gateway.pure.served import Served
from gateway.pure.trace import TraceContext

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
"""How long an example takes says how busy the machine is, and nothing of what is promised."""


class HandClock:
    """Stands still until `advance` is called."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


class CountingEntropy:
    """Bytes that are different at every call and the same in every run."""

    def __init__(self) -> None:
        self._calls = itertools.count(1)

    def __call__(self, n: int) -> bytes:
        import hashlib

        return hashlib.shake_256(next(self._calls).to_bytes(8, "big")).digest(n)


class Recorder:
    """A Telemetry that remembers."""

    def __init__(self) -> None:
        self.counts: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self.lines: list[dict[str, object]] = []

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        assert len(labels) == len(metric.labels)
        self.counts[metric, labels] = self.counts.get((metric, labels), 0) + by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        assert len(labels) == len(metric.labels)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self.counts[metric, labels] = value

    def served(self, served: Served) -> None:
        for metric, labels, value in served.notes():
            if metric.kind == "counter":
                self.count(metric, *labels, by=value)
        self.log("request", **served.line())

    def log(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


class Body:
    """A request body that arrives in the given pieces."""

    is_whole = False

    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        self.pieces = pieces
        self.length = length
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def gather(self) -> None: ...

    def ready(self) -> bytes | None:
        return None

    async def aclose(self) -> None:
        self.closed = True


def make_exchange(
    method: str = "POST",
    target: str = "/v1/payments",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    peer: Peer | None = None,
    **slots: Any,
) -> Exchange:
    """An exchange as the listener would make it; `body` is put in `request.body`, not yet read."""
    fields = {"Host": "api.example", **(headers or {})}
    path, _, query = target.partition("?")
    request = Request(
        method=method,
        target=target,
        path=path,
        query=query,
        headers=tuple((k.encode(), v.encode()) for k, v in fields.items()),
        fields={k.lower().encode(): v.encode() for k, v in fields.items()},
        body=None if body is None else Body(body, length=len(body)),
        peer=peer or Peer("192.0.2.7"),
        scheme="https",
        host="api.example",
        received_at=1_800_000_000.0,
    )
    exchange = Exchange(
        id="req-1",
        route="create-payment",
        request=request,
        params={},
        tenant="default",
        trace=TraceContext("0" * 31 + "1", "0" * 15 + "2", "00"),
    )
    for name, value in slots.items():
        setattr(exchange, name, value)
    return exchange


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def entropy() -> CountingEntropy:
    return CountingEntropy()


@pytest.fixture
def telemetry() -> Recorder:
    return Recorder()


@pytest.fixture
def exchange() -> Callable[..., Exchange]:
    return make_exchange
