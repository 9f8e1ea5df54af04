"""What the tests of the upstream client share: pools, calls, and upstreams that misbehave in the usual ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.adapters.upstream_origin import Lookup
from gateway.ports import BodyStream, Clock, Connection, Outcome, Response, UpstreamError, settled
from gateway.pure.errors import Reason
from tests.conftest import HandClock
from tests.upstreams import OK, Conversation, Script

POST = b"POST /v1/payments HTTP/1.1\r\nHost: api.example\r\n"
GET = b"GET /v1/payments/1 HTTP/1.1\r\nHost: api.example\r\n"
MIB = 1024 * 1024


@asynccontextmanager
async def pool(
    url: str, clock: Clock | None = None, **settings: Timeouts | Limits | Lookup
) -> AsyncIterator[HttpUpstream]:
    """A pool that is closed at the end."""
    upstream = HttpUpstream("payments", url, clock=clock or HandClock(), **settings)  # type: ignore[arg-type]
    try:
        yield upstream
    finally:
        await upstream.close()


async def acquire(upstream: HttpUpstream, *, safe: bool) -> Connection:
    """Take a connection once this coroutine runs, not when it is made."""
    return await settled(upstream.acquire(safe=safe))


async def call(upstream: HttpUpstream, method: str = "POST", body: bytes | BodyStream = b"") -> Response:
    connection = await acquire(upstream, safe=method == "GET")
    try:
        return await connection.send(method, POST if method == "POST" else GET, body)
    finally:
        connection.release()


async def whole(response: Response) -> bytes:
    """The body, however it arrived."""
    if response.stream is None:
        return response.body
    pieces = [piece async for piece in response.stream]
    await response.stream.aclose()
    return response.body + b"".join(pieces)


async def failure(awaitable: Awaitable[object]) -> tuple[Outcome, Reason]:
    """With which outcome and reason it fails."""
    with pytest.raises(UpstreamError) as raised:
        await awaitable
    return raised.value.outcome, raised.value.reason


async def turns(count: int = 20) -> None:
    """Let the loop see what the kernel already has."""
    for _ in range(count):
        await asyncio.sleep(0)


def in_turn(*scripts: Script) -> Script:
    """The n-th connection runs the n-th script; the last serves all further ones."""
    left = list(scripts)

    async def script(conversation: Conversation) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(conversation)

    return script


def then_hang_up(*responses: bytes) -> Script:
    """Answer as many requests as there are responses, then close the connection."""

    async def script(conversation: Conversation) -> None:
        for response in responses:
            await conversation.request()
            await conversation.send(response)

    return script


async def silence(conversation: Conversation) -> None:
    """Take a request and never answer."""
    await conversation.request()
    await conversation.closed()


async def breaks_off(conversation: Conversation) -> None:
    """Answer once, read a second request, and die."""
    await conversation.request()
    await conversation.send(OK)
    await conversation.request()


async def resets(conversation: Conversation) -> None:
    """Answer once, read a second request, and break off without a proper end."""
    await breaks_off(conversation)
    conversation.reset()
