"""`python -m bench.fuzz [--minutes 10] [--replay FILE]`: exits with 1 if anything was found.

A part of the time each: the parsers by atheris (guided by what is reached), the parsers by hypothesis (which makes what
it finds small), and a running gateway. What made something fail is a file in var/fuzz/findings, which `--replay` plays.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import importlib.util
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from bench.fuzz import wire
from bench.fuzz.mutation import mutate
from bench.fuzz.targets import Target, finding_name, targets
from bench.report import REPORTS, versions

REPORT = REPORTS / "fuzz.json"
FINDINGS = Path("var/fuzz/findings")
_EXAMPLES = 200
_SHARES = {"atheris": 0.45, "hypothesis": 0.2, "wire": 0.35}
_EXECUTED = re.compile(r"number_of_executed_units: *(\d+)")


@dataclass(slots=True)
class Row:
    """One target by one engine: inputs that were played, and the files of those that failed."""

    target: str
    engine: str
    inputs: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--replay", type=Path, help="play one file that was found")
    given_ = parser.parse_args()
    if given_.replay is not None:
        return replay(given_.replay)
    seed = random.SystemRandom().getrandbits(32)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    rows = list(run(given_.minutes * 60, seed))
    found = sum(len(row.findings) for row in rows)
    REPORTS.mkdir(parents=True, exist_ok=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "minutes": given_.minutes,
        "seed": seed,
        "rows": [asdict(row) for row in rows],
        "inputs": sum(row.inputs for row in rows),
        "findings": found,
    }
    REPORT.write_text(json.dumps(document, indent=1) + "\n")
    for row in rows:
        print(f"{row.engine:10} {row.target:18} {row.inputs:9} inputs", *row.findings)
    return 1 if found else 0


def run(seconds: float, seed: int) -> list[Row]:
    """All engines, one after the other; what one that is missing would have had goes to the next."""
    rows, shares, names = list[Row](), dict(_SHARES), list(targets())
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (requirements/fuzz.txt): hypothesis has its time", file=sys.stderr)
        shares["hypothesis"] += shares.pop("atheris")
    engines: dict[str, Callable[[str, float, int], Row]] = {"atheris": by_atheris, "hypothesis": by_hypothesis}
    for engine, fuzz in engines.items():
        if engine in shares:
            rows += [fuzz(name, seconds * shares[engine] / len(names), seed) for name in names]
    caught = asyncio.run(wire.attack(seconds * shares["wire"], seed))
    rows.append(Row(wire.NAME, "sockets", caught.sent, wire.kept(caught.findings, FINDINGS)))
    for what in caught.findings:
        print(f"wire: {what}", file=sys.stderr)
    return rows


def by_atheris(name: str, seconds: float, seed: int) -> Row:
    before = set(FINDINGS.iterdir())
    with tempfile.TemporaryDirectory() as corpus:
        command = [sys.executable, "-m", "bench.fuzz.guided", name, str(max(1, round(seconds))), str(FINDINGS), corpus]
        command.append(str(seed))
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    executed = _EXECUTED.search(said)
    found = sorted(str(path) for path in set(FINDINGS.iterdir()) - before)
    if executed is None:
        print(f"{name}: atheris ended early\n{said[-2000:]}", file=sys.stderr)
        found.append(f"{name}: atheris ended early")
    return Row(name, "atheris", int(executed[1]) if executed else 0, found)


def by_hypothesis(name: str, seconds: float, seed: int) -> Row:
    """Rounds of examples until the time is over, or something was found; that is made small."""
    row, until, target = Row(name, "hypothesis"), time.monotonic() + seconds, targets()[name]
    while time.monotonic() < until and not row.findings:
        smallest = _round(target, seed + row.inputs)
        row.inputs += _EXAMPLES
        if smallest is not None:
            path = FINDINGS / finding_name(name, smallest)
            path.write_bytes(smallest)
            row.findings.append(str(path))
    return row


def _round(target: Target, seed: int) -> bytes | None:
    """The shortest of all inputs that made the target fail, or None."""
    failed: list[bytes] = []

    @seeded(seed)
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.randoms(use_true_random=False).map(lambda drawn: mutate(drawn, target.seeds)) | st.binary(max_size=500))
    def play(data: bytes) -> None:
        if found := target.finding(data):
            failed.append(data)
            raise AssertionError(found)

    try:
        play()
    except AssertionError:
        return min(failed, key=len)
    return None


def replay(path: Path) -> int:
    """Say what happens with one input; 1 if something does."""
    name, data = path.name.rpartition("-")[0], path.read_bytes()
    if name == wire.NAME:
        caught = asyncio.run(wire.play(data))
        found = "; ".join(caught.findings)
    else:
        found = targets()[name].finding(data)
    print(found or "nothing happens")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
