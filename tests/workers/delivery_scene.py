"""A world with an inbox, a scripted backend on loopback, and the forwarder between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.pure.metrics import Metric
from gateway.workers.deliveries import DeliveryForwarder
from tests.inbox_world import InboxWorld, inbox_world
from tests.upstreams import OK, Conversation, Script, ScriptedUpstream, scripted


class Scene:
    """A world, its backend and its forwarder."""

    def __init__(self, world: InboxWorld, backend: ScriptedUpstream) -> None:
        self.world = world
        self.backend = backend
        self.forwarder = DeliveryForwarder(world.ports, lambda: world.routes, concurrency=4)

    async def step(self) -> None:
        await self.forwarder.step(self.world.clock.now())
        await self.forwarder.drain()

    def forwarded(self, result: str) -> float:
        return self.world.telemetry.counts.get((Metric.WEBHOOK_FORWARDED, ("stripe-hooks", result)), 0)

    async def pending(self) -> int:
        return (await self.world.due()).pending

    def request(self, index: int = 0) -> tuple[str, dict[str, str], bytes]:
        """Request line, fields by lower-case name, body."""
        head, _, body = self.backend.requests[index].partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        fields = [text.split(": ", 1) for text in lines]
        assert len({name.lower() for name, _ in fields}) == len(fields)
        return line, {name.lower(): value for name, value in fields}, body


@asynccontextmanager
async def scene(folder: Path, script: Script) -> AsyncIterator[Scene]:
    async with scripted(script) as backend, inbox_world(folder, backend.url) as world:
        made = Scene(world, backend)
        yield made
        await made.forwarder.stop()


def answer(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "Content-Length: 0", "", ""]).encode()


def in_turn(*responses: bytes) -> Script:
    """Answer each request with the next response, over all connections."""
    rest = iter(responses)

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(next(rest))

    return script


def waiting(may_answer: asyncio.Event) -> Script:
    """Answer once allowed."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await may_answer.wait()
            await conversation.send(OK)

    return script
