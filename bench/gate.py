"""`make bench-gate`: does a request cost more instructions than it did? Exact enough for a machine that is busy.

    python -m bench.gate             measure, judge, and prove that a regression of 10 % would have been caught
    python -m bench.gate --accept    measure, and make that the baseline (bench/gate.json)
    python -m bench.gate --plant     judge the planted regression as if it were the product: fails, as it must

The gateway runs as `pangate run` does, under valgrind's callgrind, on one mTLS connection that sends one payment after
the other down each of the routes of bench/config. What is counted is the gateway's process alone: its interpreter, TLS,
SQLite; what the kernel does is not.

Tolerance. Instructions do not repeat exactly: timers come due as the clock says, codes in memory expire, and the store
gathers what it finds waiting. Twelve runs of the same code, most of them on two cores that others kept busy, lay within
3.1 % (bare), 1.9 % (policed) and 1.6 % (durable) of one another. 5 % is more than the widest of these, and a tenth less
the widest is still more than 5 %. The control of every run plants about a tenth and is judged by what the product cost
in that run; the gate fails if the control is not caught.

Another build of Python or another release of a package executes other instructions for the same work. Then the gate
says so and compares with what `bench/reference.py` costs in the same run, which is a coarser measure.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import reference
from bench.callgrind import Counter, instructions, missing_tools, under_callgrind
from bench.loader import Load, Target
from bench.planted import write_plan
from bench.processes import LOADER_CORE
from bench.report import Row, publish
from bench.stage import PANGATE, PYTHON, Stage, open_stage, saved_card_payment

SCENARIOS = ("bare", "policed", "durable")
TOLERANCE = 0.05
"""Of instructions, where Python and packages are those of the baseline."""
RATIO_TOLERANCE = 0.07
"""Of the ratio to the reference, where they are not."""
PLANTED = 0.10
REFERENCE_DRIFT = 0.005
"""The reference differs by more: another build of Python, whatever its version says."""

BASELINE = Path(__file__).with_name("gate.json")
_PACKAGES = ("aiohttp", "apsw", "cryptography", "httptools", "orjson", "uvloop")
_REQUESTS = 200
_WARM = 400
_REFERENCE_CALLS = (200, 1200)


@dataclass(frozen=True, slots=True)
class Measured:
    """Instructions: of a request by scenario, and of a call of the reference work; and what they were counted on."""

    versions: dict[str, str]
    reference: float
    requests: dict[str, float]


@dataclass(frozen=True, slots=True)
class Judged:
    """A scenario beside its baseline. `change` is a fraction: 0.1 is ten percent more."""

    scenario: str
    measured: float
    allowed: float
    change: float

    @property
    def held(self) -> bool:
        return self.measured <= self.allowed


def comparable(now: Measured, baseline: Measured) -> bool:
    """May instructions be compared with instructions?"""
    drift = abs(now.reference / baseline.reference - 1)
    return now.versions == baseline.versions and drift <= REFERENCE_DRIFT


def judge(now: Measured, baseline: Measured) -> list[Judged]:
    """Every scenario of the baseline; one that was not measured raises KeyError."""
    same = comparable(now, baseline)
    tolerance, scale = (TOLERANCE, 1.0) if same else (RATIO_TOLERANCE, now.reference / baseline.reference)
    judged = []
    for scenario, before in baseline.requests.items():
        expected, measured = before * scale, now.requests[scenario]
        judged.append(Judged(scenario, measured, expected * (1 + tolerance), measured / expected - 1))
    return judged


def plan(now: Measured) -> dict[str, int]:
    """Calls of the reference work that make each scenario's requests about a tenth more expensive."""
    return {scenario: max(1, round(cost * PLANTED / now.reference)) for scenario, cost in now.requests.items()}


def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), **found}


def measure(stage: Stage, planted: Mapping[str, int] | None = None) -> dict[str, float]:
    """Instructions of a request, by scenario. `planted`: calls of the reference work that each route wastes."""
    name = "planted" if planted else "product"
    out = stage.folder / f"{name}.callgrind"
    command = [*PYTHON, "bench.planted", write_plan(planted)] if planted else PANGATE
    proxy = stage.pangate(name=name, command=under_callgrind(command, out), PYTHONHASHSEED="0")
    counter = Counter(proxy.pids[0], out)
    targets = {
        "bare": stage.target(proxy, "/bare"),
        "policed": stage.target(proxy, "/policed", policed=True, body=saved_card_payment()),
        "durable": stage.target(proxy, "/durable", policed=True),
    }
    return {scenario: _slope(counter, target) for scenario, target in targets.items()}


def _slope(counter: Counter, target: Target) -> float:
    load = Load(target)
    try:
        load.connect(1)
        load.run(_WARM)
        return counter.slope(load.run, _REQUESTS)
    finally:
        load.close()


def measure_reference(stage: Stage) -> float:
    """Instructions of one call of the reference work."""
    out = stage.folder / "reference.callgrind"
    # As a script, and without `site`: nothing that is cached on the disk, or not yet, is counted.
    command = [sys.executable, "-S", reference.__file__]
    few, many = (instructions([*command, str(calls)], out) for calls in _REFERENCE_CALLS)
    return (many - few) / (_REFERENCE_CALLS[1] - _REFERENCE_CALLS[0])


def rows(product: Sequence[Judged], control: Sequence[Judged]) -> Iterator[Row]:
    """`control` is the planted regression, judged by what the product cost in this run; it has to be caught."""
    for judged in product:
        goal = f"at most {judged.allowed / 1000:.1f}"
        note = f"{judged.change:+.1%} of the baseline"
        yield Row(
            f"gate_{judged.scenario}", judged.measured / 1000, "1000 instructions/request", goal, judged.held, note
        )
    for judged in control:
        goal = f"above {judged.allowed / 1000:.1f}"
        note = f"{judged.change:+.1%}, planted"
        caught = not judged.held
        yield Row(f"control_{judged.scenario}", judged.measured / 1000, "1000 instructions/request", goal, caught, note)


def run(*, accept: bool, plant: bool) -> int:
    """The exit code."""
    with open_stage() as stage:
        product = Measured(versions(), measure_reference(stage), measure(stage))
        planted = replace(product, requests=measure(stage, plan(product)))
    if accept:
        BASELINE.write_text(json.dumps(asdict(product), indent=1) + "\n")
    baseline = Measured(**json.loads(BASELINE.read_text()))
    judged = judge(planted if plant else product, baseline)
    control = judge(planted, product)
    if not comparable(product, baseline):
        print("gate: not the Python or the packages of the baseline; judged by the ratio to the reference work")
    publish("gate", list(rows(judged, control)))
    return int(not all(one.held for one in judged) or any(one.held for one in control))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="make what is measured the baseline")
    parser.add_argument("--plant", action="store_true", help="judge the planted regression; fails")
    options = parser.parse_args()
    if missing := missing_tools():
        sys.exit(f"gate: {' and '.join(missing)} not found: install valgrind")
    os.sched_setaffinity(0, {LOADER_CORE})
    sys.exit(run(accept=options.accept, plant=options.plant))


if __name__ == "__main__":
    main()
