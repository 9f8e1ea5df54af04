"""The table that a run prints and the file it leaves: `{date, versions, rows: [{name, value, unit, goal, met}]}`."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPORTS = Path("var/reports")
_PACKAGES = ("aiohttp", "uvloop", "cryptography", "apsw", "httptools", "pyjwt")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure. `met` is None where there is no goal."""

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found["python"] = platform.python_version()
    nginx = shutil.which("nginx")
    if nginx:
        said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
        found["nginx"] = said.strip().rpartition("/")[2]
    return found


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the table and write `var/reports/NAME.json`."""
    print(f"\n| {'row':36} | {'value':>10} | {'unit':20} | {'goal':12} | met |")
    print(f"| {'-' * 36} | {'-' * 10} | {'-' * 20} | {'-' * 12} | --- |")
    for row in rows:
        met = {None: "", True: "yes", False: "no"}[row.met]
        print(f"| {row.name:36} | {row.value:10.2f} | {row.unit:20} | {row.goal:12} | {met:3} |")
    REPORTS.mkdir(parents=True, exist_ok=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    (REPORTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
