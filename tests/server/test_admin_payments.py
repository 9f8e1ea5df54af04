"""Calls in doubt over the admin listener, as `pangate payments` asks for them: both ends real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.server.admin import Admin
from gateway.server.admin_payments import payment_actions
from tests.config.world import CONFIG, POLICY
from tests.workers.resolver_scene import LOST, MANUAL, REPLAY, Scene, answer, reason, scene


class Desk:
    """An operator's command line beside a running gateway."""

    def __init__(self, it: Scene, config: Path, port: int) -> None:
        self.it = it
        self.config = config
        self.url = f"http://127.0.0.1:{port}/payments"

    async def types(self, *arguments: str) -> Result:
        command = ["payments", *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        result = await self.types("list", *arguments)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.output.splitlines()]

    async def posts(self, body: str, action: str = "done", **headers: str) -> int:
        async with aiohttp.request("POST", f"{self.url}/{action}", data=body, headers=headers) as said:
            return said.status


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    async with scene(folder) as it:
        nothing: Any = None
        admin = Admin(checks=nothing, scrape=nothing, reload=nothing, actions=payment_actions(it.resolver))
        await admin.open("127.0.0.1:0")
        (folder / "policies").mkdir()
        (folder / "policies" / "open.yaml").write_text(POLICY)
        config = folder / "config.yaml"
        text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "")
        config.write_text(text + f"admin: {{bind: 127.0.0.1:{admin.port}}}\n")
        it.client.says = [LOST]
        try:
            yield Desk(it, config, admin.port)
        finally:
            await admin.close()


async def test_what_is_in_doubt_is_listed_without_a_word_of_the_request(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        assert await it.listed() == []
        it.it.configure(MANUAL)
        await it.it.send(body=b'{"secret":"4242424242424242"}')
        (call,) = await it.listed()
        assert (call["tenant"], call["id"], call["route"], call["in_doubt"]) == ("default", "req-1", "pay", "manual")
        assert (call["attempt"], call["next_at"], call["sent_at"]) == (1, None, it.it.clock.now())
        assert "4242" not in str(call)
        assert await it.listed("--tenant", "rival") == []


async def test_done_ends_it_and_failed_frees_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.it.configure(MANUAL)
        await it.it.send("k1")
        await it.it.send("k2")
        assert (await it.types("done", "default", "req-1", "--note", "ticket 7")).exit_code == 0
        assert (await it.types("failed", "default", "req-2")).exit_code == 0
        assert await it.listed() == []
        it.it.client.says = [answer()]
        assert reason(await it.it.send("k1")) == "response_not_retained"
        assert (await it.it.send("k2")).status == 201


async def test_retry_looks_now(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.it.configure(REPLAY)
        await it.it.send()
        assert (await it.types("retry", "default", "req-1")).exit_code == 0
        await it.it.look()
        assert (await it.it.send()).status == 201


async def test_what_cannot_be_decided_says_why(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.it.configure(MANUAL)
        await it.it.send()
        unknown = await it.types("done", "default", "req-9")
        manual = await it.types("retry", "default", "req-1")
        assert (unknown.exit_code, manual.exit_code) == (1, 1)
        assert "there is no such call in doubt" in unknown.output
        assert "in_doubt: manual" in manual.output


@pytest.mark.parametrize("body", ["", "[]", "{", '{"tenant": 1, "id": "a"}', '{"id":"' + "x" * 201 + '"}'])
async def test_what_is_not_understood_decides_nothing(tmp_path: Path, body: str) -> None:
    async with desk(tmp_path) as it:
        assert await it.posts(body) == 400


@pytest.mark.parametrize(
    ("action", "alias"), [("done", "a b"), ("done", ".."), ("done", "x" * 256), ("done", 7), ("failed", "pi_1")]
)
async def test_a_providers_id_that_is_none_or_out_of_place_decides_nothing(
    tmp_path: Path, action: str, alias: Any
) -> None:
    async with desk(tmp_path) as it:
        body = json.dumps({"tenant": "default", "id": "req-1", "provider_id": alias})
        assert await it.posts(body, action) == 400


async def test_the_providers_id_of_the_payment_goes_with_done(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.it.configure(MANUAL)
        await it.it.send()
        done = await it.types("done", "default", "req-1", "--provider-id", "pi_1")
        assert (done.exit_code, "made a new payment" in done.output) == (1, True)
        assert (await it.types("failed", "default", "req-1", "--provider-id", "pi_1")).exit_code == 2


async def test_no_web_page_decides(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.it.configure(MANUAL)
        await it.it.send()
        body = '{"tenant":"default","id":"req-1"}'
        assert await it.posts(body, Origin="http://127.0.0.1") == 403
        assert await it.posts(body, **{"Sec-Fetch-Site": "same-origin"}) == 403
        assert len(await it.listed()) == 1
        assert await it.posts(body) == 200


async def test_while_the_store_is_away_that_is_what_is_said(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.it.ports.store.close()
        assert await it.posts('{"tenant":"default","id":"req-1"}') == 503
        assert "the store is not available" in (await it.types("list")).output
