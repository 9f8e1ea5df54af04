"""The example that starts two gateways on one database: a valid compose file, and a configuration that can run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.adapters.dev_certificates import make_dev_certificates
from gateway.check import check

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "compose"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(EXAMPLE / "compose.yaml")
GATEWAYS = ("gateway-1", "gateway-2")


def test_the_file_is_one_of_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(EXAMPLE / "compose.yaml")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_configuration_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "compose"
    shutil.copytree(EXAMPLE, folder)
    make_dev_certificates(folder / "certs")
    for name in COMPOSE["secrets"]:
        (tmp_path / name).write_text("not-a-secret")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("/run/secrets", str(tmp_path)))
    monkeypatch.setenv("PAYMENTS_URL", "http://127.0.0.1:9000")
    assert check(config).settings.store.place is not None


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_may_write_nothing_and_waits_for_what_it_needs(name: str) -> None:
    gateway = COMPOSE["services"][name]
    assert (gateway["read_only"], gateway["cap_drop"], gateway["restart"]) == (True, ["ALL"], "always")
    assert gateway["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert set(gateway["secrets"]) == set(COMPOSE["secrets"])


def test_gateways_are_called_differently_and_prometheus_scrapes_them_all() -> None:
    assert {COMPOSE["services"][name]["hostname"] for name in GATEWAYS} == set(GATEWAYS)
    scrape = YAML(typ="safe").load(EXAMPLE / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scrape == [f"{name}:9901" for name in GATEWAYS]


def test_every_file_that_is_mounted_is_there_or_is_made_by_the_first_steps() -> None:
    made = {"./certs"}
    mounted = {
        volume.partition(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", ())
    }
    missing = [path for path in mounted if path.startswith(".") and not (EXAMPLE / path).exists()]
    assert set(missing) - made == set()


def test_no_image_floats() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    assert [image for image in images if image.endswith(":latest") or ":" not in image] == []
