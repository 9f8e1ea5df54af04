"""A life in the simulation: clients pay with idempotency keys, the gateway dies again and again, then all is counted.

What surrounds the gateway is made up, from one seed: clients that never give up, a network that loses, delays, repeats
and resets, a provider that moves money, kills at any step or in the midst of a commit, losses of power.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from gateway.adapters.keys import FileKeys
from gateway.adapters.sqlite import SqliteStore
from gateway.ports import Response
from gateway.pure.errors import Reason
from gateway.pure.resolving import Doubts
from tests.faults.accounts import books, held, moved, told, written
from tests.faults.bank import Bank, Entry, Lie, Temper, bend
from tests.faults.disk import Disk, File
from tests.faults.ledger import Ledger, card
from tests.faults.machine import (
    CALLER,
    FATES,
    NETWORK_SECONDS,
    PATIENCE_SECONDS,
    ROUTE,
    TENANT,
    Gateway,
    Site,
    give,
)
from tests.faults.oracle import (
    Call,
    Harm,
    Movement,
    balanced,
    conservation,
    delivered,
    first_answer_counts,
    linearizable,
)  # fmt: skip
from tests.faults.simulation import Simulation, SimulationError

AWAY_SECONDS = 0.05
DOUBT_ASKED_AGAIN = 3
EVENTS_PATIENCE = 600
"""Seconds that events may take to leave, once nobody dies any more."""
STEPS_BETWEEN_CRASHES = 150
WRITES_INTO_A_COMMIT = 30
CARDS = [card(n) for n in range(200)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a life is made of. `spoil` sees each store that was opened: a control breaks it there."""

    crashes: int = 10
    clients: tuple[int, ...] = (1, 2, 6)
    """How many, one of these: alone, a client meets what others would have covered up."""
    temper: Temper = Temper(guards=False, lies={Lie.FAILED: 0.05})  # noqa: RUF009 - frozen
    power: float = 0.4
    """The share of crashes that are losses of power; the others are kills."""
    honest_disk: bool = True
    doubts: Doubts | None = None
    """How the gateway finds out what became of a payment. With it, every client asks until it is told."""
    publishes: bool = False
    """With a relay. It takes steps of its own, and so leaves fewer to payments between two crashes."""
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


class Life:
    """One seed, from the first start to the last count. `path` names the store; a file stays empty there."""

    def __init__(
        self, plan: Plan, seed: int, keys: FileKeys, path: Path, trace: Callable[[str], object] | None = None
    ) -> None:
        self._plan = plan
        self._loop = Simulation(seed, trace)  # type: ignore[abstract]
        hear = self._hear if plan.publishes else None
        fates = (*FATES, "twice") if plan.temper.honours_keys else FATES
        self._site = Site(self._loop, path, keys, self._provide, self._witness, fates, plan.doubts, hear)
        self._disks = itertools.count(1)
        self._disk = self._insert({})
        self._bank = Bank(self._happened, plan.temper)
        self._happenings: list[Entry] = []
        self._told: dict[str, Movement] = {}
        self._calls: dict[str, list[Call]] = {}
        self._harm: list[Harm] = []
        self._events: list[tuple[str, int]] = []
        self._tokens = Ledger()
        self._gateway: Gateway | None = None
        self._open: dict[asyncio.Future[Response], None] = {}
        self._crashes = 0
        self._crash_at = 0

    def run(self) -> Found:
        """Live it. Whatever goes wrong is a harm, also that it could not be lived to its end."""
        try:
            self._loop.run(self._live())
        except SimulationError as error:
            self._harm.append(Harm("ended", "", str(error)))
        except apsw.Error as error:
            self._harm.append(Harm("damaged", "", str(error)))
        finally:
            self._disk.remove()
        payments, effects = len(self._calls), len(self._happenings)
        tokens = len(self._tokens.tokens)
        found = (self._crashes, payments, effects, tokens, self._loop.steps)
        return Found(*found, tuple(self._harm), self._loop.digest())

    async def _live(self) -> None:
        self._start()
        clients = [self._loop.create_task(self._client(n)) for n in range(self._loop.rng.choice(self._plan.clients))]
        for client in clients:
            await client
        await asyncio.sleep(4 * PATIENCE_SECONDS)  # what was late has arrived
        self._loop.after_step = lambda: None
        await asyncio.sleep(AWAY_SECONDS)  # whoever is away is back
        if self._plan.publishes:
            await self._until_published()
        await self._count()

    # --- dying

    def _insert(self, files: dict[str, File]) -> Disk:
        return Disk(f"{id(self)}-{next(self._disks)}", files, honest=self._plan.honest_disk)

    def _start(self) -> None:
        """Start a gateway, and decide when it ends."""
        rng, more = self._loop.rng, self._crashes < self._plan.crashes and not self._harm
        self._loop.after_step = lambda: None
        if more and rng.random() < 0.5:
            self._disk.fuse(1 + int(rng.random() * WRITES_INTO_A_COMMIT))
        self._crash_at = self._loop.steps + int(rng.random() * STEPS_BETWEEN_CRASHES)
        self._gateway = Gateway(self._site, self._disk)
        self._plan.spoil(self._gateway.store, self._loop)
        self._loop.note(f"gateway starts on {sum(len(file.content) for file in self._disk.files.values())} bytes")
        if more:
            self._loop.after_step = self._maybe_crash
            self._maybe_crash()

    def _maybe_crash(self) -> None:
        if self._disk.blown or self._loop.steps >= self._crash_at:
            self._crash()

    def _crash(self) -> None:
        """What was in memory is gone, connections are reset, and the disk holds what it holds."""
        assert self._gateway is not None
        loop = self._loop
        loop.after_step = lambda: None
        self._gateway.process.kill()
        self._harm += [Harm("crashed", "", line) for line in self._gateway.telemetry.crashed]
        self._gateway = None
        self._crashes += 1
        power = loop.rng.random() < self._plan.power
        loop.note(f"{'power loss' if power else 'kill'} {'in the midst of a commit' if self._disk.blown else ''}")
        files = self._disk.after_power_loss(loop.rng) if power else self._disk.after_kill()
        self._disk.remove()
        self._disk = self._insert(files)
        for answer in self._open:
            loop.outside(NETWORK_SECONDS * loop.rng.random(), give, answer, ConnectionResetError())
        loop.outside(AWAY_SECONDS * loop.rng.random(), self._start)

    # --- the provider

    def _provide(self, method: str, head: bytes, body: bytes) -> Response:
        """A request reaches the provider."""
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if method == "GET":
            found = self._bank.handle(method, first.split(" ")[1], fields, body)
            return _response(found.status, found.content)
        content = json.loads(body)
        self._tokens.received("shop", content["card"]["number"], content["order"])
        answer = bend(self._bank.handle(method, first.split(" ")[1], fields, body), self._lie())
        if answer.status == 201:
            named = {"card": content["card"], "issued": {"number": CARDS[content["issue"]]}}
            return _response(201, {**answer.content, **named})
        return _response(answer.status, answer.content)

    def _lie(self) -> Lie | None:
        return self._plan.temper.lie(self._loop.rng)

    def _happened(self, entry: Entry) -> None:
        self._loop.note(f"effect {entry.effect}")
        self._happenings.append(entry)

    def _witness(self, method: str, head: bytes, body: bytes) -> Response:
        """Who is sent clear numbers says what it got."""
        return _response(200, {"numbers": [each["number"] for each in json.loads(body)["cards"]]})

    def _hear(self, payment: str, sequence: int) -> None:
        """An event arrives."""
        self._loop.note(f"event {sequence} of {payment}")
        self._events.append((payment, sequence))

    # --- clients

    async def _client(self, number: int) -> None:
        for turn in itertools.count():
            if self._crashes >= self._plan.crashes or self._harm:
                return
            await self._pay(f"client-{number}-{turn}")

    async def _pay(self, reference: str) -> None:
        """Ask until there is an answer, and then perhaps once more: what was said must be said again."""
        rng = self._loop.rng
        order, issue, amount = (
            int(rng.random() * len(CARDS)),
            int(rng.random() * len(CARDS)),
            1 + int(rng.random() * 10_000),
        )
        content = {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}
        content |= {"order": order, "issue": issue, "card": {"number": CARDS[order]}}
        body, calls = json.dumps(content).encode(), self._calls.setdefault(reference, [])
        left, doubts = rng.choice((1, 1, 2, 3)), DOUBT_ASKED_AGAIN
        while left and doubts and not self._harm:
            began = self._loop.time()
            try:
                response = await self._ask(ROUTE, body, reference)
            except (OSError, TimeoutError):
                calls.append(Call(began, reference))
            else:
                self._loop.note(f"{reference} is answered {response.status} {_digest(response)}")
                if response.status == 201:
                    left -= 1
                    calls.append(Call(began, reference, _digest(response), self._loop.time()))
                    self._heard(reference, order, issue, json.loads(response.body))
                elif self._turned_away(reference, response):
                    doubts -= self._plan.doubts is None
                    await asyncio.sleep(PATIENCE_SECONDS * rng.random())
            await asyncio.sleep(NETWORK_SECONDS * 4 * rng.random())

    def _heard(self, reference: str, order: int, issue: int, content: Any) -> None:
        self._told[reference] = told(content)
        if "card" in content:  # a status query finds the payment without it
            self._tokens.received("client", content["card"]["number"], order)
            self._tokens.received("client", content["issued"]["number"], issue)

    def _turned_away(self, reference: str, response: Response) -> bool:
        """Whether the answer was that nobody knows. After a true answer there is no other."""
        reason = json.loads(response.body).get("type", "").rpartition(":")[2]
        if reference in self._told and reason != Reason.STORE_UNAVAILABLE.label:
            self._harm.append(Harm("forgotten", reference, f"answered before, and now {reason}"))
        if response.status < 500 and reason not in _FOR_NOW:
            self._harm.append(Harm("refused", reference, reason))
        return bool(reason == Reason.OUTCOME_UNKNOWN.label)

    async def _ask(self, route: str, body: bytes, key: str) -> Response:
        """One request over the network. Raises OSError and TimeoutError; then nobody knows."""
        loop = self._loop
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

    async def _until_published(self) -> None:
        assert self._gateway is not None
        db = self._gateway.store._db
        for _ in range(EVENTS_PATIENCE):
            if not db.execute("SELECT count(*) FROM outbox WHERE state <> 'sent'").get:
                break
            await asyncio.sleep(1)

    async def _count(self) -> None:
        """Ask the last gateway for every token, then compare the accounts of every payment."""
        assert self._gateway is not None
        if self._gateway.store._db.pragma("integrity_check") != "ok":
            self._harm.append(Harm("damaged", "", "the file"))
            return  # there may be anything in it, or nothing where something must be
        tokens = self._tokens.tokens
        response = await self._ask("reveal", json.dumps({"cards": [{"number": t} for t in tokens]}).encode(), "")
        if response.status == 200:
            for token, number in zip(tokens, json.loads(response.body)["numbers"], strict=True):
                self._tokens.revealed(token, number)
        elif tokens:
            self._harm.append(Harm("lost", "", f"tokens: the reveal was answered {response.status}"))
        self._harm += [Harm("wrong", "", f"token {token}") for token in sorted(self._tokens.wrong)]
        happened = [moved(entry) for entry in self._happenings]
        known = held(self._gateway.store._db, self._site.keys, TENANT, CALLER, ROUTE, self._calls)
        doubt = self._plan.doubts is None
        self._harm += conservation(happened, self._told, known, doubt=doubt)
        self._harm += balanced(happened, books(self._gateway.store._db), doubt=doubt)
        if self._plan.publishes:
            self._harm += delivered(self._events, written(self._gateway.store._db))
        for reference, calls in self._calls.items():
            if not linearizable(calls, None, first_answer_counts):
                self._harm.append(Harm("unstable", reference, "one key, two answers"))


_FOR_NOW = {Reason.IDEMPOTENCY_KEY_IN_USE.label, Reason.OUTCOME_UNKNOWN.label}


def _response(status: int, content: Any) -> Response:
    return Response(status, [(b"Content-Type", b"application/json")], json.dumps(content).encode())


def _digest(response: Response) -> str:
    return hashlib.sha256(response.body).hexdigest()[:16]
