from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `run` forbids its process it would forbid all tests that come after these."""
    monkeypatch.setattr("gateway.adapters.process_memory.forbid_dumps", lambda: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(folder: Path) -> Path:
    shutil.copy(ROOT / "config.yaml", folder)
    shutil.copytree(ROOT / "policies", folder / "policies")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def pangate(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_check_says_everything_that_is_wrong_on_standard_error_and_ends_with_1(folder: Path) -> None:
    (folder / "config.yaml").write_text("version: 2\nlistener: {}\n")
    result = pangate("check")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "config.yaml:1:10: version: expected 1\n" in result.stderr
    assert "config.yaml:2:1: listener: no such setting (did you mean 'listeners'?)\n" in result.stderr


def test_check_says_in_one_line_that_all_is_good(checkout: Path) -> None:
    assert pangate("certs", "dev").exit_code == 0
    result = pangate("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("config.yaml: good (6 routes, 3 policies, 3 listeners, 2 upstreams; digest ")
    assert result.stdout.count("\n") == 1


def test_certs_show_lists_every_certificate_by_its_end_and_fails_if_one_ends_too_soon(checkout: Path) -> None:
    pangate("certs", "dev")
    result = pangate("certs", "show", "--within", "0")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines == sorted(lines, key=lambda line: line[:10])
    for place in ("listeners.edge.tls.certificate  certs/server.pem", "listeners.edge.tls.client_ca", "mtls.ca"):
        assert any(place in line for line in lines)
    assert pangate("certs", "show", "--within", "100000").exit_code == 1


def test_a_warning_is_said_and_does_not_fail(checkout: Path) -> None:
    pangate("certs", "dev")
    shutil.copy("policies/read-payments.yaml", "policies/idle.yaml")
    result = pangate("check")
    assert result.exit_code == 0
    assert result.stderr == "policies/idle.yaml:3:1: warning: no route uses policy idle\n"


def test_run_refuses_what_check_refuses(checkout: Path) -> None:
    refused = pangate("check")
    assert refused.exit_code == 1
    assert (pangate("run").exit_code, pangate("run").stderr) == (1, refused.stderr)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[", b"- a", b"a: &x 1", b"listeners: 3", b"${"])
def test_no_configuration_makes_a_traceback(folder: Path, command: str, content: bytes) -> None:
    (folder / "config.yaml").write_bytes(content)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = CliRunner().invoke(main, [command], env=environ)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.stderr.startswith("config.yaml:1:")


def test_a_configuration_that_is_not_there_is_said() -> None:
    result = pangate("check", "--config", "none.yaml")
    assert (result.exit_code, result.stderr) == (1, "none.yaml:1:1: cannot be read: No such file or directory\n")


def test_schema_prints_json_schema() -> None:
    assert json.loads(pangate("schema").stdout)["title"] == "Pangate configuration or policy"
    assert "listeners" in json.loads(pangate("schema", "config").stdout)["properties"]
    assert "rules" in json.loads(pangate("schema", "policy").stdout)["properties"]
    assert pangate("schema", "polic").exit_code == 2


def test_certs_dev_writes_what_is_missing_and_never_another_vault_key(folder: Path) -> None:
    first = pangate("certs", "dev", "--directory", "keys")
    assert "keys/vault.key" in first.stdout.split("\n")
    vault = (folder / "keys/vault.key").read_bytes()
    assert pangate("certs", "dev", "--directory", "keys").stdout == ""
    forced = pangate("certs", "dev", "--directory", "keys", "--force")
    assert "keys/server.pem" in forced.stdout
    assert (folder / "keys/vault.key").read_bytes() == vault


def test_certs_dev_says_where_it_cannot_write(folder: Path) -> None:
    (folder / "certs").write_text("in the way")
    result = pangate("certs", "dev")
    assert result.exit_code == 1
    assert result.stderr == "Error: certs cannot be written: File exists\n"


def test_token_prints_an_access_token_of_the_development_issuer(folder: Path) -> None:
    pangate("certs", "dev")
    token = pangate("token", "--scope", "payments:read", "--sub", "till-9").stdout.strip()
    keys = jwt.PyJWKSet.from_json((folder / "certs/jwks.json").read_text())
    claims = jwt.decode(token, keys.keys[0], algorithms=["ES256"], audience="payments")
    assert (claims["scope"], claims["sub"]) == ("payments:read", "till-9")


@pytest.mark.usefixtures("folder")
def test_token_without_an_issuer_says_how_to_make_one() -> None:
    result = pangate("token")
    assert result.exit_code == 1
    assert "pangate certs dev" in result.stderr


@pytest.mark.usefixtures("folder")
def test_the_demo_says_that_it_needs_a_checkout() -> None:
    result = pangate("demo", "--once")
    assert result.exit_code == 1
    assert "the demo runs in a checkout" in result.stderr


def test_the_demo_ends_with_the_exit_code_of_the_story(folder: Path) -> None:
    story = folder / "examples/demo/story.py"
    story.parent.mkdir(parents=True)
    (folder / "examples/__init__.py").touch()
    (story.parent / "__init__.py").touch()
    story.write_text("def main(folder, *, once):\n    print(folder, once)\n    return 7\n")
    command = [sys.executable, "-m", "gateway.cli", "demo", "--once"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{folder} True\n", "")


def test_the_shipped_life_cycle_is_explored_and_drawn(folder: Path) -> None:
    result = pangate("lifecycle", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"card: \d+ payments, \d+ transitions explored: good\n", result.stdout)
    assert pangate("lifecycle", "draw").stdout.startswith("stateDiagram-v2\n")
    assert pangate("lifecycle", "draw", "--format", "dot").stdout.startswith("digraph lifecycle {\n")


def test_what_can_go_wrong_in_a_life_cycle_is_told_step_by_step(folder: Path) -> None:
    card = (ROOT / "gateway" / "lifecycles" / "card.yaml").read_text()
    (folder / "mine.yaml").write_text(card.replace("p.void == 0 and p.capture == 0 and", "p.void == 0 and"))
    result = pangate("lifecycle", "check", "mine.yaml")
    assert result.exit_code == 1
    assert "commands.void.guard: breaks captures_fit\n  1. external_authorize 1: authorized" in result.stdout
    drawn = pangate("lifecycle", "draw", "mine.yaml")
    assert (drawn.exit_code, drawn.stdout) == (1, "")
    assert "commands.void.guard: breaks captures_fit\n" in drawn.stderr
    (folder / "mine.yaml").write_text("version: 2\n")
    for command in ("check", "draw"):
        result = pangate("lifecycle", command, "mine.yaml")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "mine.yaml:1:10: version: expected 1\n" in result.stderr


SERVICES = """\
services:
  shop: {identity: "spiffe://shop.example/checkout", calls: [create-payment, get-payment]}
  payments:
    identity: spiffe://shop.example/payments
    owns: [payments, provider]
    calls: [provider, provider-sidecar]
    reveals: {pan: [provider], cvc: [provider]}
  provider: {external: true, calls: [provider-hooks, standard-hooks]}
"""


@pytest.mark.parametrize(
    ("form", "edge"),
    [
        ("mermaid", 's1 ==>|"provider reveals cvc, pan"| u1'),
        ("dot", '"service payments" -> "upstream provider" [style=bold, label="provider reveals cvc, pan"];'),
        ("json", '"route": "provider-sidecar"'),
    ],
)
def test_map_draws_the_paths_between_services(checkout: Path, form: str, edge: str) -> None:
    pangate("certs", "dev")
    with (checkout / "config.yaml").open("a") as file:
        file.write(SERVICES)
    result = pangate("map", "--format", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert edge in result.stdout


def test_map_says_where_there_is_nothing_to_draw(checkout: Path) -> None:
    pangate("certs", "dev")
    result = pangate("map")
    assert result.exit_code == 1
    assert "config.yaml declares no services" in result.stderr


def test_map_draws_nothing_that_could_not_run(checkout: Path) -> None:
    pangate("certs", "dev")
    with (checkout / "config.yaml").open("a") as file:
        file.write(SERVICES.replace("create-payment, ", ""))
    result = pangate("map")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "routes[0].name: no service calls it" in result.stderr
