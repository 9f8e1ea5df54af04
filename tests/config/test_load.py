from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway.config.complaints import ConfigError
from gateway.config.load import load
from tests.config.world import CONFIG, POLICY, built, lay_out, plan

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))


def parse_case(text: str) -> tuple[dict[str, str], list[str]]:
    """Files, each below a line `=== PATH`; then a line of dashes; then the plan or the complaints."""
    given, _, expected = text.partition("-----\n")
    files = {}
    for part in given.split("=== ")[1:]:
        name, _, content = part.partition("\n")
        files[name] = content
    return files, expected.splitlines()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_configuration_gives_this_plan_or_these_complaints(
    case: Path, tmp_path: Path, dev_certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, expected = parse_case(case.read_text(encoding="utf-8"))
    lay_out(tmp_path, dev_certificates, files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PANGATE_TEST_UNSET", raising=False)
    monkeypatch.setenv("PANGATE_TEST_WHSEC", "whsec_0123456789abcdefgh")
    try:
        config = load("config.yaml")
        got = plan(config, built(config, time.time()))
    except ConfigError as error:
        got = [str(complaint) for complaint in error.complaints]
    assert got == expected


def test_there_are_cases() -> None:
    assert len(CASES) > 40


def test_paths_are_below_the_directory_of_the_configuration(tmp_path: Path, dev_certificates: Path) -> None:
    text = CONFIG.replace("{bind: 127.0.0.1:8443}", '{bind: "unix:var/s.sock"}')
    policy = "rules:\n  - {kind: mtls, ca: certs/partners-ca.pem}\n"
    config = load(lay_out(tmp_path, dev_certificates, {"config.yaml": text, "policies/open.yaml": policy}))
    assert config.settings.store.path == f"{tmp_path}/var/pangate.db"
    assert config.settings.keys is not None
    assert config.settings.keys.key == f"file:{tmp_path}/certs/vault.key"
    assert config.settings.listeners["edge"].bind == f"unix:{tmp_path}/var/s.sock"
    assert config.policies["open"].rules[0].model_dump()["ca"] == f"{tmp_path}/certs/partners-ca.pem"


def test_the_digest_names_the_contents_of_every_file(tmp_path: Path, dev_certificates: Path) -> None:
    files = {
        "config.yaml": CONFIG.replace("file:certs/vault.key", "file:key"),
        "key": "1",
        "policies/open.yaml": POLICY,
    }
    path = lay_out(tmp_path, dev_certificates, files)
    seen = {load(path).digest}
    assert load(path).digest in seen
    for name in files:
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        seen.add(load(path).digest)
    assert len(seen) == 1 + len(files)


def test_a_missing_configuration_is_a_complaint() -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml:1:1: cannot be read: No such file or directory"):
        load("none.yaml")


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=":1:1: cannot be read: Is a directory"):
        load(tmp_path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12) | st.just("\0"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just("kind"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    key, *rest = path
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = replaced(copy[key], tuple(rest), value)
    return copy


ROOT = Path(__file__).parents[2]
SHIPPED = {
    name: YAML(typ="safe", pure=True).load((ROOT / name).read_text(encoding="utf-8"))
    for name in (
        "config.yaml",
        *(f"policies/{name}.yaml" for name in ("card-payments", "read-payments", "provider-out")),
    )
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, dev_certificates: Path) -> Path:
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "certs").symlink_to(dev_certificates)
    (directory / "examples").symlink_to(ROOT / "examples")
    (directory / "policies").mkdir()
    return directory


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_junk_in_any_place_of_the_shipped_configuration_is_a_complaint_or_legal(workplace: Path, data: Any) -> None:
    broken = data.draw(st.sampled_from(sorted(SHIPPED)))
    for name, content in SHIPPED.items():
        if name == broken:
            path = data.draw(st.sampled_from(places(content)))
            content = replaced(content, path, data.draw(JUNK))
        text = json.dumps(content).encode()
        (workplace / name).write_bytes(text)
    try:
        config = load(os.fspath(workplace / "config.yaml"), {})
        built(config, time.time())
    except ConfigError as error:
        for complaint in error.complaints:
            assert complaint.line >= 1
            str(complaint).encode()


def test_the_shipped_configuration_runs(workplace: Path) -> None:
    for name, content in SHIPPED.items():
        (workplace / name).write_text(json.dumps(content), encoding="utf-8")
    config = load(workplace / "config.yaml", {})
    assert plan(config, built(config, time.time())) == [
        "edge create-payment: [default] mtls, jwt, rate_limit, idempotency, tokenize -> payments",
        "edge get-payment: [default] mtls, jwt -> payments",
        "egress provider: [default] mtls, reveal, tokenize -> provider",
        "sidecar provider-sidecar: [default] mtls, reveal, tokenize -> provider",
        "edge provider-hooks: [default] inbox stripe /hooks/provider -> payments",
        "edge standard-hooks: [default] inbox standard /hooks/standard -> payments",
    ]
