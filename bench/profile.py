"""`make profile`: where the microseconds of a request go, step by step, in the running gateway under load.

The gateway serves 16 connections as in `make bench`. First its CPU time per request is read from the kernel, with
nobody watching; then py-spy looks at its stacks from outside, with their native frames, and the main thread's samples
that do not wait are shared out by `bench.steps`. The thread of the store is counted whole, by the kernel. Prints a
table, writes var/reports/profile.json and docs/performance.svg.

py-spy must be allowed to trace another process: as root, or where kernel.yama.ptrace_scope is 0.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.loader import Load, Target
from bench.picture import stacked_bars
from bench.processes import LOADER_CORE, cpu_nanoseconds, thread_nanoseconds
from bench.report import REPORTS, versions
from bench.rounds import WARM_UP
from bench.stage import Proxy, Stage, open_stage, saved_card_payment
from bench.steps import STEPS, costs, fold

PICTURE = Path("docs/performance.svg")
CONNECTIONS = 16
ROUNDS = 5
REQUESTS = 3000
SECONDS = 15
_RATE = 250
"""Samples a second. A sample stops the gateway for a moment, which its CPU time does not see."""


def profile(stage: Stage, seconds: int) -> dict[str, dict[str, float]]:
    """Microseconds by step, by scenario. Raises WrongAnswerError, OSError, CalledProcessError (py-spy cannot look)."""
    proxy = stage.pangate()
    targets = {
        "bare": stage.target(proxy, "/bare"),
        "policed": stage.target(proxy, "/policed", policed=True, body=saved_card_payment()),
        "durable": stage.target(proxy, "/durable", policed=True),
    }
    return {scenario: steps(stage, proxy, target, seconds) for scenario, target in targets.items()}


def steps(stage: Stage, proxy: Proxy, target: Target, seconds: int) -> dict[str, float]:
    load = Load(target)
    try:
        load.connect(CONNECTIONS)
        load.run(CONNECTIONS * WARM_UP)
        main, others = microseconds(proxy.pids[0], load)
        lines = samples(proxy.pids[0], load, stage.folder / "stacks", seconds)
    finally:
        load.close()
    return costs(fold(lines, proxy.pids[0]), main, others)


def microseconds(pid: int, load: Load) -> tuple[float, float]:
    """CPU time of a request, of the main thread and of all others: medians of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        main, whole = thread_nanoseconds(pid, pid), cpu_nanoseconds(pid)
        load.run(REQUESTS)
        rounds.append((thread_nanoseconds(pid, pid) - main, cpu_nanoseconds(pid) - whole))
    scale = REQUESTS * 1000
    return (
        statistics.median(main for main, _ in rounds) / scale,
        statistics.median(whole - main for main, whole in rounds) / scale,
    )


def samples(pid: int, load: Load, out: Path, seconds: int) -> list[str]:
    """Stacks that py-spy sees while the load runs."""
    options = ["--native", "--threads", "--nolineno", "--format", "raw", "--rate", str(_RATE)]
    py_spy = Path(sys.executable).with_name("py-spy")
    command = [str(py_spy), "record", "--pid", str(pid), "--duration", str(seconds), "--output", str(out), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as watching:
        while watching.poll() is None:
            load.run(REQUESTS // 10)
        assert watching.stderr is not None
        said = watching.stderr.read()
    if watching.returncode:
        raise subprocess.CalledProcessError(watching.returncode, command, stderr=said)
    return out.read_text().splitlines()


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a line for each step, a column for each scenario."""
    lines = [("us CPU/request", list(found)), ("---", ["--:"] * len(found))]
    lines += [(step, [f"{values[step]:.1f}" for values in found.values()]) for step in STEPS]
    lines.append(("all", [f"{sum(values.values()):.1f}" for values in found.values()]))
    return "\n".join(f"| {name:18} |" + "".join(f" {cell:>8} |" for cell in cells) for name, cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="watched, for each scenario")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOADER_CORE})
    try:
        with open_stage() as stage:
            found = profile(stage, options.seconds)
    except subprocess.CalledProcessError as error:
        sys.exit(f"profile: py-spy could not look: {error.stderr}")
    print(f"\n{table(found)}\n")
    REPORTS.mkdir(parents=True, exist_ok=True)
    date = dt.datetime.now(dt.UTC)
    document = {"date": date.isoformat(timespec="seconds"), "versions": versions(), "steps": found}
    (REPORTS / "profile.json").write_text(json.dumps(document, indent=1) + "\n")
    PICTURE.write_text(stacked_bars(f"CPU per request by step, {date:%Y-%m-%d}", found, "µs"))


if __name__ == "__main__":
    main()
