"""What is shown and alerted of the vault's keys: asked of a real Prometheus, about a run in which a real OpenBao wraps
them, rows are rewrapped, and OpenBao then refuses.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy_queries import Query, dashboard_queries, watched_queries
from tests.e2e.demo_world import caller, demo_folder, demo_gateway, pay, serving
from tests.e2e.harness import Gateway, wait_until
from tests.e2e.prometheus import Prometheus, find_prometheus, running_prometheus
from tests.openbao import Bao, bao
from tests.upstreams import answering, scripted

__all__ = ["bao"]

PATIENCE = 60.0
FILE = "keys: {provider: file, key: file:certs/vault.key}"
KEY = "boards"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_OF_KEYS = re.compile(r"pangate_key_service|pangate_vault_rewrap")
OF_KEYS = [query for query in (*dashboard_queries("1m"), *watched_queries()) if _OF_KEYS.search(query.text)]


def asked(gateway: Gateway, path: str, **document: Any) -> int:
    """The status that an operator's command gets."""
    address = f"http://127.0.0.1:{gateway.ports['admin']}{path}"
    try:
        with urllib.request.urlopen(address, json.dumps(document).encode(), timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


async def until(happened: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, happened, PATIENCE, what)


def without_data(prometheus: Prometheus) -> list[Query]:
    return [query for query in OF_KEYS if not any(value > 0 for value in prometheus.query(query.text))]


def paid(gateway: Gateway, key: str) -> int:
    with caller(gateway, "edge", "partner") as client:
        return pay(gateway, client, key).status


def denied(gateway: Gateway, prometheus: Prometheus) -> bool:
    """One request more that OpenBao refuses; is all of it seen by now?"""
    assert asked(gateway, "/vault/rotate", tenant="default", key="tenant") == 503
    return not without_data(prometheus)


async def test_the_boards_and_alerts_of_keys_have_data_when_openbao_wraps_them(tmp_path: Path, bao: Bao) -> None:
    binary = await asyncio.to_thread(find_prometheus, tmp_path)
    if binary is None:
        pytest.skip("there is no prometheus on PATH, and no package manager to get one from")
    bao.ask("POST", f"transit/keys/{KEY}")
    token = bao.token(*(f"transit/{operation}/{KEY}" for operation in ("encrypt", "decrypt", "rewrap")))
    config = demo_folder(tmp_path) / "config.yaml"
    assert FILE in config.read_text()
    wrapped = f'keys: {{provider: openbao, url: "{bao.url}", token: env:BAO_TOKEN, key: {KEY}, timeout: 10s}}'
    config.write_text(config.read_text().replace(FILE, wrapped))
    async with scripted(answering(CREATED)) as shop:
        gateway = demo_gateway(tmp_path, shop=shop.port)
        gateway.env = {"BAO_TOKEN": token}
        async with serving(gateway):
            with running_prometheus(binary, tmp_path, gateway.ports["admin"]) as prometheus:
                await until(lambda: prometheus.scraped_after(0), "a scrape")
                assert await asyncio.to_thread(paid, gateway, "key-1") == 201
                assert (
                    await asyncio.to_thread(asked, gateway, "/vault/rotate", tenant="default", key="fingerprint") == 200
                )
                assert await asyncio.to_thread(asked, gateway, "/vault/rewrap", tenant="default", rate=1000) == 200
                await until(lambda: gateway.metric("pangate_vault_rewrapped_total") > 0, "a row that was rewrapped")
                bao.ask("POST", "auth/token/revoke", {"token": token})
                await until(lambda: denied(gateway, prometheus), "data of each panel and alert of keys")
                assert gateway.metric("pangate_key_service_requests_total", result="ok") > 0
                assert gateway.metric("pangate_key_service_requests_total", result="denied") > 0
        assert token not in gateway.log()
