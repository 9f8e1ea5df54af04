"""One key, a hundred clients at once: `pangate run` before a provider that ignores keys and keeps a ledger."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.demo.wire import Answer
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports
from tests.faults.money import HERE, ProviderProcess, post

CLIENTS = 100
REPLAYED = "idempotent-replayed"


@dataclass(frozen=True, slots=True)
class Street:
    """Gateway and provider, each a process."""

    gateway: Gateway
    provider: ProviderProcess

    def pay(self, key: str, clients: int = 1) -> list[Answer]:
        """All at once."""
        content = {"amount": 500, "currency": "EUR", "reference": key, "capture": True}
        with ThreadPoolExecutor(clients) as threads:
            return list(threads.map(lambda _: post(self.gateway.ports["edge"], content, key), range(clients)))


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    shutil.copytree(HERE / "config_money", tmp_path, dirs_exist_ok=True)
    make_dev_certificates(tmp_path / "certs")
    (tmp_path / "provider.whsec").write_text("whsec_bm90IGEgc2VjcmV0LCBvbmx5IGEgdGVzdC4uLg==\n")
    ports = free_ports("edge", "shop", "provider")
    provider = ProviderProcess(tmp_path / "ledger.jsonl", ports["provider"], ("--ignore-keys", "--delay", "0.2", "0.3"))
    gateway = Gateway(tmp_path, ports)
    provider.start()
    try:
        gateway.start()
        yield Street(gateway, provider)
    finally:
        gateway.kill()
        provider.kill()


def test_of_a_hundred_at_once_one_pays_and_a_hundred_retries_are_told_the_same(street: Street) -> None:
    at_once = street.pay("one", CLIENTS)
    assert len(street.provider.entries()) == 1
    told = Counter((answer.status, answer.json().get("type", "")) for answer in at_once)
    assert told.keys() <= {(201, ""), (409, "urn:pangate:problem:idempotency_key_in_use")}
    assert told[201, ""] >= 1

    retried = street.pay("one", CLIENTS)
    assert {(answer.status, answer.body, answer.headers[REPLAYED]) for answer in retried} == {
        (201, next(answer.body for answer in at_once if answer.status == 201), "true")
    }
    assert len(street.provider.entries()) == 1


def test_what_was_answered_is_answered_again_when_gateway_and_provider_have_died(street: Street) -> None:
    (first,) = street.pay("one")
    street.gateway.kill()
    street.provider.kill()
    street.gateway.start()
    (again,) = street.pay("one")
    assert (again.status, again.body, again.headers[REPLAYED]) == (201, first.body, "true")
    (another,) = street.pay("another")
    assert another.status == 502
