"""Events over the admin listener, as `pangate events` asks for them: both ends real, and the store between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.server.admin import Admin
from gateway.server.admin_events import event_actions
from gateway.workers.relay import Relay
from tests.config.world import CONFIG, POLICY
from tests.outbox_world import BEFORE, GONE, TENANT, Failing, Outbox, Receiver, outbox
from tests.upstreams import Conversation, scripted


class Desk:
    """An operator's command line beside a running gateway with parked events."""

    def __init__(self, world: Outbox, store: Failing, config: Path) -> None:
        self.world = world
        self.store = store
        self.config = config

    async def types(self, *arguments: str) -> Result:
        command = ["events", *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)

    async def lists(self, *arguments: str) -> list[tuple[str, int]]:
        """Payment and sequence of each event listed."""
        result = await self.types("list", *arguments)
        assert result.exit_code == 0, result.output
        events = [json.loads(line) for line in result.output.splitlines()]
        return [(event["payment"], event["sequence"]) for event in events]


@asynccontextmanager
async def desk(folder: Path, bind: str | None = None) -> AsyncIterator[Desk]:
    async with outbox() as world:
        store = Failing(world.store)
        await world.tell(*"aab")
        relay = Relay(world.ports, [Receiver(reply=lambda _: GONE)], attempts=1)
        await relay.step(world.clock.now())
        await relay.drain()
        admin = Admin(checks=None, scrape=None, reload=None, actions=event_actions(store, world.clock))  # type: ignore[arg-type]
        await admin.open(bind or "127.0.0.1:0")
        (folder / "policies").mkdir()
        (folder / "policies" / "open.yaml").write_text(POLICY)
        config = folder / "config.yaml"
        text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "")
        config.write_text(text + f'admin: {{bind: "{bind or f"127.0.0.1:{admin.port}"}"}}\n')
        try:
            yield Desk(world, store, config)
        finally:
            await admin.close()


async def test_parked_events_are_listed_with_what_went_wrong(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        result = await at.types("list")

    first = json.loads(result.output.splitlines()[0])
    assert (first["tenant"], first["payment"], first["sequence"]) == (TENANT, "a", 1)
    assert (first["type"], first["attempts"], first["note"]) == ("payment.authorize.requested.v1", 1, "gone")
    assert "payload" not in first


async def test_pending_events_and_those_of_one_tenant_are_listed_when_asked_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        assert await at.lists() == [("a", 1), ("b", 1)]
        assert await at.lists("--state", "pending") == [("a", 2)]
        assert await at.lists("--tenant", "nobody") == []


async def test_a_replayed_event_is_pending_again_and_a_second_time_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        (parked, _) = await at.world.parked()
        assert (await at.types("replay", TENANT, parked.id)).exit_code == 0
        assert await at.lists() == [("b", 1)]
        assert await at.lists("--state", "pending") == [("a", 1), ("a", 2)]

        again = await at.types("replay", TENANT, parked.id)
        assert again.exit_code == 1
        assert "there is no event of this tenant and id that is parked or sent" in again.output


async def test_an_event_of_another_tenant_is_not_replayed(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        (parked, _) = await at.world.parked()
        assert (await at.types("replay", "other", parked.id)).exit_code == 1
        assert len(await at.world.parked()) == 2


async def test_a_unix_socket_is_asked_as_well(tmp_path: Path) -> None:
    async with desk(tmp_path, f"unix:{tmp_path}/admin.sock") as at:
        assert await at.lists() == [("a", 1), ("b", 1)]


async def test_a_store_that_is_away_is_said(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.store.fails = lambda: BEFORE
        for arguments in (("list",), ("replay", TENANT, "evt_1")):
            result = await at.types(*arguments)
            assert (result.exit_code, result.output) == (
                1, "Error: the store is not available: try again in a moment\n",
            )  # fmt: skip


async def test_a_gateway_that_does_not_run_is_said(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        pass
    result = await at.types("list")

    assert result.exit_code == 1
    assert result.output.startswith("Error: no gateway answers at 127.0.0.1:")


async def test_somebody_else_at_the_port_is_told_from_a_gateway(tmp_path: Path) -> None:
    async def answers(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]")

    async with desk(tmp_path) as at, scripted(answers) as other:
        text = at.config.read_text()
        at.config.write_text(text[: text.index("admin:")] + f"admin: {{bind: '127.0.0.1:{other.port}'}}\n")
        result = await at.types("list")

    assert (result.exit_code, result.output) == (1, f"Error: who answers at 127.0.0.1:{other.port} is no gateway\n")


@pytest.mark.parametrize("admin", ["", "nonsense: 1\n"], ids=["no admin listener", "a bad configuration"])
async def test_a_configuration_that_leads_nowhere_is_said(tmp_path: Path, admin: str) -> None:
    async with desk(tmp_path) as at:
        text = at.config.read_text()
        at.config.write_text(text[: text.index("admin:")] + admin)
        result = await at.types("list")

    assert result.exit_code == 1
    assert "config.yaml" in result.output
