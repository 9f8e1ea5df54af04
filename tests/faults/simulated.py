"""A life in the simulation: clients pay with idempotency keys, the gateway dies again and again, then all is counted.

What runs is the product: `Pipeline`, `idempotency`, `tokenize`, `reveal`, `SqliteStore` and SQLite itself, on a disk in
memory. What surrounds it is made up, from one seed: clients that never give up, a network that loses, delays, repeats
and resets, a provider that moves money, kills at any step or in the midst of a commit, power losses.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.adapters.keys import FileKeys
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.exchange import Exchange, Peer, Request
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Outcome, Ports, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.replay import decode, scope
from gateway.pure.trace import TraceContext
from gateway.rule import Place, Rule, RuleSettings
from gateway.rules import idempotency, reveal, tokenize
from tests.faults.bank import Bank, Entry, Lie, Temper, bend
from tests.faults.disk import Disk, File
from tests.faults.ledger import Ledger, card
from tests.faults.oracle import Call, Harm, Movement, conservation, first_answer_counts, linearizable
from tests.faults.simulation import Process, ScheduledWriter, Simulation, SimulationError

TENANT, ROUTE, CALLER = "faults", "pay", "spiffe://shop.example/checkout"
FATES = ("lost", "late", "silent", "reset", "refused", *["fine"] * 9)
"""What becomes of a request on its way to the provider and back."""
EPOCH = 1_800_000_000.0
CARDS = 200
WRITE_SECONDS = 0.002
NETWORK_SECONDS = 0.005
PATIENCE_SECONDS = 0.4
"""How long the gateway waits for the provider, and a client for the gateway."""
AWAY_SECONDS = 0.05
DOUBT_ASKED_AGAIN = 3
STEPS_BETWEEN_CRASHES = 150
WRITES_INTO_A_COMMIT = 30


@dataclass(frozen=True, slots=True)
class Plan:
    """What a life is made of. `spoil` sees each store that was opened: a control breaks it there."""

    crashes: int = 10
    clients: int = 6
    temper: Temper = Temper(guards=False, lies={Lie.FAILED: 0.05})  # noqa: RUF009 - frozen
    power: float = 0.3
    """The share of crashes that are losses of power; the others are kills."""
    honest_disk: bool = True
    spoil: Callable[[SqliteStore, Simulation], None] = lambda store, loop: None


@dataclass(frozen=True, slots=True)
class Found:
    """What a life came to."""

    crashes: int
    payments: int
    effects: int
    tokens: int
    steps: int
    harm: tuple[Harm, ...]
    digest: str


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

    def log(self, event: str, **fields: object) -> None:
        if event.endswith("_crashed"):
            self.crashed.append(f"{event} {fields.get('where')}")


class Wire:
    """The way to the provider and back (implements `ports.Upstream` and `ports.Connection`)."""

    name = "provider"
    authority = b"provider.internal"

    def __init__(
        self, loop: Simulation, answer: Callable[[str, bytes, bytes], Response], fates: Sequence[str] = ("fine",)
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._fates = fates

    async def acquire(self, *, safe: bool) -> Wire:
        if self._loop.rng.choice(self._fates) == "refused":
            raise UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "refused")
        return self

    def release(self) -> None: ...

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


def _rules(*settings: dict[str, Any]) -> list[tuple[type[Rule], RuleSettings]]:
    kinds: dict[str, tuple[type[Rule], type[RuleSettings]]] = {
        "idempotency": (idempotency.Idempotency, idempotency.Settings),
        "tokenize": (tokenize.Tokenize, tokenize.Settings),
        "reveal": (reveal.Reveal, reveal.Settings),
    }
    return [(kinds[each["kind"]][0], kinds[each["kind"]][1].model_validate(each)) for each in settings]


_PAY = _rules(
    {"kind": "idempotency", "required": True},
    {
        "kind": "tokenize",
        "fields": [{"select": "$.card.number", "class": "pan", "required": True}],
        "response": [{"select": "$.issued.number", "class": "pan", "format": "6t4"}],
    },
)
_REVEAL = _rules({"kind": "reveal", "fields": [{"select": "$.cards[*].number", "class": "pan", "required": True}]})


class Gateway:
    """One run of the process, from its start on a disk that another has left."""

    def __init__(self, life: Life) -> None:
        loop = life.loop
        self.process = Process(loop)
        self.telemetry = Mute()
        clock, nothing = Clock(loop), _nothing()
        writer = ScheduledWriter(loop, WRITE_SECONDS)
        self.store = open_sqlite(
            str(life.path), clock=clock, telemetry=self.telemetry, vfs=life.disk.name, writer=writer
        )
        life.plan.spoil(self.store, loop)
        shared, sad = MemoryShared(clock), MemorySad(clock)
        self._ports = Ports(clock, loop.rng.randbytes, self.store, shared, sad, life.keys, nothing, self.telemetry)
        twice = ("twice",) if life.plan.temper.honours_keys else ()
        self._routes = {
            ROUTE: self._pipeline(ROUTE, _PAY, Wire(loop, life.provide, FATES + twice)),
            "reveal": self._pipeline("reveal", _REVEAL, Wire(loop, life.witness)),
        }
        self._loop = loop
        self._ids = life.ids

    def _pipeline(self, route: str, rules: Sequence[tuple[type[Rule], RuleSettings]], wire: Wire) -> Pipeline:
        egress = route == "reveal"
        place = Place(route, route, 1, wire.name, "provider.internal" if egress else "", egress)
        placed = [Placed(settings.kind, kind.provision(settings, self._ports, place)) for kind, settings in rules]
        return Pipeline(route, placed, wire, self._ports, BodyLimits(), egress=egress)

    def take(self, route: str, body: bytes, key: str, answer: asyncio.Future[Response]) -> None:
        """A request has arrived; its answer leaves for the network when there is one."""

        async def serve() -> None:
            response = await self._routes[route].run(exchange)
            self._loop.outside(NETWORK_SECONDS * self._loop.rng.random(), _give, answer, response)

        exchange = _exchange(f"req-{next(self._ids)}", route, body, key, EPOCH + self._loop.time())
        self.process.start(serve())


def _nothing() -> Any:
    return None


def _give(answer: asyncio.Future[Response], response: Response | Exception) -> None:
    if answer.done():
        return
    if isinstance(response, Exception):
        answer.set_exception(response)
    else:
        answer.set_result(response)


def _exchange(number: str, route: str, body: bytes, key: str, now: float) -> Exchange:
    """As the listener makes it of a request that has arrived whole."""
    fields = {"Host": "api.example", "Content-Type": "application/json", "Idempotency-Key": key}
    request = Request(
        method="POST",
        target="/v1/payments",
        path="/v1/payments",
        query="",
        headers=CIMultiDictProxy(CIMultiDict(fields)),
        raw_headers=tuple((name.encode(), value.encode()) for name, value in fields.items()),
        body=None,
        peer=Peer("192.0.2.7"),
        scheme="https",
        host="api.example",
        received_at=now,
    )
    trace = TraceContext("0" * 31 + "1", "0" * 15 + "2", "00")
    return Exchange(number, route, request, {}, TENANT, trace, sans=(CALLER,), body=body)


class Life:
    """One seed, from the first start to the last count. `path` names the store; a file stays empty there."""

    def __init__(
        self, plan: Plan, seed: int, keys: FileKeys, path: Path, trace: Callable[[str], object] | None = None
    ) -> None:
        self.plan = plan
        self.keys = keys
        self.path = path
        self.loop = Simulation(seed, trace)  # type: ignore[abstract]
        self.ids = itertools.count(1)
        self._disks = itertools.count(1)
        self.disk = self._insert({})
        self._bank = Bank(self._happened, plan.temper)
        self._happenings: list[Entry] = []
        self._told: dict[str, Movement] = {}
        self._calls: dict[str, list[Call]] = {}
        self._harm: list[Harm] = []
        self._tokens = Ledger()
        self._gateway: Gateway | None = None
        self._open: dict[asyncio.Future[Response], None] = {}
        self._crashes = 0
        self._crash_at = 0

    def run(self) -> Found:
        """Live it. Whatever goes wrong is a harm, also that it could not be lived to its end."""
        try:
            self.loop.run(self._live())
        except SimulationError as error:
            self._harm.append(Harm("ended", "", str(error)))
        except apsw.Error as error:
            self._harm.append(Harm("damaged", "", str(error)))
        finally:
            self.disk.remove()
        payments, effects = len(self._calls), len(self._happenings)
        tokens = len(self._tokens.tokens)
        found = (self._crashes, payments, effects, tokens, self.loop.steps)
        return Found(*found, tuple(self._harm), self.loop.digest())

    async def _live(self) -> None:
        self._start()
        clients = [self.loop.create_task(self._client(n)) for n in range(self.plan.clients)]
        for client in clients:
            await client
        await asyncio.sleep(4 * PATIENCE_SECONDS)  # what was late has arrived
        self.loop.after_step = lambda: None
        await asyncio.sleep(AWAY_SECONDS)  # whoever is away is back
        await self._count()

    # --- dying

    def _insert(self, files: dict[str, File]) -> Disk:
        return Disk(f"{id(self)}-{next(self._disks)}", files, honest=self.plan.honest_disk)

    def _start(self) -> None:
        """Start a gateway, and decide when it ends."""
        rng, more = self.loop.rng, self._crashes < self.plan.crashes and not self._harm
        self.loop.after_step = lambda: None
        if more and rng.random() < 0.5:
            self.disk.fuse(1 + int(rng.random() * WRITES_INTO_A_COMMIT))
        self._crash_at = self.loop.steps + int(rng.random() * STEPS_BETWEEN_CRASHES)
        self._gateway = Gateway(self)
        self.loop.note(f"gateway starts on {sum(len(file.content) for file in self.disk.files.values())} bytes")
        if more:
            self.loop.after_step = self._maybe_crash
            self._maybe_crash()

    def _maybe_crash(self) -> None:
        if self.disk.blown or self.loop.steps >= self._crash_at:
            self._crash()

    def _crash(self) -> None:
        """What was in memory is gone, connections are reset, and the disk holds what it holds."""
        assert self._gateway is not None
        loop = self.loop
        loop.after_step = lambda: None
        self._gateway.process.kill()
        self._harm += [Harm("crashed", "", line) for line in self._gateway.telemetry.crashed]
        self._gateway = None
        self._crashes += 1
        power = loop.rng.random() < self.plan.power
        loop.note(f"{'power loss' if power else 'kill'} {'in the midst of a commit' if self.disk.blown else ''}")
        files = self.disk.after_power_loss(loop.rng) if power else self.disk.after_kill()
        self.disk.remove()
        self.disk = self._insert(files)
        for answer in self._open:
            loop.outside(NETWORK_SECONDS * loop.rng.random(), _give, answer, ConnectionResetError())
        loop.outside(AWAY_SECONDS * loop.rng.random(), self._start)

    # --- the provider

    def provide(self, method: str, head: bytes, body: bytes) -> Response:
        """A request reaches the provider."""
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = json.loads(body)
        self._tokens.received("shop", content["card"]["number"], content["order"])
        answer = bend(self._bank.handle(method, first.split(" ")[1], fields, body), self._lie())
        if answer.status == 201:
            named = {"card": content["card"], "issued": {"number": _CARDS[content["issue"]]}}
            return _response(201, {**answer.content, **named})
        return _response(answer.status, answer.content)

    def _lie(self) -> Lie | None:
        return self.plan.temper.lie(self.loop.rng)

    def _happened(self, entry: Entry) -> None:
        self.loop.note(f"effect {entry.effect}")
        self._happenings.append(entry)

    def witness(self, method: str, head: bytes, body: bytes) -> Response:
        """Who is sent clear numbers says what it got."""
        return _response(200, {"numbers": [each["number"] for each in json.loads(body)["cards"]]})

    # --- clients

    async def _client(self, number: int) -> None:
        for turn in itertools.count():
            if self._crashes >= self.plan.crashes or self._harm:
                return
            await self._pay(f"client-{number}-{turn}")

    async def _pay(self, reference: str) -> None:
        """Ask until there is an answer, and then perhaps once more: what was said must be said again."""
        rng = self.loop.rng
        order, issue, amount = int(rng.random() * CARDS), int(rng.random() * CARDS), 1 + int(rng.random() * 10_000)
        content = {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}
        content |= {"order": order, "issue": issue, "card": {"number": _CARDS[order]}}
        body, calls = json.dumps(content).encode(), self._calls.setdefault(reference, [])
        left, doubts = rng.choice((1, 1, 2, 3)), DOUBT_ASKED_AGAIN
        while left and doubts and not self._harm:
            began = self.loop.time()
            try:
                response = await self._ask(ROUTE, body, reference)
            except (OSError, TimeoutError):
                calls.append(Call(began, reference))
            else:
                self.loop.note(f"{reference} is answered {response.status} {_digest(response)}")
                if response.status == 201:
                    left -= 1
                    calls.append(Call(began, reference, _digest(response), self.loop.time()))
                    self._heard(reference, order, issue, json.loads(response.body))
                elif self._turned_away(reference, response):
                    doubts -= 1
            await asyncio.sleep(NETWORK_SECONDS * 4 * rng.random())

    def _heard(self, reference: str, order: int, issue: int, content: Any) -> None:
        self._told[reference] = _movement(content)
        self._tokens.received("client", content["card"]["number"], order)
        self._tokens.received("client", content["issued"]["number"], issue)

    def _turned_away(self, reference: str, response: Response) -> bool:
        """Whether the answer was that nobody knows. After a true answer there is no other."""
        reason = json.loads(response.body).get("type", "").rpartition(":")[2]
        if reference in self._told and reason not in _NOT_ASKED:
            self._harm.append(Harm("forgotten", reference, f"answered before, and now {reason}"))
        if response.status < 500 and reason not in _FOR_NOW:
            self._harm.append(Harm("refused", reference, reason))
        return bool(reason == Reason.OUTCOME_UNKNOWN.label)

    async def _ask(self, route: str, body: bytes, key: str) -> Response:
        """One request over the network. Raises OSError and TimeoutError; then nobody knows."""
        loop = self.loop
        await asyncio.sleep(NETWORK_SECONDS * loop.rng.random())
        gateway = self._gateway
        if gateway is None:
            raise ConnectionRefusedError
        answer: asyncio.Future[Response] = loop.create_future()
        self._open[answer] = None
        gateway.take(route, body, key, answer)
        try:
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                return await answer
        finally:
            del self._open[answer]

    # --- counting

    async def _count(self) -> None:
        """Ask the last gateway for every token, then compare the three accounts of every payment."""
        assert self._gateway is not None
        tokens = self._tokens.tokens
        response = await self._ask("reveal", json.dumps({"cards": [{"number": t} for t in tokens]}).encode(), "")
        if response.status == 200:
            for token, number in zip(tokens, json.loads(response.body)["numbers"], strict=True):
                self._tokens.revealed(token, number)
        elif tokens:
            self._harm.append(Harm("lost", "", f"tokens: the reveal was answered {response.status}"))
        self._harm += [Harm("wrong", "", f"token {token}") for token in sorted(self._tokens.wrong)]
        happened = [(entry.effect.reference, _moved(entry)) for entry in self._happenings]
        self._harm += conservation(happened, self._told, self._held(), doubt=True)
        for reference, calls in self._calls.items():
            if not linearizable(calls, None, first_answer_counts):
                self._harm.append(Harm("unstable", reference, "one key, two answers"))
        db = self._gateway.store._db
        if db.pragma("integrity_check") != "ok":
            self._harm.append(Harm("damaged", "", "the file"))

    def _held(self) -> dict[str, Movement | None]:
        """What the store says of each key."""
        assert self._gateway is not None
        secret = self.keys.mac(TENANT, "replay")
        by_scope = {scope(secret, CALLER, ROUTE, reference): reference for reference in self._calls}
        held: dict[str, Movement | None] = {}
        for each, state, sealed in self._gateway.store._db.execute("SELECT scope, state, response FROM keys"):
            movement = None
            if state == "done":
                kept = decode(self.keys.open(TENANT, "replay", sealed, each))
                content = json.loads(kept.body or b"{}")
                movement = _movement(content) if kept.status == 201 else Movement("", f"{kept.status}", 0, "")
            held[by_scope[each]] = movement
        return held


_CARDS = [card(n) for n in range(CARDS)]
_NOT_ASKED = {Reason.STORE_UNAVAILABLE.label, Reason.UPSTREAM_UNREACHABLE.label}
"""The connection is taken before the store is asked: not even a replay is answered without one."""
_FOR_NOW = {Reason.IDEMPOTENCY_KEY_IN_USE.label, Reason.OUTCOME_UNKNOWN.label}


def _response(status: int, content: Any) -> Response:
    return Response(status, [(b"Content-Type", b"application/json")], json.dumps(content).encode())


def _digest(response: Response) -> str:
    return hashlib.sha256(response.body).hexdigest()[:16]


def _movement(content: Any) -> Movement:
    return Movement(content["id"], "charge", content["amount"], content["currency"])


def _moved(entry: Entry) -> Movement:
    effect = entry.effect
    return Movement(effect.payment, effect.kind, effect.amount, effect.currency)
