"""What `shared:` says is what is made of it, and what it cannot mean is said at its place."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.keys import read_secret
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.config.complaints import ConfigError
from gateway.config.inert import NoKeys
from gateway.config.load import load
from gateway.ports import SadVault, Shared
from gateway.reaching import RedisServers
from gateway.sharing import make_shared
from tests.config.world import CONFIG, POLICY
from tests.conftest import Recorder
from tests.redis_deployments import RedisCluster, redis_cluster
from tests.servers import redis_url

__all__ = ["redis_cluster", "redis_url"]


def written(folder: Path, shared: str) -> Path:
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text(POLICY)
    (folder / "nonsense").write_text("hunter2")
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("keys: {key: file:certs/vault.key}\n", "") + f"shared: {shared}\n")
    return path


def made(path: Path) -> tuple[Shared, SadVault]:
    config = load(path)
    servers = RedisServers(config, functools.partial(read_secret, base=Path()))
    outside = {"clock": SystemClock(), "entropy": os.urandom, "keys": NoKeys(), "telemetry": Recorder()}
    return make_shared(config.settings.shared, servers, **outside)  # type: ignore[arg-type]


def complaints(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        made(path)
    return [str(complaint).removeprefix(f"{path}:") for complaint in raised.value.complaints]


async def first_uses(path: Path) -> list[bool]:
    shared, _ = made(path)
    try:
        return [await shared.first_use([f"{path}"], 60.0) for _ in range(2)]  # type: ignore[misc]
    finally:
        await shared.close()


@pytest.mark.parametrize("shared", ["memory", "{url: memory}", "{}"])
def test_without_a_server_counters_are_in_memory(tmp_path: Path, shared: str) -> None:
    counters, codes = made(written(tmp_path, shared))
    assert isinstance(counters, MemoryShared)
    assert isinstance(codes, MemorySad)


async def test_one_server_is_named_by_its_url(tmp_path: Path, redis_url: str) -> None:
    assert await first_uses(written(tmp_path, redis_url)) == [True, False]


async def test_a_cluster_is_learnt_from_one_of_its_servers(tmp_path: Path, redis_cluster: RedisCluster) -> None:
    path = written(tmp_path, f'{{cluster: ["{redis_cluster.servers[1].url}"], timeout: 2s, connections: 4}}')
    assert await first_uses(path) == [True, False]


@pytest.mark.parametrize(
    ("shared", "complaint"),
    [
        ("http://localhost", "9: shared: expected memory, redis://HOST[:PORT] or rediss://HOST[:PORT]"),
        ("redis://u:pw@localhost", "9: shared: a URL holds no user name or password"),
        ("redis://localhost/2", "9: shared: a URL names the server alone; write database: 2 beside it"),
        ('"rediss://localhost?ssl_cert_reqs=none"', "9: shared: expected memory, redis://HOST[:PORT]"),
        ("{url: memory, password: env:X}", "9: shared: memory takes no password"),
        ('{url: "redis://a", cluster: ["redis://b"]}', "9: shared: has one of url, sentinel and cluster"),
        ('{url: "redis://a", tls: {ca: nonsense}}', "9: shared: tls is for rediss://"),
        ('{url: "rediss://a", tls: {key: file:nonsense}}', "34: shared.tls: certificate and key belong together"),
        ('{url: "redis://a", password: hunter2}', "38: shared.password: expected env:NAME or file:PATH"),
        ('{url: "redis://a", timeout: 6s}', "37: shared.timeout: must be at most 5"),
        ('{url: "redis://a", connexions: 6}', "28: shared.connexions: no such setting (did you mean 'connections'?)"),
        ("{cluster: []}", "19: shared.cluster: must not be empty"),
        ('{cluster: ["redis://a", "rediss://b"]}', "9: shared: all servers are redis://, or all of them rediss://"),
        ('{cluster: ["redis://a", "b:6379"]}', "33: shared.cluster[1]: expected redis://HOST[:PORT]"),
        ('{cluster: ["redis://a"], database: 1}', "9: shared: a cluster has no database but 0"),
        ('{sentinel: {servers: ["redis://a"]}}', "20: shared.sentinel: needs master"),
        (
            '{sentinel: {master: m, servers: ["redis://a"], tls: {ca: nonsense}}}',
            "20: shared.sentinel: tls is for rediss://",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_at_its_place(tmp_path: Path, shared: str, complaint: str) -> None:
    found = complaints(written(tmp_path, shared))
    assert any(line.startswith(f"9:{complaint}") for line in found), found
    assert not any(secret in line for line in found for secret in ("hunter2", "pw@"))


@pytest.mark.parametrize(
    ("shared", "warned"),
    [
        ('{url: "redis://counters.internal", password: env:X}', True),
        ('{cluster: ["redis://localhost", "redis://10.0.0.1"], password: env:X}', True),
        ('{sentinel: {master: m, servers: ["redis://10.0.0.1"], password: env:X}}', True),
        ('{sentinel: {master: m, servers: ["redis://10.0.0.1"]}, password: env:X}', True),
        ('{sentinel: {master: m, servers: ["redis://10.0.0.1"]}, password: env:X, tls: {}}', False),
        ('{url: "rediss://counters.internal", password: env:X}', False),
        ('{url: "redis://127.0.0.1", password: env:X}', False),
        ("redis://counters.internal", False),
    ],
)
def test_a_password_that_is_sent_in_clear_is_warned_of(tmp_path: Path, shared: str, warned: bool) -> None:
    warnings = [str(warning) for warning in load(written(tmp_path, shared)).warnings]
    assert any("shared: the password is sent in clear" in warning for warning in warnings) == warned


def test_everything_that_cannot_be_used_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANGATE_TEST_UNSET", raising=False)
    path = written(
        tmp_path,
        '{sentinel: {master: m, servers: ["rediss://a"], password: env:PANGATE_TEST_UNSET, tls: {ca: nonsense}},'
        " password: env:PANGATE_TEST_UNSET, tls: {ca: nonsense}}",
    )
    assert [line.partition(": ")[2] for line in complaints(path)] == [
        "shared.sentinel.password: env:PANGATE_TEST_UNSET is not set",
        "shared.sentinel.tls: the files are not PEM, or certificate and key do not belong together",
        "shared.password: env:PANGATE_TEST_UNSET is not set",
        "shared.tls: the files are not PEM, or certificate and key do not belong together",
    ]
