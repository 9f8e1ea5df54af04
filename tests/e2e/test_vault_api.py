"""The vault's own listener, as a service calls it: found, looked up, deleted, on record; and in no log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from examples.demo.wire import Answer
from gateway.cli import main
from tests.e2e.demo_world import CARD, JSON, caller, demo_folder, pay, provider_context, serving
from tests.e2e.harness import Gateway, free_ports
from tests.faults.test_reveal_intent import PAID, environment
from tests.upstreams import answering, scripted

ROUTES = """
  - {name: look-up, listener: vault, match: {methods: [GET], path: "/v1/tokens/{token}"}, policy: vault-look-up}
  - {name: find, listener: vault, match: {methods: [POST], path: /v1/tokens/find}, policy: vault-find}
  - {name: delete, listener: vault, match: {methods: [DELETE], path: "/v1/tokens/{token}"}, policy: vault-delete}
"""
LISTENER = """
  vault:
    bind: 127.0.0.1:${PANGATE_VAULT_PORT:-8446}
    tls:
      certificate: certs/server.pem
      key: file:certs/server.key
      client_ca: certs/services-ca.pem
      client_certificate: required

admin:"""
MTLS = "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n"
JWT = """
  - kind: jwt
    issuer: https://idp.example
    audience: payments
    jwks: file:certs/jwks.json
    scopes: [vault:delete]
"""
POLICIES = {
    "look-up": f"{MTLS}  - {{kind: vault, operation: look_up, last_four: true}}\n",
    "find": f"{MTLS}  - {{kind: rate_limit, key: [mtls.san], rate: 3/hour}}\n  - {{kind: vault, operation: find}}\n",
    "delete": f"{MTLS}{JWT}  - {{kind: vault, operation: delete}}\n",
}


class Vault:
    """A gateway with the listener, and a caller of it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def asks(self, method: str, path: str, body: Any = None, scope: str = "") -> Answer:
        headers = {**(JSON if body else {}), **({"Authorization": self.gateway.bearer(scope)} if scope else {})}
        content = b"" if body is None else json.dumps(body).encode()
        with caller(self.gateway, "vault", "shop") as client:
            return await asyncio.to_thread(client.ask, method, path, headers, content)

    async def types(self, *arguments: str) -> str:
        command = [*arguments, "--config", str(self.gateway.folder / "config.yaml")]
        runner = CliRunner(env=environment(self.gateway))
        return (await asyncio.to_thread(runner.invoke, main, command)).output


@asynccontextmanager
async def vault(folder: Path) -> AsyncIterator[tuple[Vault, str]]:
    """And the token of a card that was paid with."""
    demo_folder(folder, ROUTES)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("\nadmin:", LISTENER, 1))
    for name, text in POLICIES.items():
        (folder / "policies" / f"vault-{name}.yaml").write_text(text)
    async with scripted(answering(PAID)) as shop, scripted(answering(PAID), provider_context(folder)) as provider:
        ports = free_ports("edge", "egress", "sidecar", "admin", "vault")
        async with serving(Gateway(folder, {**ports, "shop": shop.port, "provider": provider.port})) as gateway:
            with caller(gateway, "edge", "partner") as client:
                assert (await asyncio.to_thread(pay, gateway, client, "one")).status == 201
            token = json.loads(shop.requests[0].partition(b"\r\n\r\n")[2])["card"]["number"]
            yield Vault(gateway), str(token)


async def test_a_token_is_found_looked_up_and_deleted_on_record_and_in_no_log(tmp_path: Path) -> None:
    async with vault(tmp_path) as (desk, token):
        found = await desk.asks("POST", "/v1/tokens/find", {"number": CARD})
        assert [each["token"] for each in found.json()["tokens"]] == [token]
        told = (await desk.asks("GET", f"/v1/tokens/{token}")).json()
        assert (told["class"], told["last_four"], told["deleted_at"]) == ("pan", CARD[-4:], None)

        refused = await desk.asks("DELETE", f"/v1/tokens/{token}", scope="payments:write")
        assert (refused.status, refused.json()["error"]["code"]) == (403, "scope_insufficient")
        for _ in range(2):
            assert (await desk.asks("DELETE", f"/v1/tokens/{token}", scope="vault:delete")).status == 204
        body = json.dumps({"card": {"number": token}}).encode()
        with caller(desk.gateway, "egress", "shop", "provider.egress.internal") as client:
            answer = await asyncio.to_thread(client.ask, "POST", "/v1/charges", JSON, body)
        assert (answer.status, answer.json()["error"]["code"]) == (422, "card_token_deleted")

        told = await desk.types("vault", "who", token)
        assert "deleted" in told
        assert "-> provider by route provider for authorisation: REFUSED, card_token_deleted" in told
        await desk.types("vault", "rotate", "default")
        verified = await desk.types("audit", "verify")
        assert "ok   default" in verified
        assert "BAD" not in verified
        assert CARD not in desk.gateway.log()
        assert token not in desk.gateway.log()


async def test_numbers_cannot_be_tried_out_and_strangers_do_not_get_in(tmp_path: Path) -> None:
    async with vault(tmp_path) as (desk, token):
        statuses = [(await desk.asks("POST", "/v1/tokens/find", {"number": CARD})).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert (await desk.asks("GET", f"/v1/tokens/{token}x")).status == 404
        assert (await desk.asks("GET", f"/v1/tokens/{CARD}")).status == 422
        assert (await desk.asks("GET", "/v1/tokens")).status == 404
        with pytest.raises(OSError), caller(desk.gateway, "vault", None) as client:
            await asyncio.to_thread(client.ask, "GET", f"/v1/tokens/{token}", {})
        assert CARD not in desk.gateway.log()
