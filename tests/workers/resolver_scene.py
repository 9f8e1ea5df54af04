"""A route that records its calls, a provider that does as it is told, and the resolver between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.sqlite import open_sqlite
from gateway.operations import ListCalls, UnknownCall
from gateway.pipeline import BodyLimits, Placed
from gateway.ports import BodyStream, Header, Outcome, Ports, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.querying import Query, compile_address, compile_conditions, compile_each
from gateway.pure.resolving import Doubts
from gateway.recorded import RecordedPipeline
from gateway.rule import Place
from gateway.rules import idempotency, owner, reveal, tokenize
from gateway.workers.resolver import Resolver
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange

JSON: Header = (b"Content-Type", b"application/json")
CARD = "4242424242424242"
LOST = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "No answer.")
REFUSED = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "No connection.")
IN_FLIGHT_MAX = 60.0
REPLAY = Doubts("replay", IN_FLIGHT_MAX, IN_FLIGHT_MAX, 3600.0)
MANUAL = Doubts("manual", IN_FLIGHT_MAX, IN_FLIGHT_MAX, 3600.0)
QUERY = Doubts(
    "query",
    IN_FLIGHT_MAX,
    IN_FLIGHT_MAX,
    3600.0,
    Query(
        address=compile_address("/v1/payments?reference={$.reference}", ()),
        method="GET",
        each=compile_each("$.payments[*]"),
        done=compile_conditions({"$.status": ["captured"]}),
        not_done=compile_conditions({"$.status": ["failed"]}),
        not_found=frozenset({404}),
        status=201,
    ),
)

Said = Response | UpstreamError


def answer(status: int = 201, body: bytes = b'{"id":"pay_1"}') -> Response:
    return Response(status, [JSON], body)


class Provider:
    """Says what it was told to say, in turn; the last for ever. `unreachable` refuses connections."""

    name = "psp"
    authority = b"psp.example"

    def __init__(self) -> None:
        self.says: list[Said] = [answer()]
        self.got: list[tuple[str, bytes, bytes]] = []
        self.unreachable = False
        self.deadline = math.inf
        self.retries = 0
        self.wait = 0.0

    async def acquire(self, *, safe: bool) -> Provider:
        if self.unreachable:
            raise REFUSED
        return self

    def again(self, tried: int, waited: float) -> float | None:
        return self.wait if tried < self.retries else None

    def release(self) -> None: ...

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        assert isinstance(body, bytes)
        self.got.append((method, head, body))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, UpstreamError):
            raise said
        return Response(said.status, list(said.headers), said.body)


class Scene:
    """One route, `pay`. `policy` are settings of rules, outermost first."""

    def __init__(self, ports: Ports, clock: HandClock) -> None:
        self.ports, self.clock = ports, clock
        self.client, self.provider = Provider(), Provider()
        """The provider as requests reach it, and as the resolver does."""
        self.recorded: dict[str, RecordedPipeline] = {}
        self._ids = itertools.count(1)
        self.resolver = Resolver(ports, lambda: self.recorded)

    def configure(self, doubts: Doubts, *policy: dict[str, Any], egress: bool = False) -> None:
        kinds: dict[str, Any] = {
            module.__name__.rpartition(".")[2]: module for module in (idempotency, owner, tokenize, reveal)
        }
        rules = {"idempotency": "Idempotency", "owner": "Owner", "tokenize": "Tokenize", "reveal": "Reveal"}
        place = Place("pay", "pay", 1, "psp", "psp.example" if egress else "", egress=egress, identified=True)
        placed = []
        for settings in policy or ({"kind": "idempotency", "required": True},):
            module = kinds[settings["kind"]]
            rule = getattr(module, rules[settings["kind"]])
            placed.append(Placed(settings["kind"], rule.provision(module.Settings(**settings), self.ports, place)))
        limits = BodyLimits(4096, 4096)
        self.recorded["pay"] = RecordedPipeline(
            placed, self.client, self.ports, limits, doubts=doubts, rescue=self.provider, egress=egress
        )

    async def send(self, key: str | None = "k1", body: bytes = b'{"reference":"r1"}', **request: Any) -> Response:
        fields = {"Content-Type": "application/json", "Authorization": "Bearer sk_test"}
        if key is not None:
            fields["Idempotency-Key"] = key
        exchange = make_exchange(headers=fields, body=body, **{"subject": "i|alice", **request})
        exchange.id, exchange.route = f"req-{next(self._ids)}", "pay"
        exchange.request.received_at = self.clock.now()
        return await self.recorded["pay"].run(exchange)

    async def look(self, seconds: float = 0.0) -> None:
        """Let the resolver look, so many seconds later."""
        self.clock.advance(seconds)
        await self.resolver.step(self.clock.now())
        await self.resolver.drain()

    async def unknown(self) -> tuple[UnknownCall, ...]:
        asked = ListCalls(None, 10)
        return (await self.ports.store.commit([asked]))[asked].calls

    def resolved(self, how: str, result: str) -> float:
        telemetry: Any = self.ports.telemetry
        return float(telemetry.counts.get((Metric.CALLS_RESOLVED, ("pay", how, result)), 0))


@asynccontextmanager
async def scene(folder: Path, path: str = ":memory:") -> AsyncIterator[Scene]:
    key = folder / "root.key"
    if not key.exists():
        key.write_text(generate_key())
        key.chmod(0o600)
    clock, telemetry = HandClock(), Recorder()
    store = open_sqlite(path, clock=clock, telemetry=telemetry)
    nothing: Any = None
    shared, sad = MemoryShared(clock), MemorySad(clock)
    ports = Ports(clock, CountingEntropy(), store, shared, sad, FileKeys(key), nothing, telemetry, nothing)
    yield Scene(ports, clock)
    await store.close()


def reason(response: Response) -> str:
    """Why the gateway refused; empty for an answer that is not its own."""
    if response.header(b"content-type") != b"application/problem+json":
        return ""
    return str(orjson.loads(response.body)["type"]).rpartition(":")[2]
