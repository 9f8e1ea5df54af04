"""A route over a real store and a bank with a ledger; what the bank answers can be bent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.config.lifecycles import load_lifecycles
from gateway.config.mappings import load_mappings
from gateway.operations import DueEvents, FindPayment, PaymentRef, PaymentRow, SentEvents
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Ports, Response, UpstreamError
from gateway.pure.metrics import Metric
from gateway.rule import Place, Rule
from gateway.rules.lifecycle import Lifecycle, Settings
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange
from tests.faults.bank import Answer, Bank, Entry, Temper

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LIFECYCLES = load_lifecycles(Path("nowhere"), {})
MAPPINGS = load_mappings(Path("nowhere"), LIFECYCLES, {})
PLACE = Place(
    "pay",
    "pay",
    0,
    "psp",
    "",
    egress=False,
    params=frozenset({"id"}),
    lifecycles={name: lifecycle.machine for name, lifecycle in LIFECYCLES.items()},
    mappings=MAPPINGS,
)

Bend = Callable[[Response], Response | UpstreamError]


def answer(status: int, content: Any, media_type: str = JSON) -> Response:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(status, [(b"Content-Type", media_type.encode())], body)


class BankWire:
    """An upstream: a bank with a ledger. `bend` changes what it says; it answers when it may."""

    name = "psp"
    authority = b"psp.internal"

    def __init__(self, temper: Temper, bank: Bank | None = None) -> None:
        self.ledger: list[Entry] = []
        self.bank = bank or Bank(self.ledger.append, temper)
        self.bend: Bend = lambda response: response
        self.unreachable: UpstreamError | None = None
        self.heard = 0
        self.heads: list[bytes] = []
        self.acted = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def acquire(self, *, safe: bool) -> BankWire:
        if self.unreachable is not None:
            raise self.unreachable
        return self

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        self.heard += 1
        self.heads.append(head)
        sent = body if isinstance(body, bytes) else b""
        if sent and not sent.startswith(b"{"):
            said = Answer(415, {"error": "the bank reads no forms"})
        else:
            said = self.bank.handle(method, head.split(b" ", 2)[1].decode(), {}, sent)
        self.acted.set()
        await self.may_answer.wait()
        bent = self.bend(answer(said.status, said.content))
        if isinstance(bent, UpstreamError):
            raise bent
        return bent

    def release(self) -> None: ...

    def moved(self, kind: str) -> int:
        """Minor units of all movements of a kind."""
        return sum(entry.effect.amount for entry in self.ledger if entry.effect.kind == kind)


class PaymentWorld:
    """Routes by operation, and all that they touch."""

    def __init__(self, temper: Temper | None = None) -> None:
        self.clock = HandClock()
        self.telemetry = Recorder()
        self.store: SqliteStore = open_sqlite(":memory:", clock=self.clock, telemetry=self.telemetry)
        self.wire = BankWire(temper or Temper())
        self.rescue = BankWire(Temper(), self.wire.bank)
        """The same bank, for questions."""
        self.place = replace(PLACE, rescue=self.rescue)
        self._requests = itertools.count(1)
        self.last_id = ""
        self.last_kept: dict[str, str] = {}
        """Of the last request: what the rule wants to find again."""
        nothing: Any = None
        entropy = CountingEntropy()
        unused: Any = (nothing,) * 4
        self.ports = Ports(self.clock, entropy, self.store, *unused, self.telemetry, nothing)

    def rule(self, operation: str, **settings: Any) -> Lifecycle:
        read = Settings.model_validate(
            {"kind": "lifecycle", "operation": operation, **({"mapping": "rest"} if not settings else {}), **settings}
        )
        return Lifecycle.provision(read, self.ports, self.place)

    def stripe(self, operation: str, **settings: Any) -> Lifecycle:
        return self.rule(operation, mapping="stripe", **settings)

    async def ask(
        self,
        operation: str,
        content: Any = None,
        payment: str = "",
        *,
        rule: Rule | None = None,
        before: tuple[Rule, ...] = (),
        media_type: str = JSON,
        method: str = "POST",
        query: str = "",
        tenant: str = "default",
        limits: BodyLimits | None = None,
    ) -> Response:
        """One request: `content` is its body, JSON unless it is bytes."""
        path = f"/v1/payments/{payment}/{operation}" if payment else "/v1/payments"
        body = content if isinstance(content, bytes) else b"" if content is None else orjson.dumps(content)
        x = make_exchange(
            method,
            path + query,
            {"Content-Type": media_type} if body else {},
            body,
            id=f"req-{next(self._requests)}",
            route="pay",
            params={"id": payment} if payment else {},
            tenant=tenant,
        )
        self.last_id, self.last_kept = x.id, x.kept
        rules = (*before, rule or self.rule(operation))
        placed = [Placed("test", each) for each in rules]
        return await Pipeline(placed, self.wire, self.ports, limits or BodyLimits()).run(x)

    def made_elsewhere(self, amount: int = 100, captured: int = 0) -> str:
        """The id of a payment that was not made through the gateway."""
        asked = {"amount": amount, "currency": "EUR"}
        payment = str(self.wire.bank.handle("POST", "/v1/payments", {}, orjson.dumps(asked)).content["id"])
        if captured:
            body = orjson.dumps({"amount": captured})
            self.wire.bank.handle("POST", f"/v1/payments/{payment}/capture", {}, body)
        return payment

    async def authorized(self, amount: int = 100, currency: str = "EUR") -> str:
        """The provider's id of a new payment."""
        response = await self.ask("authorize", {"amount": amount, "currency": currency})
        assert response.status == 201
        return str(orjson.loads(response.body)["id"])

    async def captured(self, amount: int = 100) -> str:
        payment = await self.authorized(amount)
        assert (await self.ask("capture", {"amount": amount}, payment)).status == 200
        return payment

    async def known(self, alias: str, tenant: str = "default") -> PaymentRow:
        find = FindPayment(tenant, LIFECYCLES["card"].machine, PaymentRef("psp", alias))
        return (await self.store.commit([find]))[find]

    async def amounts(self, alias: str) -> tuple[int, ...]:
        """Authorised, captured, voided, refunded, disputed."""
        row = await self.known(alias)
        assert row.record is not None
        return tuple(row.record.amounts)

    async def events(self) -> list[str]:
        """The types of all that waits to be published, first of each payment."""
        due = DueEvents(self.clock.now(), 1000, 0)
        rows = await self.store.commit([due])
        return [event.type for event in rows[due].events]

    async def publish(self) -> None:
        """All that is due is sent."""
        due = DueEvents(self.clock.now(), 1000, 0)
        rows = await self.store.commit([due])
        await self.store.commit([SentEvents(tuple((e.tenant, e.id) for e in rows[due].events), self.clock.now())])

    def counted(self, operation: str, result: str) -> float:
        return self.telemetry.counts.get((Metric.PAYMENT_COMMANDS, (operation, result)), 0)


def problem(response: Response) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(response.body)
    return read


def reason(response: Response) -> str:
    return str(problem(response)["type"]).rpartition(":")[2]
