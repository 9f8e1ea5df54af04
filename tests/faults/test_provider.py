"""The provider as a process: what it did outlives it, it misbehaves on demand, and the gateway bears with it."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.demo.wire import Answer, Received, Reply, Server
from gateway.pure.webhooks import Arrival
from gateway.webhooks import standard
from tests.e2e.harness import free_port
from tests.faults.bank import Answer as Said
from tests.faults.bank import Bank, Temper
from tests.faults.provider import Hooks, Pace, Post, Provider, read_ledger
from tests.faults.street import PAY, ProviderProcess, post

PAYMENT = {"amount": 500, "currency": "EUR", "reference": "r1", "capture": True}
Start = Callable[..., ProviderProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[ProviderProcess] = []

    def make(*options: str) -> ProviderProcess:
        started.append(ProviderProcess(tmp_path / "ledger.jsonl", free_port(), options))
        started[-1].start()
        return started[-1]

    yield make
    for provider in started:
        provider.kill()


def pay(provider: ProviderProcess, key: str = "k") -> Answer:
    return post(provider.port, PAY, PAYMENT, key)


def test_what_happened_and_under_which_key_survives_kill_9(start: Start) -> None:
    provider = start()
    first = pay(provider)
    provider.kill()
    with provider.ledger.open("ab") as ledger:
        ledger.write(b'{"effect": torn')
    provider.start()
    assert pay(provider).json() == first.json()
    assert pay(provider, "other").json()["id"] != first.json()["id"]
    assert [entry.effect.key for entry in provider.entries()] == ["k", "other"]


def test_a_provider_that_ignores_keys_and_lies_is_found_out_by_its_ledger(start: Start) -> None:
    provider = start("--ignore-keys", "--lie", "failed", "1")
    assert [pay(provider).status, pay(provider).status] == [500, 500]
    assert len(provider.entries()) == 2


# --- its parts -------------------------------------------------------------------------------------------------------


def test_a_share_of_the_answers_is_slow() -> None:
    rng = random.Random(1)
    drawn = [Pace(0, 1, 0.25, 5, 6).draw(rng) for _ in range(1_000)]
    assert 200 < sum(seconds >= 5 for seconds in drawn) < 300
    assert all(0 <= seconds <= 1 or 5 <= seconds <= 6 for seconds in drawn)


async def test_a_slow_deed_may_come_before_the_delay_or_after_it(tmp_path: Path) -> None:
    """A caller whose patience ends first cannot tell."""
    acted = 0
    for seed in range(20):
        entries: list[object] = []
        provider = Provider(Bank(entries.append), Temper(), Pace(60, 60), None, random.Random(seed))
        request = Received("POST", PAY, {}, json.dumps(PAYMENT).encode(), b"")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(provider(request), 0.001)
        acted += len(entries)
    assert 0 < acted < 20


async def test_deliveries_are_signed_and_come_until_they_are_taken_and_twice_and_in_any_order() -> None:
    key = secrets.token_bytes(32)
    taken: list[tuple[str, int]] = []
    refusals = iter([503, 503])
    everything = asyncio.Event()

    async def shop(request: Received) -> Reply:
        secret = standard.parse_secret(b"whsec_" + base64.b64encode(key))
        standard.verify(Arrival(request.body, request.headers, frozenset(), "", time.time()), [secret], 5)
        status = next(refusals, 200)
        if status == 200:
            taken.append((request.headers["webhook-id"], request.json()["data"]["refunded"]))
        if len(taken) == 2 * 8:
            everything.set()
        return Reply(status, {})

    port = free_port()
    server = asyncio.create_task(Server(shop, Path("/dev/null")).serve(port))
    await asyncio.sleep(0)
    office = Post(Hooks(f"http://127.0.0.1:{port}/", key, duplicate=1, shuffle=0.1), random.Random(1))
    for refunded in (*range(8), 3):
        content = {"id": "pay_1", "status": "captured", "captured": 9, "refunded": refunded}
        office.tell(Said(200, content))
    await asyncio.wait_for(everything.wait(), 60)
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)
    order = [refunded for _, refunded in taken]
    assert sorted(order) == sorted([*range(8), *range(8)])
    assert order != sorted(order)
    assert len({name for name, _ in taken}) == 8


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none") == []
