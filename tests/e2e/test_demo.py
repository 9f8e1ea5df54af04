"""The demo as `make demo ONCE=1` runs it: the story is told to its end, and not without each rule of the policies."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo import story
from examples.demo.cast import PORTS
from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.config.reader import Source, read
from tests.e2e.harness import free_ports, listens
from tests.postgres import Server, postgres_server

__all__ = ["postgres_server"]

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
SECONDS = 60

Rule = tuple[str, int, str]
"""Policy, position in it, kind."""

PROTECTS: Mapping[Rule, str] = {
    ("card-payments", 0, "mtls"): "no_certificate_no_entry",
    ("card-payments", 1, "jwt"): "no_access_token_no_payment",
    ("card-payments", 2, "rate_limit"): "a_flood_is_stopped",
    ("card-payments", 3, "idempotency"): "a_retry_is_answered_not_charged_again",
    ("card-payments", 4, "tokenize"): "a_card_goes_in_and_a_token_comes_through",
    ("provider-out", 0, "mtls"): "a_service_without_a_grant_reveals_nothing",
    ("provider-out", 1, "reveal"): "the_provider_gets_the_true_card",
    ("provider-out", 2, "tokenize"): "what_the_provider_echoes_is_a_token_again",
    ("read-payments", 0, "mtls"): "reading_takes_its_own_scope",
    ("read-payments", 1, "jwt"): "reading_takes_its_own_scope",
}
"""The step of the story that each rule protects."""
INSTEAD: Mapping[Rule, str] = {
    ("provider-out", 0, "mtls"): "  - {kind: mtls, ca: certs/services-ca.pem}",
    ("provider-out", 1, "reveal"): "  - {kind: reveal, fields: []}",
}
"""What protects nothing, in the place of rules without which no egress route is taken."""


@dataclass(frozen=True, slots=True)
class Telling:
    """How one run of the demo ended: its exit code, what it wrote to var/reports/demo.json, and what it said."""

    code: int
    report: Mapping[str, Any]
    said: str


def demo(folder: Path, ports: Mapping[str, int], kind: str = "--once") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{f"PANGATE_{name}_PORT": str(port) for name, port in ports.items()}}
    command = [sys.executable, "-m", "gateway.cli", "demo", kind, "--config", str(folder / "config.yaml")]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def policy(path: Path) -> Source:
    source = read(str(path), path.read_bytes(), {}, [])
    assert source is not None
    return source


def rules() -> Iterator[Rule]:
    """All that the demo's policies hold."""
    for path in sorted((ROOT / "policies").glob("*.yaml")):
        for position, rule in enumerate(policy(path).data["rules"]):
            yield path.stem, position, rule["kind"]


def remove(path: Path, position: int, instead: str) -> None:
    """Blank the lines of one item of a policy's list, but for what stands there instead."""
    source = policy(path)
    starts = [source.values["rules", i][0] - 1 for i in range(len(source.data["rules"]))]
    lines = path.read_text().splitlines()
    end = [*starts, len(lines)][position + 1]
    lines[starts[position] : end] = [instead] + [""] * (end - starts[position] - 1)
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo needs of a checkout, and certificates."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "config.yaml", folder)
    for part in ("policies", "examples"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    make_dev_certificates(folder / "certs")
    return folder


@pytest.fixture(scope="module")
def tellings(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Rule | None, Telling]:
    """The demo with all rules (None), and without each of them."""

    def tell(without: Rule | None) -> Telling:
        folder = tmp_path_factory.mktemp("demo") / "copy"
        shutil.copytree(checkout, folder)
        if without is not None:
            remove(folder / "policies" / f"{without[0]}.yaml", without[1], INSTEAD.get(without, ""))
        ended = demo(folder, free_ports(*story.Stage.at(folder).ports))
        written = folder / "var" / "reports" / "demo.json"
        report = json.loads(written.read_text()) if written.exists() else {}
        return Telling(ended.returncode, report, ended.stdout + ended.stderr)

    versions = [None, *PROTECTS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(versions, pool.map(tell, versions), strict=True))


def test_every_step_happens_and_leaves_its_bytes(tellings: Mapping[Rule | None, Telling]) -> None:
    telling = tellings[None]
    assert telling.code == 0, telling.said[-3000:]
    assert telling.report["complete"]
    steps = telling.report["steps"]
    assert [step["step"] for step in steps] == [step.__name__ for step in story.STEPS]
    assert all(step["happened"] and step["wire"] for step in steps)
    wire = b"".join(base64.b64decode(raw) for step in steps for pair in step["wire"] for raw in pair.values())
    assert wire.count(b"HTTP/1.1 201 ") >= 2


def test_every_step_happens_on_postgresql(checkout: Path, tmp_path: Path, postgres_server: Server) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkout, folder)
    config = folder / "config.yaml"
    store = f"store: {postgres_server.migrated()}"
    config.write_text(config.read_text().replace("store: sqlite:var/pangate.db", store))
    assert store in config.read_text()
    ended = demo(folder, free_ports(*story.Stage.at(folder).ports))
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    assert not list(folder.glob("var/*.db"))


def test_the_table_names_every_rule_of_the_demo() -> None:
    assert set(PROTECTS) == set(rules())


@pytest.mark.parametrize("rule", PROTECTS, ids=lambda rule: f"{rule[0]}-{rule[2]}")
def test_without_a_rule_the_story_stops_at_the_step_that_it_protects(
    tellings: Mapping[Rule | None, Telling], rule: Rule
) -> None:
    telling = tellings[rule]
    assert telling.code == 1, telling.said[-3000:]
    assert telling.report.get("failed") == PROTECTS[rule], telling.said[-3000:]


def test_taken_ports_are_named_all_at_once_with_what_to_do(checkout: Path) -> None:
    ports = free_ports(*story.Stage.at(checkout).ports)
    with (
        socket.create_server(("127.0.0.1", ports["EGRESS"])),
        socket.create_server(("127.0.0.1", ports["SHOP"])),
    ):
        ended = demo(checkout, ports)
    assert ended.returncode == 1
    assert f"{ports['EGRESS']} (egress), {ports['SHOP']} (shop);" in ended.stderr
    assert "PANGATE_EGRESS_PORT=" in ended.stderr
    assert "PANGATE_SHOP_PORT=" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


def test_a_port_that_is_no_port_is_named(checkout: Path) -> None:
    for wrong in ("http", "0", "65536"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PANGATE_EDGE_PORT", wrong)
            ended = demo(checkout, {})
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == f"demo: PANGATE_EDGE_PORT is {wrong!r}; set it to a port, from 1 to 65535\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_until_it_is_told_to_end_and_leaves_no_process_behind(
    checkout: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(checkout, folder)
    ports = free_ports(*PORTS)
    environment = {**os.environ, **{f"PANGATE_{name}_PORT": str(port) for name, port in ports.items()}}
    command = [sys.executable, "-m", "gateway.cli", "demo", "--config", str(folder / "config.yaml")]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ctrl-C ends it" in line for line in process.stdout)
        assert all(listens(port) for port in ports.values())
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
    assert not any(listens(port) for port in ports.values())
