"""Events of real payments, from a gateway that runs, in a Valkey and at a receiver that verifies them."""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import redis
from standardwebhooks.webhooks import Webhook

from tests.e2e.demo_world import serving
from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.servers import VOLATILE, running_redis
from tests.upstreams import Conversation, scripted

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
CONFIG = """\
version: 1
listeners:
  edge: {bind: "127.0.0.1:${PANGATE_EDGE_PORT}"}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
upstreams:
  psp: {url: "http://127.0.0.1:${PANGATE_PSP_PORT}"}
events:
  publish:
    - {kind: redis_stream, url: "redis://127.0.0.1:${PANGATE_REDIS_PORT}"}
    - kind: webhook
      url: "http://127.0.0.1:${PANGATE_HOOK_PORT}/events"
      secret: env:HOOK_WHSEC
      allow_http: true
      allow_private: true
routes:
  - {name: pay, listener: edge, match: {methods: [POST], path: /payments}, policy: pay, upstream: psp}
"""
POLICY = """\
rules:
  - {kind: lifecycle, operation: authorize, payment: "response:$.id", amount: $.amount, currency: $.currency}
"""


class Shop:
    """A receiver of events. It verifies each, and takes it if `willing` says 200; `seen`: what it took, by payment."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = defaultdict(list)
        self.willing: Callable[[], int] = lambda: 200

    async def __call__(self, conversation: Conversation) -> None:
        while True:
            head, _, body = (await conversation.request()).partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            event = Webhook(SECRET).verify(body.decode(), fields)
            status = self.willing()
            if status == 200:
                self.seen[event["subject"]].append(event["type"])
            await conversation.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

    @property
    def count(self) -> int:
        return sum(map(len, self.seen.values()))


def provider() -> Callable[[Conversation], object]:
    numbers = itertools.count(1)

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            body = json.dumps({"id": f"pi_{next(numbers)}"}).encode()
            head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await conversation.send(head % len(body), body)

    return script


class World:
    """A gateway, and both places where its events arrive."""

    def __init__(self, gateway: Gateway, shop: Shop, stream: redis.Redis) -> None:
        self.gateway = gateway
        self.shop = shop
        self.stream = stream

    def pay(self, payments: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.ports["edge"], timeout=60)
        body = json.dumps({"amount": 100, "currency": "EUR"})
        for _ in range(payments):
            connection.request("POST", "/payments", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:6]) == (201, b'{"id":')
        connection.close()

    def streamed(self) -> dict[str, list[str]]:
        """Types of the events in the stream by payment, and each once: a repetition has the same sequence."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        entries: Any = self.stream.xrange("pangate:events")
        for _, fields in entries:
            found[fields["subject"]][fields["sequence"]] = fields["type"]
        return {payment: list(types.values()) for payment, types in found.items()}

    def types(self, *arguments: str) -> CompletedProcess[str]:
        """`pangate events ...` beside the gateway."""
        config = str(self.gateway.folder / "config.yaml")
        command = [sys.executable, "-m", "gateway.cli", "events", *arguments, "--config", config]
        return run(command, capture_output=True, text=True, check=False, env=self.gateway.environment())

    def parked(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.types("list").stdout.splitlines()]


@contextmanager
def valkey(folder: Path) -> Iterator[tuple[int, redis.Redis]]:
    with running_redis(folder, *VOLATILE) as server, redis.Redis(port=server.port, decode_responses=True) as client:
        yield server.port, client


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    (folder / "policies").mkdir()
    (folder / "policies" / "pay.yaml").write_text(POLICY)
    (folder / "config.yaml").write_text(CONFIG)
    shop = Shop()
    with valkey(folder) as (port, stream):
        async with scripted(provider()) as psp, scripted(shop) as hook:  # type: ignore[arg-type]
            ports = {**free_ports("edge", "admin"), "psp": psp.port, "hook": hook.port, "redis": port}
            gateway = Gateway(folder, ports, {"HOOK_WHSEC": SECRET})
            async with serving(gateway):
                yield World(gateway, shop, stream)


WHOLE = ["payment.authorize.requested.v1", "payment.authorize.succeeded.v1"]


async def test_what_payments_do_is_told_to_every_receiver_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await asyncio.to_thread(at.pay, 20)
        await asyncio.to_thread(wait_until, lambda: at.shop.count == 40, 20, "the arrival of all events")

        assert list(at.shop.seen.values()) == [WHOLE] * 20
        assert at.streamed() == at.shop.seen
        assert at.gateway.lines("event_parked") == []


async def test_a_killed_gateway_loses_no_event_and_tells_the_rest_after_its_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.shop.willing = lambda: 503
        await asyncio.to_thread(at.pay, 10)
        await asyncio.to_thread(wait_until, lambda: len(at.streamed()) == 10, 20, "the arrival of first events")
        await asyncio.to_thread(at.gateway.kill)
        assert at.shop.count == 0
        at.shop.willing = lambda: 200
        await asyncio.to_thread(at.gateway.start, "admin")
        await asyncio.to_thread(wait_until, lambda: at.shop.count == 20, 30, "the arrival of all events")

        assert list(at.shop.seen.values()) == [WHOLE] * 10
        assert at.streamed() == at.shop.seen


async def test_an_event_that_was_parked_is_listed_and_told_once_a_person_replays_it(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.shop.willing = lambda: 410
        await asyncio.to_thread(at.pay, 1)
        await asyncio.to_thread(wait_until, at.parked, 20, "a parked event")
        (parked,) = await asyncio.to_thread(at.parked)
        assert (parked["type"], parked["note"]) == (WHOLE[0], "status 410")

        at.shop.willing = lambda: 200
        await asyncio.to_thread(at.pay, 1)
        await asyncio.to_thread(wait_until, lambda: at.shop.count == 2, 20, "the arrival of the other payment")
        assert parked["payment"] not in at.shop.seen
        replayed = await asyncio.to_thread(at.types, "replay", parked["tenant"], parked["id"])
        assert replayed.returncode == 0
        await asyncio.to_thread(wait_until, lambda: at.shop.count == 4, 20, "the arrival of the parked events")

        assert at.shop.seen[parked["payment"]] == WHOLE
