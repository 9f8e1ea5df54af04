"""Upstreams across reloads: what stayed as it was goes on as it is, what did not is drained."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from gateway.adapters.upstream_signing import SigningCluster
from gateway.config.load import Config, load
from gateway.pure.metrics import Metric
from gateway.upstreams import Upstreams
from tests.conftest import CountingEntropy, HandClock, Recorder

CONFIG = """\
version: 1
listeners:
  edge: {bind: 127.0.0.1:8443}
store: sqlite:var/pangate.db
upstreams:
UPSTREAMS
routes:
  - {name: pay, listener: edge, match: {path: /pay}, policy: open, upstream: payments}
"""
ONE = """
  payments: {url: "http://127.0.0.1:9"}
  psp: {url: "https://localhost:9", health: {active: {path: /healthz, interval: 1h}}}
"""
OTHER = """
  payments: {url: "http://127.0.0.1:9", endpoints: [{address: "127.0.0.1:9", weight: 9}, {address: "[::1]:9"}]}
  psp: {url: "https://localhost:9", health: {active: {path: /healthz, interval: 1h}}}
"""
LESS = """
  payments: {url: "http://127.0.0.1:9"}
"""


@pytest.fixture
def upstreams(clock: HandClock, telemetry: Recorder) -> Upstreams:
    keys = itertools.count(1)
    return Upstreams(clock, CountingEntropy(), telemetry, lambda _: str(next(keys)).encode() * 32)


def configured(folder: Path, upstreams: str) -> Config:
    (folder / "policies").mkdir(exist_ok=True)
    policy = "rules:\n  - {kind: rate_limit, key: [peer.address], rate: 5/second}\n"
    (folder / "policies" / "open.yaml").write_text(policy)
    (folder / "config.yaml").write_text(CONFIG.replace("UPSTREAMS", upstreams))
    return load(str(folder / "config.yaml"))


async def test_what_a_reload_leaves_as_it_was_is_the_same_object(upstreams: Upstreams, tmp_path: Path) -> None:
    before = upstreams.plan(configured(tmp_path, ONE))
    await upstreams.adopt()
    after = upstreams.plan(configured(tmp_path, OTHER))
    await upstreams.adopt()
    assert after["psp"] is before["psp"]
    assert after["payments"] is not before["payments"]
    assert [(endpoint.name, endpoint.weight) for endpoint in after["payments"].endpoints] == [
        ("127.0.0.1:9", 9),
        ("::1:9", 1),
    ]
    await upstreams.close()


async def test_a_plan_that_is_not_adopted_changes_nothing(
    upstreams: Upstreams, telemetry: Recorder, tmp_path: Path
) -> None:
    before = upstreams.plan(configured(tmp_path, ONE))
    await upstreams.adopt()
    upstreams.plan(configured(tmp_path, OTHER))
    assert upstreams.plan(configured(tmp_path, ONE)) == before
    assert telemetry.counts[Metric.UPSTREAM_ENDPOINTS, ("payments", "available")] == 1
    await upstreams.close()


async def test_what_is_to_be_signed_is_signed_by_the_key_that_there_is_now(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    config = configured(tmp_path, ONE.replace('9"}', '9", sign: {id: k1, algorithm: hmac-sha256, key: env:KEY}}', 1))
    before = upstreams.plan(config)
    await upstreams.adopt()
    after = upstreams.plan(config)
    await upstreams.adopt()
    assert isinstance(before["payments"], SigningCluster)
    assert isinstance(after["payments"], SigningCluster)
    assert after["payments"].cluster is before["payments"].cluster
    assert (before["payments"].key.key, after["payments"].key.key) == (b"1" * 32, b"2" * 32)
    await upstreams.close()


async def test_only_names_and_health_checks_are_looked_after_and_no_task_is_left(
    upstreams: Upstreams, telemetry: Recorder, tmp_path: Path
) -> None:
    tasks = len(asyncio.all_tasks())
    made = upstreams.plan(configured(tmp_path, ONE))
    assert {name: cluster.needs_care for name, cluster in made.items()} == {"payments": False, "psp": True}
    await upstreams.adopt()
    assert len(asyncio.all_tasks()) == tasks + 1
    upstreams.plan(configured(tmp_path, LESS))
    await upstreams.adopt()
    assert len(asyncio.all_tasks()) == tasks
    assert telemetry.counts[Metric.UPSTREAM_ENDPOINTS, ("psp", "available")] == 0
    assert telemetry.counts[Metric.UPSTREAM_ENDPOINTS, ("payments", "available")] == 1
    await upstreams.close()
