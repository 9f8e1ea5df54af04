"""A gateway as a machine of the simulation runs it: the product's classes, on a disk that another run has left.

Real are `Pipeline`, `RecordedPipeline`, `Resolver` and `Relay`, `idempotency`, `tokenize`, `lifecycle`, `reveal`,
`SqliteStore` and SQLite itself; made up are time, chance, the disk, the wire to the provider and where events go.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.adapters.keys import FileKeys
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.sqlite import open_sqlite
from gateway.config.lifecycles import load_lifecycles
from gateway.config.mappings import load_mappings
from gateway.exchange import Exchange, Peer, Request
from gateway.operations import OutboxEvent
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Outcome, Ports, Response, Told, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.relaying import TAKEN
from gateway.pure.resolving import Doubts
from gateway.pure.served import Served
from gateway.pure.trace import TraceContext
from gateway.recorded import RecordedPipeline
from gateway.rule import Place, Rule, RuleSettings
from gateway.rules import idempotency, lifecycle, reveal, tokenize
from gateway.workers.relay import Announcing, Relay
from gateway.workers.resolver import Resolver
from tests.faults.disk import Disk
from tests.faults.simulation import Process, ScheduledWriter, Simulation

TENANT, ROUTE, CALLER = "faults", "pay", "spiffe://shop.example/checkout"
EPOCH = 1_800_000_000.0
FATES = ("lost", "late", "silent", "reset", "refused", *["fine"] * 9)
"""What becomes of a request on its way to the provider and back. `twice` is for a provider that honours keys."""
WRITE_SECONDS = 0.002
NETWORK_SECONDS = 0.005
PATIENCE_SECONDS = 0.4
"""How long the gateway waits for the provider."""

WAL_PAGES_IDLE = 100
"""Pages in the log from which on an idle moment is used for a check-point: few, so that lives see some."""
EVENTS_LOST = 0.03
"""The share of events that do not arrive, and of those that are not confirmed."""
ATTEMPTS_MAX = 1_000
"""Of one event: none is ever parked."""

Answerer = Callable[[str, bytes, bytes], Response]
"""Of method, head and body."""


class Clock:
    def __init__(self, loop: Simulation) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()


class Mute:
    """Telemetry that keeps the names of what should not have happened."""

    def __init__(self) -> None:
        self.crashed: list[str] = []

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None: ...
    def observe(self, metric: Metric, value: float, *labels: str) -> None: ...
    def set(self, metric: Metric, value: float, *labels: str) -> None: ...
    def served(self, served: Served) -> None: ...

    def log(self, event: str, **fields: object) -> None:
        if event.endswith("_crashed"):
            self.crashed.append(f"{event} {fields.get('where')}")


class Wire:
    """The way to the provider and back (implements `ports.Upstream` and `ports.Connection`)."""

    name = "provider"
    authority = b"provider.internal"
    deadline = math.inf

    def __init__(self, loop: Simulation, answer: Answerer, fates: Sequence[str] = ("fine",)) -> None:
        self._loop = loop
        self._answer = answer
        self._fates = fates

    async def acquire(self, *, safe: bool) -> Wire:
        if self._loop.rng.choice(self._fates) == "refused":
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "refused")
        return self

    def release(self) -> None: ...

    def again(self, tried: int, waited: float) -> None: ...

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """Some requests are lost, late or seen twice; some answers are lost or their connection is reset."""
        assert isinstance(body, bytes)
        rng = self._loop.rng
        answered: asyncio.Future[Response | None] = self._loop.create_future()
        fate = rng.choice(self._fates)
        there = NETWORK_SECONDS * rng.random() + (PATIENCE_SECONDS if fate == "late" else 0)

        def arrive() -> None:
            response = self._answer(method, head, body)
            back = NETWORK_SECONDS * rng.random()
            if fate != "silent":
                self._loop.call_later(back, deliver, None if fate == "reset" else response)

        def deliver(response: Response | None) -> None:
            if not answered.done():
                answered.set_result(response)

        if fate != "lost":
            self._loop.outside(there, arrive)
        if fate == "twice":
            self._loop.outside(there + NETWORK_SECONDS * rng.random(), arrive)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                response = await answered
        except TimeoutError:
            raise UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "no answer") from None
        if response is None:
            raise UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_UNREACHABLE, "reset")
        return response


class Receiver:
    """Where events go (implements `ports.Publisher`). Some are lost on their way, and some of its answers."""

    name = "receiver"
    concurrency = 32

    def __init__(self, loop: Simulation, hear: Callable[[str, int], object]) -> None:
        self._loop = loop
        self._hear = hear

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        """See `Publisher`."""
        rng = self._loop.rng
        await asyncio.sleep(NETWORK_SECONDS * rng.random())
        heard = [event for event in events if rng.random() >= EVENTS_LOST]
        for event in heard:
            self._hear(event.aggregateid, event.sequence)
        await asyncio.sleep(NETWORK_SECONDS * rng.random())
        for event in heard:
            if rng.random() >= EVENTS_LOST:
                told(event, TAKEN)

    async def close(self) -> None: ...


def _rules(*settings: dict[str, Any]) -> list[tuple[type[Rule], RuleSettings]]:
    kinds: dict[str, tuple[type[Rule], type[RuleSettings]]] = {
        "idempotency": (idempotency.Idempotency, idempotency.Settings),
        "tokenize": (tokenize.Tokenize, tokenize.Settings),
        "reveal": (reveal.Reveal, reveal.Settings),
        "lifecycle": (lifecycle.Lifecycle, lifecycle.Settings),
    }
    return [(kinds[each["kind"]][0], kinds[each["kind"]][1].model_validate(each)) for each in settings]


_PAY = _rules(
    {"kind": "idempotency", "required": True, "downstream": "own"},
    {
        "kind": "tokenize",
        "fields": [{"select": "$.card.number", "class": "pan", "required": True}],
        "response": [{"select": "$.issued.number", "class": "pan", "format": "6t4"}],
    },
    {"kind": "lifecycle", "mapping": "rest", "operation": "sale"},
)
_REVEAL = _rules({"kind": "reveal", "fields": [{"select": "$.cards[*].number", "class": "pan", "required": True}]})


@functools.cache
def _place(route: str, upstream: str, *, egress: bool) -> Place:
    """With the life cycles and mappings that are shipped."""
    nowhere = Path("nowhere")
    lifecycles = load_lifecycles(nowhere, {})
    return Place(
        route,
        route,
        1,
        upstream,
        "provider.internal" if egress else "",
        egress=egress,
        identified=True,
        lifecycles={name: each.machine for name, each in lifecycles.items()},
        mappings=load_mappings(nowhere, lifecycles, {}),
    )


@dataclass(frozen=True, slots=True)
class Site:
    """What a gateway finds wherever it is started; `path` names its store. `witness` answers reveals.

    `doubts` says how it finds out what became of a payment; None: it does not. `hear` is told payment and sequence of
    every event that is published; None: none is.
    """

    loop: Simulation
    path: Path
    keys: FileKeys
    provider: Answerer
    witness: Answerer
    fates: Sequence[str] = FATES
    doubts: Doubts | None = None
    hear: Callable[[str, int], object] | None = None
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


class Gateway:
    """One run of the process, from its start on a disk that another has left."""

    def __init__(self, site: Site, disk: Disk) -> None:
        loop = site.loop
        nothing: Any = None
        self.process = Process(loop)
        self.telemetry = Mute()
        clock, writer = Clock(loop), ScheduledWriter(loop, WRITE_SECONDS)
        self.store = open_sqlite(
            str(site.path),
            clock=clock,
            telemetry=self.telemetry,
            vfs=disk.name,
            writer=writer,
            wal_pages_idle=WAL_PAGES_IDLE,
        )
        shared, sad, store = MemoryShared(clock), MemorySad(clock), Announcing(self.store)
        self._ports = Ports(clock, loop.rng.randbytes, store, shared, sad, site.keys, nothing, self.telemetry, nothing)
        self._routes = {
            ROUTE: self._pipeline(ROUTE, _PAY, Wire(loop, site.provider, site.fates), site.doubts),
            "reveal": self._pipeline("reveal", _REVEAL, Wire(loop, site.witness)),
        }
        self._loop = loop
        self._ids = site.ids
        recorded = {name: route for name, route in self._routes.items() if isinstance(route, RecordedPipeline)}
        if recorded:
            self.process.start(Resolver(self._ports, lambda: recorded).run())
        if site.hear is not None:
            relay = Relay(self._ports, [Receiver(loop, site.hear)], attempts=ATTEMPTS_MAX)
            store.wake = relay.wake
            self.process.start(relay.run())

    def _pipeline(
        self,
        route: str,
        rules: Sequence[tuple[type[Rule], RuleSettings]],
        wire: Wire,
        doubts: Doubts | None = None,
    ) -> Pipeline:
        egress = route == "reveal"
        place = _place(route, wire.name, egress=egress)
        placed = [Placed(settings.kind, kind.provision(settings, self._ports, place)) for kind, settings in rules]
        if doubts is not None:
            return RecordedPipeline(placed, wire, self._ports, BodyLimits(), doubts=doubts, rescue=wire)
        return Pipeline(placed, wire, self._ports, BodyLimits(), egress=egress)

    def take(self, route: str, body: bytes, key: str, answer: asyncio.Future[Response]) -> None:
        """A request has arrived; its answer leaves for the network when there is one."""

        async def serve() -> None:
            response = await self._routes[route].run(exchange)
            self._loop.outside(NETWORK_SECONDS * self._loop.rng.random(), give, answer, response)

        exchange = _exchange(f"req-{next(self._ids)}", route, body, key, EPOCH + self._loop.time())
        self.process.start(serve())


def give(answer: asyncio.Future[Response], response: Response | Exception) -> None:
    if answer.done():
        return
    if isinstance(response, Exception):
        answer.set_exception(response)
    else:
        answer.set_result(response)


def _exchange(number: str, route: str, body: bytes, key: str, now: float) -> Exchange:
    """As the listener makes it of a request that has arrived whole."""
    fields = {b"Host": b"api.example", b"Content-Type": b"application/json", b"Idempotency-Key": key.encode()}
    request = Request(
        method="POST",
        target="/v1/payments",
        path="/v1/payments",
        query="",
        headers=tuple(fields.items()),
        fields={name.lower(): value for name, value in fields.items()},
        body=None,
        peer=Peer("192.0.2.7"),
        scheme="https",
        host="api.example",
        received_at=now,
    )
    trace = TraceContext("0" * 31 + "1", "0" * 15 + "2", "00")
    return Exchange(number, route, request, {}, TENANT, trace, sans=(CALLER,), body=body)
