"""A real Prometheus, for as long as a test wants one: its own folder, its own port, no service of the system."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.deploy_queries import PROMETHEUS
from tests.e2e.harness import free_port, wait_until

EVERY = "200ms"
"""How often it scrapes and evaluates: the shipped example's 15 s, hurried."""
_FETCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    port: int

    def query(self, text: str) -> list[float]:
        """The values of an instant query now. What is no number is no value."""
        found = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": text}))
        values = [float(sample["value"][1]) for sample in found["result"]]
        return [value for value in values if value == value]

    def failing_rules(self) -> list[str]:
        """Names of recording and alerting rules that were not evaluated, or not without an error."""
        groups = self._get("/api/v1/rules")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    def scraped_after(self, unix_time: float) -> bool:
        """Was the gateway's answer to a scrape stored that began after this time?"""
        return any(began > unix_time for began in self.query('timestamp(up{job="pangate"}) and up == 1'))

    def ready(self) -> bool:
        try:
            self._get("/api/v1/status/buildinfo")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return json.load(response)["data"]


@contextlib.contextmanager
def running_prometheus(binary: Path, folder: Path, target: int) -> Iterator[Prometheus]:
    """The example's configuration and rules, but hurried and aimed at the admin listener on the port `target`."""
    port = free_port()
    config = folder / "prometheus.yml"
    yaml = YAML(typ="safe")
    example = yaml.load(PROMETHEUS)
    example["global"] = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
    example["rule_files"] = [str(PROMETHEUS.parent / name) for name in example["rule_files"]]
    example["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    yaml.dump(example, config)
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        prometheus = Prometheus(port)
        try:
            wait_until(prometheus.ready, 20, f"the start of Prometheus ({log.name})")
            yield prometheus
        finally:
            process.kill()


def find_prometheus(folder: Path) -> Path | None:
    """The one on PATH; else Debian's package, unpacked into `folder` and not installed; None where neither is had."""
    installed = shutil.which("prometheus")
    if installed is not None:
        return Path(installed)
    if shutil.which("apt-get") is None:
        return None
    for prepare in ((), ("apt-get", "update")):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if prepare:
                _quietly(*prepare, folder=folder)
            _quietly("apt-get", "download", "prometheus", folder=folder)
            _quietly("dpkg-deb", "--extract", next(folder.glob("prometheus_*.deb")), ".", folder=folder)
            return folder / "usr" / "bin" / "prometheus"
    return None


def _quietly(*command: str | Path, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_FETCH_SECONDS)
