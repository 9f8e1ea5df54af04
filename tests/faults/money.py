"""kill -9 where money moves: clients pay through a gateway, with idempotency keys, over a bad network, at a provider.

The provider ignores keys and is asked for what is in doubt; every client gets its answer in the end. Gateway and
provider are processes of their own; the clients, the shop that takes webhooks and the network live here. The provider's
ledger is compared with what clients were told, what the store holds, and which events reached the shop.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from examples.demo.wire import Answer, Client, Received, Reply, Server
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.adapters.keys import FileKeys
from tests.e2e.harness import Gateway, free_ports, listens, wait_until
from tests.faults.accounts import held, moved, told
from tests.faults.bank import Entry
from tests.faults.campaign import PRODUCT
from tests.faults.oracle import Harm, Movement, conservation
from tests.faults.provider import read_ledger
from tests.faults.tcp import CLEAR, Network, Way, proxied

HERE = Path(__file__).parent
CALLER = "spiffe://shop.example/payments"
CLIENTS = 6
DOUBT_SECONDS = 60.0
"""The longest that anything may be in doubt, once nobody is killed any more."""
RETRY_SECONDS = 0.02
MOMENTS = (0.05, 0.6)
"""Seconds between a start and the kill that ends it."""
QUIET_SECONDS = 1.0
"""Longer than any request is under way."""
EVENTS_SECONDS = 30.0
TEMPER = (
    "--ignore-keys",
    *("--delay", "0", "0.02"),
    *("--slow", "0.05", "0.4", "0.8"),
    *("--lie", "failed", "0.02"),
    *("--duplicate", "0.3"),
    *("--shuffle", "0.2"),
)
"""Of the provider: it executes whatever it is sent, sometimes later than the gateway waits."""
WEATHER = (CLEAR, CLEAR, Way(latency=0.01), Way(rate=200_000), Way(reset_after=5_000), Way(close_after=8_000))


@dataclass
class ProviderProcess:
    """`tests.faults.provider` in a process of its own; its ledger outlives it."""

    ledger: Path
    port: int
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.provider", "--port", str(self.port)]
        self.process = subprocess.Popen([*command, "--ledger", str(self.ledger), *self.options])
        wait_until(lambda: listens(self.port), what="the start of the provider")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def entries(self) -> list[Entry]:
        return read_ledger(self.ledger)


@dataclass(frozen=True, slots=True)
class Found:
    """`missed` payments moved, and the shop never heard of it."""

    kills: int
    payments: int
    effects: int
    harm: Sequence[Harm]
    missed: Sequence[str]


class Money:
    """One store, one ledger, and gateways that come and go."""

    def __init__(
        self, folder: Path, seed: int, network: Network, ports: dict[str, int], program: Sequence[str]
    ) -> None:
        ports = {**ports, "provider": network.port}
        self.gateway = Gateway(folder, ports, env={"PYTHONDONTWRITEBYTECODE": ""}, program=program)
        self._network = network
        self._random = random.Random(seed)
        self._told: dict[str, Movement] = {}
        self._asked: set[str] = set()
        self._heard: set[str] = set()
        self._over = False
        self._given_up = False

    async def shop(self, request: Received) -> Reply:
        """Takes the provider's events."""
        self._heard.add(request.json()["data"]["id"])
        return Reply(200, {})

    async def kill(self, times: int) -> None:
        """Start, and kill at a random moment; the weather is another every time. The last one stays."""
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        for _ in range(times):
            await asyncio.to_thread(self.gateway.start)
            self._network.become(self._random.choice(WEATHER), self._random.choice(WEATHER))
            await asyncio.sleep(self._random.uniform(*MOMENTS))
            self.gateway.kill()
        self._network.become()
        await asyncio.to_thread(self.gateway.start)
        self._over = True
        _, waiting = await asyncio.wait(clients, timeout=DOUBT_SECONDS)
        self._given_up = bool(waiting)
        await asyncio.gather(*clients)

    async def count(self, provider: ProviderProcess, kills: int) -> Found:
        await asyncio.sleep(QUIET_SECONDS)
        entries = provider.entries()
        paid = {entry.effect.payment for entry in entries}
        for _ in range(round(EVENTS_SECONDS / RETRY_SECONDS)):
            if paid <= self._heard:
                break
            await asyncio.sleep(RETRY_SECONDS)
        await asyncio.to_thread(self.gateway.stop)
        folder = self.gateway.folder
        db = apsw.Connection(str(folder / "var" / "faults.db"))
        keys = FileKeys(folder / "certs" / "vault.key")
        known = held(db, keys, "faults", CALLER, "pay", self._asked)
        db.close()
        harm = conservation(map(moved, entries), self._told, known)
        return Found(kills, len(self._asked), len(entries), harm, sorted(paid - self._heard))

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._over:
            turn += 1
            await self._pay(f"client-{number}-{turn}", self._random.randint(1, 10_000))

    async def _pay(self, reference: str, amount: int) -> None:
        """Ask until there is an answer."""
        self._asked.add(reference)
        content = {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}
        while not self._given_up:
            try:
                answer = await asyncio.to_thread(post, self.gateway.ports["edge"], content, reference)
            except (OSError, ValueError, IndexError):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if answer.status == 201:
                self._told[reference] = told(answer.json())
                return
            await asyncio.sleep(RETRY_SECONDS)


def post(port: int, content: object, key: str) -> Answer:
    """One payment on a connection of its own. Raises OSError; a torn answer is a ValueError or an IndexError."""
    client = Client(port, "localhost", None, seconds=5)
    try:
        fields = {"Content-Type": "application/json", "Idempotency-Key": key, "Connection": "close"}
        return client.ask("POST", "/v1/payments", fields, json.dumps(content).encode())
    finally:
        client.close()


@asynccontextmanager
async def served(handler: Money, port: int) -> AsyncIterator[None]:
    server = asyncio.create_task(Server(handler.shop, Path(os.devnull)).serve(port))
    try:
        yield
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def attack(folder: Path, kills: int, seed: int, program: Sequence[str] = PRODUCT) -> Found:
    """The promise: no harm, and no event missed. `program` may be a gateway that is broken on purpose."""
    shutil.copytree(HERE / "config_money", folder, dirs_exist_ok=True)
    make_dev_certificates(folder / "certs")
    secret = folder / "provider.whsec"
    secret.write_text(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    ports = free_ports("edge", "shop", "bank")
    hooks = ("--webhooks", f"http://127.0.0.1:{ports['edge']}/hooks", "--secret", str(secret))
    provider = ProviderProcess(folder / "ledger.jsonl", ports["bank"], (*hooks, "--seed", str(seed), *TEMPER))
    async with proxied(ports["bank"]) as network:
        money = Money(folder, seed, network, ports, program)
        async with served(money, ports["shop"]):
            await asyncio.to_thread(provider.start)
            try:
                await money.kill(kills)
                return await money.count(provider, kills)
            finally:
                provider.kill()
                if money.gateway.process is not None:
                    money.gateway.kill()
