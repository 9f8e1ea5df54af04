"""Upstreams that refuse, hang, answer 500, die and come back: what callers read, and that nobody pays twice."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo.wire import Answer, Client
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.demo_world import serving
from tests.e2e.harness import Gateway, free_port, free_ports, wait_until
from tests.upstreams import Conversation, scripted

CONFIG = """\
version: 1
listeners:
  edge: {bind: "127.0.0.1:${PANGATE_EDGE_PORT}", identity: spiffe://shop.example/payments}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
keys: {provider: file, key: file:certs/vault.key}
upstreams:
  bank:
    url: "http://bank.internal"
    endpoints: [{address: "127.0.0.1:${PANGATE_A_PORT}"}, {address: "127.0.0.1:${PANGATE_B_PORT}"}]
    timeouts: {connect: 300ms, first_byte: 300ms, total: 2s}
    breaker: {minimum_number_of_calls: 1000}
    health: {passive: {consecutive_5xx: 3, base_ejection_time: 200ms}}
  desk:
    url: "http://127.0.0.1:${PANGATE_A_PORT}"
    timeouts: {connect: 300ms, first_byte: 300ms, total: 2s}
    breaker:
      minimum_number_of_calls: 4
      sliding_window_size: 5s
      wait_duration_in_open_state: 1s
      permitted_calls_in_half_open_state: 1
    bulkhead: {max_concurrent_calls: 2, max_pending: 1, max_wait_duration: 100ms}
routes:
  - {name: pay, listener: edge, match: {methods: [POST], path: /pay}, policy: keyed, upstream: bank}
  - {name: keyed, listener: edge, match: {methods: [POST], path: /keyed}, policy: keyed, upstream: bank,
     in_doubt: replay, retry_unknown: true}
  - {name: desk, listener: edge, match: {methods: [POST, GET], path: /desk}, policy: keyed, upstream: desk}
"""
POLICY = """\
rules:
  - {kind: idempotency, required: true}
"""
PAYMENTS, TILLS = 200, 8
JSON = {"Content-Type": "application/json"}


def said(status: int, content: object) -> bytes:
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


@dataclass
class Bank:
    """What an endpoint does with a request, and all that reached it, by idempotency key."""

    mood: str = "well"
    executed: Counter[str] = field(default_factory=Counter)

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            key = request.lower().partition(b"idempotency-key: ")[2].partition(b"\r\n")[0].decode()
            if self.mood == "dies":
                conversation.reset()
                return
            self.executed[key] += 1
            if self.mood == "hangs":
                await conversation.closed()
                return
            mood = "well" if self.mood == "stumbles" and self.executed[key] > 1 else self.mood
            answers = {"well": (201, {"paid": True}), "declines": (402, {}), "fails": (500, {}), "stumbles": (503, {})}
            await conversation.send(said(*answers[mood]))


@dataclass
class World:
    gateway: Gateway
    a: Bank
    b: Bank

    def client(self) -> Client:
        return Client(self.gateway.ports["edge"], "localhost", None, seconds=20)

    def ask(self, path: str, key: str | None = None, method: str = "POST") -> Answer:
        client = self.client()
        try:
            headers = {**JSON, "Idempotency-Key": key or str(uuid.uuid4())}
            return client.ask(method, path, headers, b"{}" if method == "POST" else b"")
        finally:
            client.close()

    async def asked(self, path: str, key: str | None = None, method: str = "POST") -> Answer:
        return await asyncio.to_thread(self.ask, path, key, method)


def reason(answer: Answer) -> str:
    return str(answer.json().get("type", "")).rpartition(":")[2]


@asynccontextmanager
async def world(folder: Path, **ports: int) -> AsyncIterator[World]:
    """`ports` of endpoints that are elsewhere."""
    make_dev_certificates(folder / "certs")
    (folder / "policies").mkdir()
    (folder / "policies" / "keyed.yaml").write_text(POLICY)
    (folder / "config.yaml").write_text(CONFIG)
    a, b = Bank(), Bank()
    async with scripted(a) as at_a, scripted(b) as at_b:
        gateway = Gateway(folder, {**free_ports("edge", "admin"), "a": at_a.port, "b": at_b.port, **ports})
        async with serving(gateway):
            yield World(gateway, a, b)


async def test_a_desk_that_fails_is_left_alone_costs_no_key_and_is_found_well_again(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.a.mood = "declines"
        assert {(await it.asked("/desk")).status for _ in range(8)} == {402}, "a decline is no outage"
        kept = await it.asked("/desk", "kept")
        await asyncio.to_thread(wait_until, lambda: it.gateway.metric("pangate_upstream_breaker_state") == 0)
        for mood, statuses in (("fails", {500}), ("hangs", {504}), ("dies", {502})):
            it.a.mood = mood
            answers = [await it.asked("/desk", f"{mood}-{n}") for n in range(40)]
            opened = next(n for n, answer in enumerate(answers) if answer.status == 503)
            assert {answer.status for answer in answers[:opened]} == statuses
            refused = answers[opened]
            assert (reason(refused), refused.headers["retry-after"]) == ("breaker_open", "1")
            assert f"{mood}-{opened}" not in it.a.executed
            assert (await it.asked("/desk", "kept")).body == kept.body, "what is known is told all the same"
            assert reason(await it.asked("/desk", "any", "GET")) != "breaker_open", "reads have a breaker of their own"
            it.a.mood = "well"
            again = Counter[int]()
            while not again[201]:
                again[(await it.asked("/desk", f"{mood}-{opened}")).status] += 1
                await asyncio.sleep(0.05)
            assert again.keys() == {503, 201}, "its key was never taken"
            assert it.a.executed[f"{mood}-{opened}"] == 1


async def test_when_all_slots_are_taken_the_next_wait_in_turn_and_then_nobody_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.a.mood = "hangs"
        answers = await asyncio.gather(*(it.asked("/desk", f"k{n}") for n in range(8)))
        assert Counter(answer.status for answer in answers) == {504: 2, 503: 6}
        busy = [answer for answer in answers if answer.status == 503]
        assert {(reason(answer), answer.headers["retry-after"]) for answer in busy} == {("upstream_busy", "1")}
        assert it.a.executed.total() == 2
        assert it.gateway.metric("pangate_upstream_rejections_total", reason="bulkhead") == 6


async def test_an_endpoint_that_dies_under_load_and_comes_back_costs_nobody_a_second_payment(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        answers: dict[str, Answer] = {}

        async def till(number: int) -> None:
            client = await asyncio.to_thread(it.client)
            for n in range(PAYMENTS // TILLS):
                key = f"till-{number}-{n}"
                answers[key] = await asyncio.to_thread(
                    client.ask, "POST", "/pay", {**JSON, "Idempotency-Key": key}, b"{}"
                )
                if len(answers) == PAYMENTS // 4:
                    it.b.mood = "dies"
                elif len(answers) == PAYMENTS // 2:
                    it.b.mood = "hangs"
                elif len(answers) == PAYMENTS * 3 // 4:
                    it.b.mood = "well"
            client.close()

        await asyncio.gather(*map(till, range(TILLS)))
        executed = it.a.executed + it.b.executed
        assert max(executed.values()) == 1, "nothing unsafe is sent twice"
        assert {answer.status for answer in answers.values()} <= {201, 502, 504}
        paid = [key for key, answer in answers.items() if answer.status == 201]
        assert len(paid) > PAYMENTS * 3 // 4
        assert all(executed[key] == 1 for key in paid)
        assert it.gateway.metric("pangate_upstream_ejections_total") > 0
        before = it.b.executed.total()
        await asyncio.to_thread(wait_until, lambda: it.ask("/pay").status == 201 and it.b.executed.total() > before)


async def test_an_endpoint_that_is_not_there_costs_no_payment_at_all(tmp_path: Path) -> None:
    async with world(tmp_path, b=free_port()) as it:
        answers = [await it.asked("/pay", f"k{n}") for n in range(30)]
        assert {answer.status for answer in answers} == {201}
        assert set(it.a.executed.values()) == {1}
        assert it.a.executed.total() == 30
        assert it.gateway.metric("pangate_upstream_retries_total", result="made") > 0


async def test_where_the_route_says_that_keys_are_honoured_the_caller_gets_the_answer_in_one_go(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.a.mood = it.b.mood = "stumbles"
        assert (await it.asked("/keyed", "k1")).status == 201
        assert it.a.executed["k1"] + it.b.executed["k1"] >= 2
        assert (await it.asked("/keyed", "k1")).headers["idempotent-replayed"] == "true"
