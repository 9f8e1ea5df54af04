"""The composition root: what a reload may change, and what it says it cannot."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.app import Gateway
from gateway.check import check
from gateway.ports import Unavailable
from gateway.pure.routing import Found
from gateway.server.sockets import bound
from tests.servers import free_port, persistent_redis_url

__all__ = ["persistent_redis_url"]

CONFIG = """\
version: 1
listeners:
  egress:
    bind: 127.0.0.1:0
    tls:
      certificate: certs/server.pem
      key: file:certs/server.key
      client_ca: certs/services-ca.pem
      client_certificate: optional
admin: {bind: "127.0.0.1:0"}
store: sqlite:var/pangate.db
keys: {key: file:certs/vault.key}
upstreams:
  psp: {url: "http://127.0.0.1:9"}
routes:
  - {name: psp, listener: egress, match: {host: psp.example, path: /v1/**}, policy: out, upstream: psp}
drain: 1s
logging: {level: error}
"""
MTLS = "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n"
LIMIT = "  - {kind: rate_limit, key: [tenant], rate: 1/day}\n"
POLICY = MTLS + "  - {kind: reveal, fields: []}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_dev_certificates(tmp_path / "certs")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "out.yaml").write_text(POLICY)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


def rewrite(path: Path, before: str, after: str) -> None:
    changed = path.read_text().replace(before, after)
    assert changed != path.read_text()
    path.write_text(changed)


CODES = "  - {kind: tokenize, fields: [{select: $.card.cvc, class: cvc}]}\n"


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Gateway]:
    config = check(path)
    telemetry = PrometheusTelemetry(SystemClock(), io.BytesIO(), config.settings.logging.level)
    gateway = Gateway(path, config, telemetry, lambda: None)
    try:
        await gateway.open({name: [bound(listener.bind)] for name, listener in config.settings.listeners.items()})
        yield gateway
    finally:
        await gateway.close()


@pytest.mark.parametrize(
    ("before", "after", "blamed"),
    [
        ("client_certificate: optional", "client_certificate: required", "listeners.egress"),
        ("bind: 127.0.0.1:0\n    tls", "bind: 127.0.0.2:0\n    tls", "listeners.egress"),
        ("client_certificate: optional", "client_certificate: optional\n    limits: {max_body: 1MiB}", "egress"),
        ("level: error", "level: debug", "logging"),
        ("sqlite:var/pangate.db", "sqlite:var/other.db", "store"),
        ('"127.0.0.1:0"}', '"127.0.0.2:0"}', "admin"),
        ("keys: {", "shared: redis://127.0.0.1:9\nkeys: {", "shared"),
        ("certs/vault.key", "certs/other.key", "keys"),
        ("drain: 1s", "drain: 1s\nevents: {keep: 1d}", "events"),
    ],
)
async def test_a_reload_refuses_what_it_cannot_change_and_says_where(
    path: Path, before: str, after: str, blamed: str
) -> None:
    (path.parent / "certs" / "other.key").write_bytes((path.parent / "certs" / "vault.key").read_bytes())
    (path.parent / "certs" / "other.key").chmod(0o600)
    async with running(path) as gateway:
        rewrite(path, before, after)
        (complaint,) = await gateway.reload()
    assert complaint.startswith(f"{path}:")
    assert blamed in complaint
    assert complaint.endswith("needs a restart")


async def test_a_reload_applies_policies_certificates_and_upstreams(path: Path) -> None:
    async with running(path) as gateway:
        make_dev_certificates(path.parent / "certs", force=True)
        rewrite(path.parent / "policies" / "out.yaml", POLICY, POLICY.replace(MTLS, MTLS + LIMIT))
        rewrite(path, 'psp: {url: "http://127.0.0.1:9"}', 'psp: {url: "http://127.0.0.1:19"}')
        assert await gateway.reload() == []
        found = gateway._running.snapshot.tables["egress"].match("psp.example", "GET", "/v1/x")
    assert isinstance(found, Found)
    assert found.route.pipeline is not None
    assert [placed.kind for placed in found.route.pipeline.placed] == ["mtls", "rate_limit"]


async def test_codes_are_held_by_no_redis_that_writes_to_a_disk(path: Path, persistent_redis_url: str) -> None:
    rewrite(path, "keys: {", f"shared: {persistent_redis_url}\nkeys: {{")
    async with running(path) as gateway:
        rewrite(path.parent / "policies" / "out.yaml", POLICY, POLICY + CODES)
        (complaint,) = await gateway.reload()
        assert "writes to its disk" in complaint
    with pytest.raises(ValueError, match="writes to its disk"):
        async with running(path):
            pass


async def test_a_redis_that_is_away_keeps_nobody_from_starting_and_gets_no_code(path: Path) -> None:
    rewrite(path, "keys: {", f"shared: redis://127.0.0.1:{free_port()}\nkeys: {{")
    rewrite(path.parent / "policies" / "out.yaml", POLICY, POLICY + CODES)
    async with running(path) as gateway:
        assert await gateway.reload() == []
        with pytest.raises(Unavailable):
            await gateway._ports.sad.put("t", "token", b"737", 60)
