"""The keys of a gateway, as its configuration describes them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.keys import read_secret
from gateway.adapters.sqlite import open_sqlite
from gateway.config.complaints import ConfigError
from gateway.config.inert import NoTelemetry
from gateway.config.load import load
from gateway.keeping import make_service, open_keys
from gateway.ports import settled
from tests.conftest import Recorder
from tests.key_world import key_file

CONFIG = """\
version: 1
listeners:
  edge: {bind: 127.0.0.1:8443}
store: "sqlite:pangate.db"
upstreams:
  payments: {url: "http://127.0.0.1:9000"}
routes:
  - {name: pay, listener: edge, match: {path: /pay}, policy: open, upstream: payments}
"""
READ = functools.partial(read_secret, base=Path())
BAO = 'keys: {provider: openbao, url: "https://bao.internal:8200", token: env:BAO, key: pangate, per_tenant: true}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAO", "token")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(
        'rules: [{kind: rate_limit, key: [peer.address], rate: "9/second"}]'
    )
    for name in ("old.key", "new.key"):
        key_file(tmp_path / name)
    return tmp_path


def written(folder: Path, keys: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(CONFIG + keys)
    return path


def complaints(folder: Path, keys: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        make_service(load(written(folder, keys)), READ, NoTelemetry())
    return [str(complaint).partition(": ")[2] for complaint in error.value.complaints]


def test_without_keys_there_is_no_service(folder: Path) -> None:
    assert make_service(load(written(folder, "")), READ, NoTelemetry()) is None


async def test_values_live_through_a_change_of_the_key_file_and_its_end(folder: Path) -> None:
    store = open_sqlite(":memory:", clock=SystemClock(), telemetry=Recorder())
    sealed = []
    for keys in (
        "keys: {key: file:old.key}",
        "keys: {key: file:new.key, former: {key: file:old.key}}",
        "keys: {key: file:new.key}",
    ):
        opened = await open_keys(load(written(folder, keys)), READ, store, clock=SystemClock(), telemetry=Recorder())
        assert opened is not None
        ring = await settled(opened.ring("shop"))
        sealed.append((ring.seal(b"4242", b""), opened.seal("shop", "replay", b"kept", b"")))
        assert [ring.open(value, b"") for value, _ in sealed] == [b"4242"] * len(sealed)
        assert {opened.open("shop", "replay", value, b"") for _, value in sealed} == {b"kept"}
        if "former" in keys:
            assert [await opened.rewrap(tenant) for tenant in ("", "shop")] == [1, 1]
        await opened.close()
        if "former" in keys:
            (folder / "old.key").unlink()
    await store.close()


async def test_a_key_file_that_was_followed_without_rewrapping_is_missed(folder: Path) -> None:
    store = open_sqlite(":memory:", clock=SystemClock(), telemetry=Recorder())
    first = load(written(folder, "keys: {key: file:old.key}"))
    await open_keys(first, READ, store, clock=SystemClock(), telemetry=Recorder())
    second = load(written(folder, "keys: {key: file:new.key}"))
    with pytest.raises(Exception, match="keys"):
        await open_keys(second, READ, store, clock=SystemClock(), telemetry=Recorder())
    await store.close()


def test_openbao_may_follow_a_file(folder: Path) -> None:
    made = make_service(load(written(folder, BAO[:-2] + ", former: {key: file:old.key}}\n")), READ, NoTelemetry())
    assert made is not None
    assert made.inherited is not None
    alone = make_service(load(written(folder, BAO)), READ, NoTelemetry())
    assert alone is not None
    assert alone.inherited is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("keys: {key: file:missing.key}", "cannot be read"),
        ("keys: {key: vault.key}", "env:NAME or file:PATH"),
        ("keys: {key: env:KEY}", "expected file:PATH"),
        ("keys: {key: file:new.key, url: 'https://bao.internal'}", "a file takes no url"),
        ("keys: {provider: openbao, key: pangate, url: 'https://bao.internal'}", "openbao needs url and token"),
        (BAO.replace("key: pangate", "key: file:new.key"), "name of a key of the transit engine"),
        (BAO.replace("key: pangate", "key: ../sys"), "name of a key of the transit engine"),
        (BAO.replace("https", "http"), "https:// only"),
        (BAO.replace("8200", "8200/v1"), "without a path"),
        (BAO.replace("env:BAO", "env:NOT_SET"), "not set"),
        (BAO.replace("per_tenant: true", "mount: ../x"), "mount"),
        ("keys: {key: file:new.key, rotate_after: 4294967296}", "rotate_after"),
        ("keys: {key: file:new.key, keep: 1s}", "keep"),
        ("keys: {key: file:new.key, former: {key: file:missing.key}}", "cannot be read"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(folder: Path, keys: str, said: str) -> None:
    found = complaints(folder, keys)
    assert len(found) == 1
    assert said in found[0]
