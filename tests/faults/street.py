"""Where money moves: `pangate run` before a provider with a ledger, each a process of its own, and who calls them."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo.wire import Answer, Client
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports, listens, running, wait_until
from tests.faults.bank import Entry
from tests.faults.programs import PRODUCT
from tests.faults.provider import read_ledger

HERE = Path(__file__).parent
PAY = "/v1/payments"
CALLER = "spiffe://shop.example/payments"
PATIENT = {"FIRST_BYTE": "20s", "TOTAL": "20s", "IN_FLIGHT_MAX": "30s"}
"""A gateway that waits for its provider, however many ask at once."""


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


def furnish(folder: Path, edge: int, bank: int, options: Sequence[str]) -> ProviderProcess:
    """What a gateway needs that listens on `edge`, and a provider, not started, that will send its webhooks there."""
    shutil.copytree(HERE / "config_money", folder, dirs_exist_ok=True)
    make_dev_certificates(folder / "certs")
    secret = folder / "provider.whsec"
    secret.write_text(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    hooks = ("--webhooks", f"http://127.0.0.1:{edge}/hooks", "--secret", str(secret))
    return ProviderProcess(folder / "ledger.jsonl", bank, (*hooks, *options))


def post(port: int, target: str, content: object, key: str = "", seconds: float = 20) -> Answer:
    """One request on a connection of its own, for which nobody waits longer than `seconds`.

    Raises OSError; a torn answer is a ValueError or an IndexError.
    """
    client = Client(port, "localhost", None, seconds=seconds)
    try:
        fields = {"Content-Type": "application/json", "Connection": "close"}
        named = {"Idempotency-Key": key} if key else {}
        return client.ask("POST", target, fields | named, json.dumps(content).encode())
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Street:
    """Both running, and nobody in between. Of several gateways that share a store, each is asked in its turn."""

    gateway: Gateway
    provider: ProviderProcess
    others: Sequence[Gateway] = ()
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, target: str, content: object, key: str = "") -> Answer:
        gateways = [self.gateway, *self.others]
        return post(gateways[next(self._turns) % len(gateways)].ports["edge"], target, content, key)

    def at_once(self, clients: int, target: str, content: object, key: str = "") -> list[Answer]:
        """The same request from so many, each on a connection of its own."""
        with ThreadPoolExecutor(clients) as threads:
            return list(threads.map(lambda _: self.ask(target, content, key), range(clients)))

    def pay(self, reference: str, amount: int) -> dict[str, Any]:
        """What is posted to `PAY`: a charge."""
        return {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}

    def moved(self, kind: str, payment: str) -> int:
        """Minor units, by the provider's ledger."""
        effects = (entry.effect for entry in self.provider.entries())
        return sum(effect.amount for effect in effects if (effect.kind, effect.payment) == (kind, payment))

    def effects(self, reference: str) -> int:
        """How often the provider executed the request that names it."""
        return sum(entry.effect.reference == reference for entry in self.provider.entries())


@contextmanager
def street(folder: Path, options: Sequence[str], program: Sequence[str] = PRODUCT) -> Iterator[Street]:
    """`options` are the provider's; `program` may be a gateway that is broken on purpose."""
    ports = free_ports("edge", "admin", "shop", "provider")
    provider = furnish(folder, ports["edge"], ports["provider"], options)
    provider.start()
    try:
        with running(Gateway(folder, ports, env=PATIENT, program=program)) as gateway:
            yield Street(gateway, provider)
    finally:
        provider.kill()
