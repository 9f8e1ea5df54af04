from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway.server.admin import Admin


class Gateway:
    """What the admin listener is told about."""

    def __init__(self) -> None:
        self.state: dict[str, bool] = {"store": True, "shared": True}
        self.complaints: Sequence[str] | Exception = ()

    async def checks(self) -> Mapping[str, bool]:
        return self.state

    async def reload(self) -> Sequence[str]:
        if isinstance(self.complaints, Exception):
            raise self.complaints
        return self.complaints


@asynccontextmanager
async def admin(gateway: Gateway) -> AsyncIterator[tuple[Admin, Any]]:
    it = Admin(checks=gateway.checks, scrape=lambda: (b"up 1\n", "text/plain; version=1"), reload=gateway.reload)
    await it.open("127.0.0.1:0")

    async def ask(method: str, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        async with aiohttp.request(method, f"http://127.0.0.1:{it.port}{path}", headers=headers) as answer:
            return answer.status, answer.headers.copy(), await answer.read()

    try:
        yield it, ask
    finally:
        await it.close()


async def test_the_process_is_alive_whatever_else_is_down() -> None:
    gateway = Gateway()
    gateway.state["store"] = False
    async with admin(gateway) as (it, ask):
        it.retire()
        assert (await ask("GET", "/healthz"))[0] == 200


async def test_readiness_names_each_check() -> None:
    gateway = Gateway()
    async with admin(gateway) as (_, ask):
        assert (await ask("GET", "/readyz"))[0] == 200
        gateway.state["store"] = False
        status, _, body = await ask("GET", "/readyz")
        assert status == 503
        assert json.loads(body) == {"ready": False, "checks": {"accepting": True, "store": False, "shared": True}}


async def test_a_gateway_that_retires_is_not_ready() -> None:
    async with admin(Gateway()) as (it, ask):
        it.retire()
        status, _, body = await ask("GET", "/readyz")
        assert (status, json.loads(body)["checks"]["accepting"]) == (503, False)


async def test_metrics_keep_their_media_type() -> None:
    async with admin(Gateway()) as (_, ask):
        status, headers, body = await ask("GET", "/metrics")
        assert (status, headers["Content-Type"], body) == (200, "text/plain; version=1", b"up 1\n")


@pytest.mark.parametrize(
    ("complaints", "status", "told"),
    [
        ((), 200, []),
        (["config.yaml:3:1: unknown key"], 409, ["config.yaml:3:1: unknown key"]),
        (RuntimeError("secret"), 500, ["The reload failed: RuntimeError."]),
    ],
)
async def test_a_reload_tells_whether_it_was_applied(complaints: Any, status: int, told: list[str]) -> None:
    gateway = Gateway()
    gateway.complaints = complaints
    async with admin(gateway) as (_, ask):
        answered, _, body = await ask("POST", "/reload")
        assert (answered, json.loads(body)) == (status, {"applied": status == 200, "complaints": told})


async def test_a_web_page_cannot_reload() -> None:
    async with admin(Gateway()) as (_, ask):
        assert (await ask("POST", "/reload", Origin="http://evil.example"))[0] == 403
        assert (await ask("GET", "/reload"))[0] == 405


async def test_the_software_is_not_named() -> None:
    async with admin(Gateway()) as (_, ask):
        for path in ("/healthz", "/nowhere"):
            assert (await ask("GET", path))[1]["Server"] == "pangate"
