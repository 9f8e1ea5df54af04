"""A gateway that is killed between its two commits: that it was about to reveal is on record, and that nobody knows
what became of it. The control writes the intent after the bytes have left, and is found out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from gateway.cli import main
from tests.e2e.demo_world import JSON, caller, demo_folder, demo_gateway, pay, provider_context
from tests.e2e.harness import Gateway
from tests.faults.programs import EAGER, PRODUCT
from tests.upstreams import Conversation, ScriptedUpstream, answering, scripted

EGRESS_HOST = "provider.egress.internal"
PAID = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"id":"p1"}'
TRIES = 5


def environment(gateway: Gateway) -> dict[str, str | None]:
    return {f"PANGATE_{name.upper()}_PORT": str(port) for name, port in gateway.ports.items()}


def who(gateway: Gateway, token: str) -> Any:
    command = ["vault", "who", token, "--json", "--config", str(gateway.folder / "config.yaml")]
    result = CliRunner(env=environment(gateway)).invoke(main, command)
    assert result.output.startswith("{"), result.output
    return json.loads(result.output)


@asynccontextmanager
async def deadly(folder: Path) -> AsyncIterator[tuple[Gateway, ScriptedUpstream, ScriptedUpstream]]:
    """A gateway, its shop, and a provider that kills it as soon as it has a request."""
    demo_folder(folder)

    async def kill(conversation: Conversation) -> None:
        await conversation.request()
        gateway.kill()

    async with (
        scripted(answering(PAID)) as shop,
        scripted(kill, provider_context(folder)) as provider,
    ):
        gateway = demo_gateway(folder, shop=shop.port, provider=provider.port)
        try:
            yield gateway, shop, provider
        finally:
            await asyncio.to_thread(gateway.stop)


async def revealed_and_killed(gateway: Gateway, shop: ScriptedUpstream, program: Sequence[str], key: str) -> str:
    """The token of a card that has got to the provider."""
    gateway.program = program
    await asyncio.to_thread(gateway.start, "admin")
    with caller(gateway, "edge", "partner") as client:
        assert (await asyncio.to_thread(pay, gateway, client, key)).status == 201
    token = str(json.loads(shop.requests[-1].partition(b"\r\n\r\n")[2])["card"]["number"])
    with suppress(OSError, ConnectionError), caller(gateway, "egress", "shop", EGRESS_HOST) as client:
        body = json.dumps({"card": {"number": token}}).encode()
        await asyncio.to_thread(client.ask, "POST", "/v1/charges", JSON, body)
    return token


async def test_a_kill_between_intent_and_outcome_leaves_the_intent(tmp_path: Path) -> None:
    async with deadly(tmp_path) as (gateway, shop, provider):
        token = await revealed_and_killed(gateway, shop, PRODUCT, "one")
        assert b"4242424242424242" in provider.requests[0]
        await asyncio.to_thread(gateway.start, "admin")
        told = await asyncio.to_thread(who, gateway, token)
        (reveal,) = told["reveals"]
        assert (reveal["principal"], reveal["destination"]) == ("spiffe://shop.example/payments", "provider")
        assert (reveal["purpose"], reveal["origin"]) == ("authorisation", "127.0.0.1")
        assert reveal["outcome"] is None
        command = ["audit", "verify", "--config", str(gateway.folder / "config.yaml")]
        verified = await asyncio.to_thread(CliRunner(env=environment(gateway)).invoke, main, command)
        assert verified.exit_code == 0, verified.output


async def test_the_control_that_writes_the_intent_late_loses_it(tmp_path: Path) -> None:
    """As often as it takes: a kill may come after the late commit."""
    async with deadly(tmp_path) as (gateway, shop, provider):
        for attempt in range(TRIES):
            token = await revealed_and_killed(gateway, shop, EAGER, f"try-{attempt}")
            assert len(provider.requests) == attempt + 1
            gateway.program = PRODUCT
            await asyncio.to_thread(gateway.start, "admin")
            told = await asyncio.to_thread(who, gateway, token)
            await asyncio.to_thread(gateway.stop)
            if not told["reveals"]:
                return
        raise AssertionError("the intent was there each time: this test would not see one that is written late")
