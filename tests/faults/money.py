"""kill -9 where money moves: clients pay through a gateway, with idempotency keys, over a bad network, at a provider.

The provider ignores keys and is asked for what is in doubt; every client gets its answer in the end. Gateway and
provider are processes of their own; the clients, the shop that takes webhooks and the network live here. The provider's
ledger is compared with what clients were told, what the store holds of keys and payments, which webhooks reached the
shop, and which of the gateway's own events, in what order.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from examples.demo.wire import Answer, Received, Reply, Server
from gateway.adapters.keys import FileKeys
from tests.e2e.harness import Gateway, free_ports
from tests.faults.accounts import books, held, moved, told, written
from tests.faults.bank import Entry
from tests.faults.oracle import Harm, Movement, balanced, conservation, delivered
from tests.faults.programs import HASTY, PRODUCT
from tests.faults.street import CALLER, PAY, ProviderProcess, furnish, post
from tests.faults.tcp import CLEAR, Network, Way, proxied

CLIENTS = 6
DOUBT_SECONDS = 60.0
"""The longest that anything may be in doubt, once nobody is killed any more."""
RETRY_SECONDS = 0.02
MOMENTS = (0.05, 0.6)
"""Seconds between a start and the kill that ends it."""
QUIET_SECONDS = 1.0
"""Longer than any request is under way."""
EVENTS_SECONDS = 30.0
LOOK_SECONDS = 0.1
TEMPER = (
    "--ignore-keys",
    *("--delay", "0", "0.02"),
    *("--slow", "0.05", "0.4", "0.8"),
    *("--lie", "failed", "0.02"),
    *("--duplicate", "0.3"),
    *("--shuffle", "0.2"),
)
"""Of the provider: it executes whatever it is sent, sometimes later than the gateway waits."""
SLOW = ("--ignore-keys", *("--slow", "0.5", "1.5", "3.5"))
"""It often executes what it is sent long after the gateway has stopped waiting, and asks for the first time."""
HASTY_KILLS = 2
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""The modules are compiled by the first start and not by every one."""
WEATHER = (CLEAR, CLEAR, Way(latency=0.01), Way(rate=200_000), Way(reset_after=5_000), Way(close_after=8_000))


@dataclass(frozen=True, slots=True)
class Found:
    """What a campaign came to."""

    kills: int
    payments: int
    effects: int
    events: int
    harm: Sequence[Harm]


class Money:
    """One store, one ledger, and gateways that come and go."""

    patience = 20.0
    """Seconds after which a client asks again."""

    def __init__(self, gateway: Gateway, provider: ProviderProcess, network: Network, seed: int) -> None:
        self.gateway = gateway
        self._provider = provider
        self._network = network
        self._random = random.Random(seed)
        self._told: dict[str, Movement] = {}
        self._asked: set[str] = set()
        self._webhooks: set[str] = set()
        self._events: list[tuple[str, int]] = []
        self._over = False
        self._given_up = False

    async def shop(self, request: Received) -> Reply:
        """Takes the provider's webhooks and the gateway's events."""
        content = request.json()
        if request.target == "/events":
            self._events.append((content["subject"], int(content["sequence"])))
        else:
            self._webhooks.add(content["data"]["id"])
        return Reply(200, {})

    async def kill(self, times: int) -> None:
        """Let clients pay, and do what is to be done to the gateway; at the end everybody has an answer."""
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        await self.disturb(times)
        self._network.become()
        self._over = True
        await self._until(lambda: all(client.done() for client in clients), DOUBT_SECONDS)
        self._given_up = True
        await asyncio.gather(*clients)

    async def disturb(self, times: int) -> None:
        """Start, and kill at a random moment; the weather is another every time. The last one stays."""
        for _ in range(times):
            await asyncio.to_thread(self.gateway.start)
            self.weather()
            await asyncio.sleep(self._random.uniform(*MOMENTS))
            self.gateway.kill()
        self._network.become()
        await asyncio.to_thread(self.gateway.start)

    def weather(self) -> None:
        self._network.become(self._random.choice(WEATHER), self._random.choice(WEATHER))

    def edge(self) -> int:
        """The port that a client turns to."""
        return self.gateway.ports["edge"]

    async def count(self, kills: int) -> Found:
        await asyncio.sleep(QUIET_SECONDS)
        await self._until(self._all_told, EVENTS_SECONDS)
        await asyncio.to_thread(self.gateway.stop)
        db = apsw.Connection(str(self.gateway.folder / "var" / "faults.db"))
        found = self.weigh(db, kills)
        db.close()
        return found

    def weigh(self, db: apsw.Connection, kills: int) -> Found:
        """The provider's ledger against all other accounts; `db` has the rows of the store."""
        entries = self._provider.entries()
        paid = {entry.effect.payment for entry in entries}
        harm = self.accounts(db, entries, self._events)
        harm += [Harm("missed", payment, "the shop never heard of it") for payment in sorted(paid - self._webhooks)]
        return Found(kills, len(self._asked), len(entries), len(self._events), harm)

    def accounts(self, db: apsw.Connection, entries: Sequence[Entry], events: Sequence[tuple[str, int]]) -> list[Harm]:
        """The ledger against what clients were told, what the store holds, and the events that were published."""
        happened = [moved(entry) for entry in entries]
        keys = FileKeys(self.gateway.folder / "certs" / "vault.key")
        harm = conservation(happened, self._told, held(db, keys, "faults", CALLER, "pay", self._asked))
        return [*harm, *balanced(happened, books(db)), *delivered(events, written(db))]

    async def _until(self, over: Callable[[], bool], seconds: float) -> None:
        """Wait for it; no longer than that, and not if money moved twice: nothing makes up for it."""
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(over) and time.monotonic() < deadline:
            references = Counter(entry.effect.reference for entry in self._provider.entries())
            if max(references.values(), default=0) > 1:
                break
            await asyncio.sleep(LOOK_SECONDS)

    def _all_told(self) -> bool:
        """The shop has heard of every payment, and no event waits to be published."""
        status, listed = self.gateway.admin("/events?state=pending")
        heard = {entry.effect.payment for entry in self._provider.entries()} <= self._webhooks
        return heard and status == 200 and not json.loads(listed)["events"]

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._over:
            turn += 1
            await self._pay(f"client-{number}-{turn}", self._random.randint(1, 10_000))

    async def ask(self, content: object, reference: str) -> Answer:
        """One request for a payment, and its answer. Raises OSError, ValueError, IndexError."""
        return await asyncio.to_thread(post, self.edge(), PAY, content, reference, self.patience)

    async def _pay(self, reference: str, amount: int) -> None:
        """Ask until there is an answer."""
        self._asked.add(reference)
        content = {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}
        while not self._given_up:
            try:
                answer = await self.ask(content, reference)
            except (OSError, ValueError, IndexError):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if answer.status == 201:
                self._told[reference] = told(answer.json())
                return
            await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def served(handler: Money, port: int) -> AsyncIterator[None]:
    server = asyncio.create_task(Server(handler.shop, Path(os.devnull)).serve(port))
    try:
        yield
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def attack(
    folder: Path, kills: int, seed: int, program: Sequence[str] = PRODUCT, temper: Sequence[str] = TEMPER
) -> Found:
    """The promise: no harm. `program` may be a gateway that is broken on purpose."""
    ports = free_ports("edge", "admin", "shop", "bank")
    provider = furnish(folder, ports["edge"], ports["bank"], ("--seed", str(seed), *temper))
    async with proxied(ports["bank"]) as network:
        gateway = Gateway(folder, {**ports, "provider": network.port}, env=_COMPILED, program=program)
        money = Money(gateway, provider, network, seed)
        async with served(money, ports["shop"]):
            await asyncio.to_thread(provider.start)
            try:
                await money.kill(kills)
                return await money.count(kills)
            finally:
                provider.kill()
                if gateway.process is not None:
                    gateway.kill()


async def hurry(folder: Path, seed: int) -> Found:
    """The control: a gateway for which nothing is ever under way, before a provider that takes its time."""
    return await attack(folder, HASTY_KILLS, seed, HASTY, SLOW)
