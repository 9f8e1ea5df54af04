"""The disk is full in mid-run: 503 and nothing forwarded, nothing answered that was not made durable, and it heals.

The kernel's limit on the size of files stands for the disk: set on the running gateway, it lets no file grow.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.demo.provider import sign
from examples.demo.wire import Answer
from tests.e2e.demo_world import CARD, JSON, caller, demo_folder, demo_gateway, pay, provider_context, serving
from tests.e2e.harness import Gateway
from tests.upstreams import Conversation, Script, ScriptedUpstream, answering, scripted

EGRESS_HOST = "provider.egress.internal"


def created(**content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass
class Stage:
    """The gateway, what is behind it, and the three kinds of request that make something durable."""

    gateway: Gateway
    shop: ScriptedUpstream
    provider: ScriptedUpstream

    def limit(self, size: int) -> None:
        """Of any file that the gateway writes, in bytes."""
        assert self.gateway.process is not None
        resource.prlimit(self.gateway.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def fill_disk(self) -> None:
        self.limit((self.gateway.folder / "var" / "pangate.db-wal").stat().st_size)

    def make_room(self) -> None:
        self.limit(resource.RLIM_INFINITY)

    def forwarded(self) -> int:
        return len(self.shop.requests) + len(self.provider.requests)

    def token(self) -> str:
        """Of the first payment, as the shop received it."""
        return str(json.loads(self.shop.requests[0].partition(b"\r\n\r\n")[2])["card"]["number"])

    async def paid(self, key: str) -> Answer:
        with caller(self.gateway, "edge", "partner") as client:
            return await asyncio.to_thread(pay, self.gateway, client, key)

    async def charged(self) -> Answer:
        body = json.dumps({"card": {"number": self.token()}}).encode()
        with caller(self.gateway, "egress", "shop", EGRESS_HOST) as client:
            return await asyncio.to_thread(client.ask, "POST", "/v1/charges", JSON, body)

    async def delivered(self) -> Answer:
        body = json.dumps({"id": "evt_1", "type": "charge.succeeded"}).encode()
        secret = (self.gateway.folder / "examples/demo/provider.whsec").read_text().strip()
        headers = {**JSON, "Stripe-Signature": sign(secret, int(time.time()), body)}
        with caller(self.gateway, "edge", "partner") as client:
            return await asyncio.to_thread(client.ask, "POST", "/hooks/provider", headers, body)

    async def read(self) -> Answer:
        headers = {"Authorization": self.gateway.bearer("payments:read")}
        with caller(self.gateway, "edge", "partner") as client:
            return await asyncio.to_thread(client.ask, "GET", "/v1/payments/pay_1", headers)


@asynccontextmanager
async def staged(folder: Path, provider: Script) -> AsyncIterator[Stage]:
    demo_folder(folder)
    async with (
        scripted(answering(created(id="pay_1"))) as behind,
        scripted(provider, provider_context(folder)) as beyond,
        serving(demo_gateway(folder, shop=behind.port, provider=beyond.port)) as gateway,
    ):
        yield Stage(gateway, behind, beyond)


def problem(answer: Answer) -> tuple[int, str]:
    """Status and reason of a refusal that says when to come back."""
    assert int(answer.headers["retry-after"]) > 0
    return answer.status, answer.json()["type"].rpartition(":")[2]


async def test_a_full_disk_forwards_nothing_and_is_overcome_without_a_restart(tmp_path: Path) -> None:
    async with staged(tmp_path, answering(created(id="ch_1"))) as stage:
        assert (await stage.paid("before")).status == 201
        durable: tuple[Callable[[], Awaitable[Answer]], ...] = (
            lambda: stage.paid("during"),
            stage.charged,
            stage.delivered,
        )
        stage.fill_disk()
        for ask in durable:
            assert problem(await ask()) == (503, "store_unavailable")
        assert stage.forwarded() == 1
        assert (await stage.read()).status == 201, "what needs no store goes on"
        stage.make_room()
        assert [(await ask()).status for ask in durable] == [201, 201, 200]
        assert CARD.encode() in stage.provider.requests[0]


async def test_an_answer_that_cannot_be_made_durable_is_not_given(tmp_path: Path) -> None:
    async def fill_and_quote_the_card(conversation: Conversation) -> None:
        await conversation.request()
        stage.fill_disk()
        await conversation.send(created(id="ch_1", card={"number": CARD}))

    async with staged(tmp_path, fill_and_quote_the_card) as stage:
        await stage.paid("one")
        answer = await stage.charged()
        assert problem(answer) == (504, "settle_failed")
        assert answer.json()["outcome"] == "unknown"
        assert CARD.encode() not in answer.received
        assert b"ch_1" not in answer.received
