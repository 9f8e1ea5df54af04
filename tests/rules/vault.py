"""A route over a real vault: SQLite in memory, codes in memory, keys from a file that was made for the test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.exchange import Exchange
from gateway.operations import Operation, Row, Rows
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Ports, Response, Unavailable, UpstreamError
from gateway.pure.metrics import Metric
from gateway.pure.routing import parameters
from gateway.pure.token_formats import FORMATS
from gateway.rule import Place, Rule
from gateway.rules import redact, reveal, tokenize
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
ALL_FORMATS = ["opaque", *FORMATS]
EGRESS = Place("stripe", "stripe-out", 1, "stripe", "stripe.internal", egress=True, identified=True)


class Wire:
    """An upstream whose answer a test sets; remembers the bodies that were sent."""

    name = "stripe"
    authority = b"stripe.internal"
    deadline = math.inf

    def __init__(self) -> None:
        self.answer: Response | UpstreamError = Response(200, [(b"Content-Type", b"application/json")], b"{}")
        self.sent: list[bytes] = []
        self.heads: list[bytes] = []

    async def acquire(self, *, safe: bool) -> Wire:
        return self

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        if isinstance(self.answer, UpstreamError):
            raise self.answer
        self.sent.append(body if isinstance(body, bytes) else b"".join([piece async for piece in body]))
        self.heads.append(head)
        return Response(self.answer.status, list(self.answer.headers), self.answer.body)

    def again(self, tried: int, waited: float) -> None: ...
    def release(self) -> None: ...


class TappedStore:
    """The store, and what was committed to it. Not available while `down`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.down = False
        self.committed: list[Operation[Row]] = []

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        if self.down:
            raise Unavailable("store")
        rows = await self._store.commit(unit)
        if rows.refused is None:
            self.committed += unit
        return rows

    async def close(self) -> None:
        await self._store.close()

    def of(self, kind: type[Any]) -> list[Any]:
        return [operation for operation in self.committed if isinstance(operation, kind)]


class SwitchedSad(MemorySad):
    """Codes in memory; not available while `down`, and `deaf` to its own answer where it leases."""

    down = False
    deaf = False

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        if self.down:
            raise Unavailable("sad")
        await super().put(tenant, token, value, seconds)

    async def lease(self, tenant: str, token: str, exchange: str) -> bytes | None:
        if self.down:
            raise Unavailable("sad")
        code = await super().lease(tenant, token, exchange)
        if self.deaf:
            raise Unavailable("sad")
        return code


class World:
    """One route, and all that it touches."""

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()
        self.telemetry = Recorder()
        self.entropy: Any = CountingEntropy()
        self.store = TappedStore(open_sqlite(":memory:", clock=self.clock, telemetry=self.telemetry))
        self.sad = SwitchedSad(self.clock)
        self.wire = Wire()
        key = directory / "vault.key"
        if not key.exists():
            key.touch(0o600)
            key.write_text(generate_key())
        self.keys = FileKeys(key)
        self.exchange: Exchange
        self._requests = 0

    @property
    def ports(self) -> Ports:
        nothing: Any = None
        shared = MemoryShared(self.clock)
        return Ports(
            clock=self.clock,
            entropy=lambda n: self.entropy(n),
            store=self.store,
            shared=shared,
            sad=self.sad,
            keys=self.keys,
            key_sets=nothing,
            telemetry=self.telemetry,
            files=nothing,
        )

    def tokenize(self, *fields: dict[str, Any], **settings: Any) -> Rule:
        read = tokenize.Settings.model_validate({"kind": "tokenize", "fields": fields, **settings})
        return tokenize.Tokenize.provision(read, self.ports, EGRESS)

    def reveal(self, *fields: dict[str, Any], **settings: Any) -> Rule:
        read = reveal.Settings.model_validate({"kind": "reveal", "fields": fields, **settings})
        return reveal.Reveal.provision(read, self.ports, EGRESS)

    async def call(
        self,
        rules: Rule | Sequence[Rule],
        body: bytes | dict[str, Any],
        media_type: str = JSON,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        tenant: str = "default",
        **slots: Any,
    ) -> Response:
        """One request through the rules. A dict is sent as JSON; `template` is the path of the route."""
        self._requests += 1
        sent = orjson.dumps(body) if isinstance(body, dict) else body
        template = slots.pop("template", "")
        self.exchange = make_exchange(
            method=method,
            headers={"Content-Type": media_type, **(headers or {})},
            body=sent,
            id=f"req-{self._requests}",
            tenant=tenant,
            segments=parameters(template),
            **{"sans": ("spiffe://shop.example/checkout",), **slots},
        )
        placed = [Placed("vault", rule) for rule in ([rules] if isinstance(rules, Rule) else rules)]
        return await Pipeline(placed, self.wire, self.ports, BodyLimits()).run(self.exchange)

    def redact(self, *fields: dict[str, Any], **settings: Any) -> Rule:
        read = redact.Settings.model_validate({"kind": "redact", "fields": fields, **settings})
        return redact.Redact.provision(read, self.ports, EGRESS)

    def sent_target(self) -> str:
        """Of the last request."""
        return self.wire.heads[-1].split(b" ")[1].decode()

    def sent_field(self, name: str) -> str:
        """The value of a field of the last request, once there."""
        start = f"{name}: ".encode()
        (line,) = (line for line in self.wire.heads[-1].split(b"\r\n") if line.startswith(start))
        return line.removeprefix(start).decode()

    async def token(self, value: str, token_format: str = "opaque", tenant: str = "default") -> str:
        """The token that a tokenizing route gives for a card number."""
        rule = self.tokenize({"select": "$.n", "class": "pan", "format": token_format})
        return str((await self.sent_by(rule, {"n": value}, tenant))["n"])

    async def code(self, value: str, tenant: str = "default") -> str:
        """The token that a tokenizing route gives for a security code."""
        rule = self.tokenize({"select": "$.c", "class": "cvc"})
        return str((await self.sent_by(rule, {"c": value}, tenant))["c"])

    async def sent_by(self, rule: Rule, body: dict[str, Any], tenant: str = "default") -> Any:
        await self.call(rule, body, tenant=tenant)
        return orjson.loads(self.wire.sent.pop())

    @property
    def kept_codes(self) -> int:
        return len(self.sad._codes._entries)

    def count(self, metric: Metric, *labels: str) -> float:
        return self.telemetry.counts.get((metric, labels), 0)


def reason(response: Response) -> str:
    return str(orjson.loads(response.body)["type"]).rpartition(":")[2]


def answer(status: int, body: Any, media_type: str = JSON) -> Response:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, [(b"Content-Type", media_type.encode())], sent)
