"""`make bench`: what a request costs, beside other proxies that do the same work, in one run.

Every proxy runs on one core; loader, backend and stores on the other. Connections (mutual TLS, kept alive) are opened
and warmed up before anything is measured; variants take turns in rounds, and a figure is the median of the rounds.
Every answer is checked: a wrong one, a dropped connection or an error ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import pkgutil
import resource
import sys
from collections.abc import Awaitable, Sequence
from typing import Protocol, cast, get_args

import bench.rows
from bench.loader import WrongAnswerError
from bench.processes import LOADER_CORE
from bench.report import Row, publish
from bench.stage import Size, Stage, open_stage

ROUNDS = 7
_OPEN_FILES = 4096


class Family(Protocol):
    """A module of `bench.rows`: the rows it knows, by id, and how they are measured."""

    IDS: Sequence[str]

    def measure(self, stage: Stage, rounds: int) -> Awaitable[list[Row]]: ...


def families(only: Sequence[str]) -> list[Family]:
    """Those that know one of the ids, or all. Raises ValueError for an id that none knows."""
    names = sorted(module.name for module in pkgutil.iter_modules(bench.rows.__path__))
    found = [cast("Family", importlib.import_module(f"bench.rows.{name}")) for name in names]
    unknown = set(only) - {row for family in found for row in family.IDS}
    if unknown:
        raise ValueError(f"no row is called {', '.join(sorted(unknown))}")
    return [family for family in found if not only or set(only) & set(family.IDS)]


async def measure(chosen: Sequence[Family], rounds: int, size: Size) -> list[Row]:
    """Each family on a stage of its own. Raises what its measuring raises."""
    rows: list[Row] = []
    with open_stage(size) as stage:
        for family in chosen:
            with stage.nested() as own:
                rows += await family.measure(own, rounds)
    return rows


def run(chosen: Sequence[Family], rounds: int, report: str, size: Size = "usual") -> int:
    """Measure and publish; the exit code. A run with a wrong answer or a dropped connection publishes nothing."""
    try:
        rows = asyncio.run(measure(chosen, rounds, size))
    except (WrongAnswerError, OSError) as error:
        print(f"bench: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    publish(report, rows)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="ID,ID")
    parser.add_argument("--size", choices=get_args(Size), default="usual", help="of the rows that may take long")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOADER_CORE})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if 0 < most < _OPEN_FILES else _OPEN_FILES, most))
    sys.exit(run(families(options.only), options.rounds, "bench-part" if options.only else "bench", options.size))


if __name__ == "__main__":
    main()
