"""Deliveries over the wire to a gateway that fetches its providers' keys, and what those ask before they deliver."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.adapters.clock import SystemClock
from gateway.adapters.keys import generate_key
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.app import Gateway
from gateway.check import check
from gateway.server.sockets import bound
from tests.webhooks.test_google import BODY, KEY, OTHER, SETTINGS, published, token

CONFIG = """\
version: 1
listeners:
  edge: {{bind: "127.0.0.1:0"}}
admin: {{bind: "127.0.0.1:0"}}
store: sqlite:var/pangate.db
keys: {{key: file:vault.key}}
upstreams:
  payments: {{url: "http://127.0.0.1:9"}}
routes:
  - name: google-hooks
    listener: edge
    match: {{methods: [POST], path: /google}}
    inbox: {{provider: google, expect: {{audience: "{audience}", email: "{email}", jwks: "{jwks}"}}}}
    upstream: payments
  - name: event-hooks
    listener: edge
    match: {{methods: [OPTIONS, POST], path: /events}}
    inbox:
      provider: cloudevents
      secrets: [file:token]
      expect: {{allowed_origins: [events.example], allowed_rate: 120}}
    upstream: payments
  - name: braintree-hooks
    listener: edge
    match: {{methods: [GET, POST], path: /braintree}}
    inbox: {{provider: braintree, secrets: [file:braintree]}}
    upstream: payments
drain: 1s
logging: {{level: error}}
"""
CHALLENGE = "20f9f8ed05f77439fe955c977e4c8a53"


class Google:
    """Publishes keys, or is away."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] | None = published(g1=KEY)
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=500) if self.keys is None else web.json_response(self.keys)


@pytest.fixture
async def google() -> AsyncIterator[tuple[Google, str]]:
    published_here = Google()
    app = web.Application()
    app.router.add_get("/certs", published_here.answer)
    async with TestServer(app) as server:
        yield published_here, str(server.make_url("/certs"))


@asynccontextmanager
async def serving(folder: Path, jwks: str) -> AsyncIterator[str]:
    """The address of a gateway."""
    (folder / "vault.key").touch(mode=0o600)
    (folder / "vault.key").write_text(generate_key())
    (folder / "policies").mkdir()
    (folder / "policies" / "unused.yaml").write_text("rules:\n  - {kind: rate_limit, key: [tenant], rate: 1/day}\n")
    (folder / "token").write_text("token")
    (folder / "braintree").write_text("integration_public_key:integration_private_key")
    (folder / "config.yaml").write_text(CONFIG.format(jwks=jwks, **SETTINGS))
    config = check(folder / "config.yaml")
    telemetry = PrometheusTelemetry(SystemClock(), io.BytesIO(), "error")
    gateway = Gateway(folder / "config.yaml", config, telemetry, lambda: None)
    listening: socket.socket = bound(config.settings.listeners["edge"].bind)
    try:
        await gateway.open({"edge": [listening]})
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        await gateway.close()


def fresh(**claims: Any) -> dict[str, str]:
    now = int(time.time())
    return {"Authorization": f"Bearer {token(iat=now - 10, exp=now + 3600, **claims)}"}


async def test_a_delivery_is_verified_by_keys_that_are_fetched_and_refused_by_others(
    tmp_path: Path, google: tuple[Google, str]
) -> None:
    publisher, jwks = google
    now = int(time.time())
    forged = {"Authorization": f"Bearer {token(OTHER, iat=now, exp=now + 3600)}"}
    async with serving(tmp_path, jwks) as address, aiohttp.ClientSession() as session:
        said = []
        for fields in (fresh(), fresh(), forged, fresh(email="push@evil.iam.gserviceaccount.com"), {}):
            async with session.post(f"{address}/google", data=BODY, headers=fields) as answer:
                said.append((answer.status, (await answer.json(content_type=None))["status"]))
    assert said == [(200, "accepted"), (200, "duplicate"), (400, 400), (400, 400), (400, 400)]
    assert publisher.asked == 1


async def test_while_the_keys_cannot_be_fetched_a_delivery_is_asked_for_again(
    tmp_path: Path, google: tuple[Google, str]
) -> None:
    publisher, jwks = google
    publisher.keys = None
    async with (
        serving(tmp_path, jwks) as address,
        aiohttp.ClientSession() as session,
        session.post(f"{address}/google", data=BODY, headers=fresh()) as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert (await answer.json(content_type=None))["type"] == "urn:pangate:problem:keys_unavailable"


async def test_providers_that_ask_before_they_deliver_are_answered(tmp_path: Path, google: tuple[Google, str]) -> None:
    async with serving(tmp_path, google[1]) as address, aiohttp.ClientSession() as session:
        ask = {"WebHook-Request-Origin": "events.example", "WebHook-Request-Rate": "60"}
        async with session.options(f"{address}/events", headers=ask) as answer:
            fields = [answer.headers[name] for name in ("Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate")]
            assert (answer.status, fields) == (200, ["POST", "events.example", "60"])
        async with session.options(f"{address}/events", headers={"WebHook-Request-Origin": "evil.example"}) as answer:
            assert (answer.status, "WebHook-Allowed-Origin" in answer.headers) == (403, False)
        async with session.get(f"{address}/braintree?bt_challenge={CHALLENGE}") as answer:
            body = "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4"
            assert (answer.status, await answer.text()) == (200, body)
