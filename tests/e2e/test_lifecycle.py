"""200 refunds at once, at a provider that refunds whatever it is asked; its webhooks come twice and in any order."""

from __future__ import annotations

import base64
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.wire import Answer, Client
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports, running, wait_until
from tests.faults.money import ProviderProcess

REFUNDS, EACH, CAPTURED = 200, 7, 1000

CONFIG = """\
version: 1
listeners:
  edge: {bind: "127.0.0.1:${PANGATE_EDGE_PORT}", identity: spiffe://shop.example/payments}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
keys: {provider: file, key: file:certs/vault.key}
upstreams:
  psp: {url: "http://127.0.0.1:${PANGATE_BANK_PORT}"}
routes:
  - {name: authorize, listener: edge, match: {methods: [POST], path: /v1/payments}, policy: authorize, upstream: psp}
  - {name: capture, listener: edge, match: {methods: [POST], path: "/v1/payments/{id}/capture"}, policy: capture,
     upstream: psp}
  - {name: refund, listener: edge, match: {methods: [POST], path: "/v1/payments/{id}/refund"}, policy: refund,
     upstream: psp}
  - name: hooks
    listener: edge
    match: {methods: [POST], path: /hooks}
    inbox: {provider: standard, secrets: ["file:provider.whsec"], facts: {mapping: rest, upstream: psp}}
    upstream: psp
"""
POLICY = """\
rules:
  - {kind: idempotency}
  - {kind: lifecycle, mapping: rest, operation: OPERATION}
"""


@dataclass
class Stage:
    gateway: Gateway
    provider: ProviderProcess

    def ask(self, path: str, content: dict[str, Any]) -> Answer:
        client = Client(self.gateway.ports["edge"], "localhost", None, seconds=20)
        try:
            return client.ask("POST", path, {"Content-Type": "application/json"}, json.dumps(content).encode())
        finally:
            client.close()

    def moved(self, kind: str) -> int:
        """Minor units, by the provider's ledger."""
        return sum(entry.effect.amount for entry in self.provider.entries() if entry.effect.kind == kind)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "gateway"
    make_dev_certificates(folder / "certs")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "policies").mkdir()
    for operation in ("authorize", "capture", "refund"):
        (folder / "policies" / f"{operation}.yaml").write_text(POLICY.replace("OPERATION", operation))
    secret = folder / "provider.whsec"
    secret.write_text(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    ports = free_ports("edge", "admin", "bank")
    hooks = ("--webhooks", f"http://127.0.0.1:{ports['edge']}/hooks", "--secret", str(secret))
    temper = ("--no-guards", "--ignore-keys", "--delay", "0", "0.02", "--duplicate", "0.5", "--shuffle", "0.3")
    provider = ProviderProcess(folder / "ledger.jsonl", ports["bank"], (*hooks, *temper))
    with running(Gateway(folder, ports)) as gateway:
        provider.start()
        try:
            yield Stage(gateway, provider)
        finally:
            provider.kill()


def test_as_many_refunds_as_may_come_refund_exactly_what_was_captured(stage: Stage) -> None:
    payment = stage.ask("/v1/payments", {"amount": CAPTURED, "currency": "EUR"}).json()["id"]
    assert stage.ask(f"/v1/payments/{payment}/capture", {"amount": CAPTURED}).status == 200
    refund = f"/v1/payments/{payment}/refund"
    with ThreadPoolExecutor(REFUNDS) as clients:
        answers = list(clients.map(lambda _: stage.ask(refund, {"amount": EACH}), range(REFUNDS)))
    admitted, rest = divmod(CAPTURED, EACH)
    assert Counter(answer.status for answer in answers) == {200: admitted, 409: REFUNDS - admitted}
    assert stage.moved("refund") == CAPTURED - rest

    told = 2 + admitted  # a message of each movement
    wait_until(lambda: stage.gateway.metric("pangate_payment_facts_total") >= told, what="what the provider tells")
    assert stage.gateway.metric("pangate_payment_facts_total", result="violation") == 0
    refused = stage.ask(refund, {"amount": rest + 1})
    assert (refused.status, refused.json()["remaining"]["refund"], refused.json()["pending"]) == (409, rest, {})
    assert stage.ask(refund, {"amount": rest}).status == 200
    assert stage.ask(refund, {"amount": 1}).json()["state"] == "closed"
    assert stage.moved("refund") == CAPTURED
