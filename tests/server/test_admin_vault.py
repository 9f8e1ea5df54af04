"""The vault's keys over the admin listener, as `pangate vault` asks for them: both ends real, and the store between."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite import open_sqlite
from gateway.cli import main
from gateway.pure.key_hierarchy import SETTLED_SECONDS
from gateway.pure.macs import Mac
from gateway.server.admin import Admin
from gateway.server.admin_vault import vault_actions
from tests.config.world import CONFIG, POLICY
from tests.conftest import HandClock, Recorder
from tests.key_world import NUMBERS, Gateway, Vault


class Desk:
    """An operator's command line beside a running gateway."""

    def __init__(self, gateway: Gateway, vault: Vault, config: Path) -> None:
        self.gateway = gateway
        self.vault = vault
        self.config = config

    async def types(self, *arguments: str) -> Result:
        command = ["vault", *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)

    async def status(self, tenant: str = "shop") -> dict[str, object]:
        result = await self.types("status", tenant, "--json")
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.output))


@pytest.fixture
async def desk(tmp_path: Path, telemetry: Recorder) -> AsyncIterator[Desk]:
    clock = HandClock(SystemClock().now())  # the command reads its own
    vault = Vault(open_sqlite(":memory:", clock=clock, telemetry=telemetry), clock, telemetry, tmp_path)
    gateway = vault.gateway()
    admin = Admin(checks=None, scrape=None, reload=None, actions=vault_actions(gateway.admin))  # type: ignore[arg-type]
    await admin.open("127.0.0.1:0")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(POLICY)
    config = tmp_path / "config.yaml"
    text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "")
    config.write_text(text + f'admin: {{bind: "127.0.0.1:{admin.port}"}}\n')
    yield Desk(gateway, vault, config)
    await admin.close()
    await vault.store.close()


async def test_the_status_says_which_keys_there_are_what_needs_them_and_what_may_go(desk: Desk) -> None:
    for number in NUMBERS:
        await desk.gateway.put(number)
    await desk.gateway.admin.rotate("shop", "vault")
    await desk.gateway.admin.rewrap("shop", 1000)
    await desk.gateway.work()
    told = await desk.status()
    assert told["rows"] == 4
    keys = {(key["key"], key["version"]): key for key in told["keys"]}  # type: ignore[attr-defined]
    assert [(name, key["state"], key["rows"], key["needless"]) for name, key in keys.items()] == [
        (("fingerprint", 1), "live", 4, False),
        (("tenant", 1), "live", None, False),
        (("data", 1), "live", 0, True),
        (("data", 2), "sealing", 4, False),
    ]
    shown = (await desk.types("status")).output
    assert "shop: 4 rows" in shown
    assert [line.split()[:3] for line in shown.splitlines() if "may be destroyed" in line] == [["data", "1", "live"]]
    assert "done, 4 rows renewed" in shown


async def test_no_key_is_shown(desk: Desk) -> None:
    ring = await desk.gateway.ring()
    told = json.dumps(await desk.status())
    assert "wrapped" not in told
    expected = ring.fingerprints[0][1].digest(b"")
    shown = re.findall(r"(?=([0-9a-f]{64}))", told)
    assert all(Mac(bytes.fromhex(each)).digest(b"") != expected for each in shown)


async def test_a_key_is_rotated_rewrapped_and_destroyed_by_typing_so(desk: Desk) -> None:
    held = {(await desk.gateway.put(number)).token: number for number in NUMBERS}
    assert (await desk.types("rotate", "shop")).exit_code == 0
    assert (await desk.types("destroy", "shop")).output == ""
    working = asyncio.create_task(desk.types("rewrap", "shop", "--rate", "1000"))
    while not working.done():
        await asyncio.sleep(0)
        desk.vault.clock.advance(await desk.gateway.rewrapper.step())
    result = working.result()
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "shop: done, 4 rows renewed"
    assert (await desk.types("destroy", "shop")).output == "data key 1: destroyed\n"
    assert await desk.vault.gateway().read_all(held) == list(held.values())
    states = [key["state"] for key in (await desk.status())["keys"] if key["key"] == "data"]  # type: ignore[attr-defined]
    assert states == ["destroyed", "sealing"]


async def test_the_command_may_end_before_the_work_does(desk: Desk) -> None:
    await desk.gateway.put(NUMBERS[0])
    assert (await desk.types("rewrap", "--no-wait")).output == ""
    assert (await desk.gateway.admin.rewrapping(["shop"]))["shop"] is not None


async def test_progress_is_told_while_it_waits_and_while_it_works(desk: Desk) -> None:
    await desk.gateway.put(NUMBERS[0])
    await desk.gateway.admin.rewrap("shop", 1)
    assert "waits" in (await desk.types("status", "shop")).output
    await desk.gateway.rewrapper.step()
    assert "0 of 1 rows looked at (0 %), 0 renewed" in (await desk.types("status", "shop")).output


async def test_a_tenant_is_shredded_only_if_that_is_said_twice(desk: Desk) -> None:
    await desk.gateway.put(NUMBERS[0])
    assert (await desk.types("shred", "shop")).exit_code == 1
    await desk.gateway.ring()
    assert (await desk.types("shred", "shop", "--yes")).exit_code == 0
    states = {key["state"] for key in (await desk.status())["keys"]}  # type: ignore[attr-defined]
    assert states == {"destroyed"}
    rotated = await desk.types("rotate", "shop")
    assert rotated.exit_code == 1
    assert "was destroyed" in rotated.output


async def test_old_rows_are_told_and_keep_a_tenant_from_being_shredded(desk: Desk) -> None:
    await desk.vault.put_old(NUMBERS[0])
    assert "1 rows under the deployment's key" in (await desk.types("status", "shop")).output
    await desk.gateway.ring()
    refused = await desk.types("shred", "shop", "--yes")
    assert refused.exit_code == 1
    assert "rewrap the tenant" in refused.output


async def test_a_rotation_that_has_to_wait_says_for_what(desk: Desk) -> None:
    await desk.gateway.ring()
    assert (await desk.types("rotate", "shop", "--key", "fingerprint")).exit_code == 0
    again = await desk.types("rotate", "shop", "--key", "fingerprint")
    assert again.exit_code == 1
    assert "destroy the older one" in again.output
    desk.vault.clock.advance(SETTLED_SECONDS)


async def test_while_the_service_is_away_nothing_is_promised(desk: Desk) -> None:
    desk.vault.service.away = True
    refused = await desk.types("rotate", "shop")
    assert refused.exit_code == 1
    assert "the keys is not available" in refused.output


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("rotate", {"tenant": "shop", "key": "root"}),
        ("rotate", {"key": "data"}),
        ("rotate", {"tenant": "", "key": "data"}),
        ("rewrap", {"tenant": "shop"}),
        ("rewrap", {"rate": 0}),
        ("rewrap", {"rate": 1, "tenant": 5}),
        ("destroy", {}),
        ("shred", []),
    ],
)
async def test_what_is_not_understood_changes_nothing(desk: Desk, path: str, document: object) -> None:
    actions = {action.path: action for action in vault_actions(desk.gateway.admin) if action.method == "POST"}
    status, answer = await actions[f"/vault/{path}"].perform({}, json.dumps(document).encode())
    assert (status, len(answer["complaints"])) == (400, 1)  # type: ignore[arg-type]
