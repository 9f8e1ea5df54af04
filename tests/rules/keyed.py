"""One route with an idempotency rule, in a real pipeline over a real store, and a provider that does as it is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.sqlite import open_sqlite
from gateway.exchange import Edit, Exchange
from gateway.operations import Candidate, PutToken, Row
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Header, Outcome, Ports, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Place, Rule, Stage, Verdict
from gateway.rules.idempotency import Idempotency, Settings
from tests.conftest import Body, CountingEntropy, HandClock, Recorder, make_exchange

JSON: Header = (b"Content-Type", b"application/json")
CARD = b"4242424242424242"


class Provider:
    """An upstream that does as it is told, and remembers how often it acted."""

    name = "payments"
    authority = b"payments.internal"

    def __init__(self) -> None:
        self.bodies: list[bytes | BodyStream] = []
        self.heads: list[bytes] = []
        self.unreachable = False
        self.fails: UpstreamError | None = None
        self.status = 201
        self.headers: list[Header] = [JSON]
        self.body = b'{"id":"pay_1"}'
        self.stream: Body | None = None
        self.given_back = asyncio.Semaphore(0)
        """Grows with each connection that comes back."""
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def acquire(self, *, safe: bool) -> Lease:
        if self.unreachable:
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "No connection.")
        return Lease(self)

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        self.bodies.append(body)
        self.heads.append(head)
        self.asked.set()
        await self.may_answer.wait()
        if self.fails is not None:
            raise self.fails
        return Response(self.status, list(self.headers), self.body, self.stream)

    @property
    def acted(self) -> int:
        return len(self.bodies)


class Lease:
    """A connection; given back once, however often that is said."""

    def __init__(self, provider: Provider) -> None:
        self._provider: Provider | None = provider

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        assert self._provider is not None, "it was given back"
        return await self._provider.send(method, head, body)

    def release(self) -> None:
        if self._provider is not None:
            self._provider.given_back.release()
            self._provider = None


class Inner(Rule):
    """A rule inside of REPLAY, as tokenize is one."""

    stage = Stage.PROTECT
    prepared: Verdict = PASS
    answered: Verdict = PASS

    async def on_request(self, exchange: Exchange) -> Verdict:
        if self.prepared is not PASS:
            exchange.unit.append(a_token(b"x"))
        return PASS

    async def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:
        return self.prepared

    async def on_response(self, exchange: Exchange) -> Verdict:
        assert exchange.response is not None
        start = exchange.response.body.find(CARD)
        if start >= 0:
            token = a_token(CARD)
            exchange.settlement.append(token)
            spell = lambda rows: rows[token].token.encode()  # noqa: E731
            exchange.response_edits.append(Edit(start, start + len(CARD), spell))
        return self.answered


class Outer(Rule):
    """A rule outside of REPLAY, which may refuse on the way back."""

    stage = Stage.ADMIT
    answered: Verdict = PASS

    async def on_response(self, exchange: Exchange) -> Verdict:
        assert exchange.response is not None
        exchange.response.headers.append((b"RateLimit", b'"a";r=1;t=1'))
        return self.answered


def a_token(value: bytes) -> PutToken:
    return PutToken("default", "pan", "opaque", None, lambda n: Candidate(f"tok_{n}", b"sealed"), 0.0)


class Gateway:
    """One route with an idempotency rule."""

    def __init__(self, ports: Ports, **settings: Any) -> None:
        self.provider, self.inner, self.outer = Provider(), Inner(), Outer()
        self.ports = ports
        self._ids = itertools.count(1)
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        place = Place("create-payment", "p", 1, "payments", "", egress=False)
        rule = Idempotency.provision(Settings.model_validate({"kind": "idempotency", **settings}), self.ports, place)
        placed = [Placed("outer", self.outer), Placed("idempotency", rule), Placed("inner", self.inner)]
        self.pipeline = Pipeline(placed, self.provider, self.ports, BodyLimits(1024, 64))

    async def send(self, key: str | None = "k1", body: bytes = b'{"amount":1}', **request: Any) -> Response:
        fields = {"Content-Type": "application/json", **request.pop("headers", {})}
        if key is not None:
            fields["Idempotency-Key"] = key
        exchange = make_exchange(headers=fields, body=body, **{"subject": "i|alice", **request})
        exchange.id = f"req-{next(self._ids)}"
        return await self.pipeline.run(exchange)

    def counted(self) -> dict[str, float]:
        counts = self.ports.telemetry.counts  # type: ignore[attr-defined]
        return {labels[0]: n for (metric, labels), n in counts.items() if metric is Metric.IDEMPOTENCY}


@asynccontextmanager
async def gateway_of(folder: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Gateway]:
    """With a store in memory."""
    (folder / "root.key").write_text(generate_key())
    (folder / "root.key").chmod(0o600)
    store = open_sqlite(":memory:", clock=clock, telemetry=telemetry)
    nothing: Any = None
    keys = FileKeys(folder / "root.key")
    yield Gateway(Ports(clock, CountingEntropy(), store, nothing, nothing, keys, nothing, telemetry, nothing))
    await store.close()


def reason(response: Response) -> str:
    """Why the gateway refused; empty for an answer that is not its own."""
    if response.header(b"content-type") != b"application/problem+json":
        return ""
    return str(orjson.loads(response.body)["type"]).rpartition(":")[2]


def replayed(response: Response) -> bool:
    return response.header(b"idempotent-replayed") == b"true"
