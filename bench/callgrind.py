"""Instructions that a process executes, counted by valgrind's callgrind: the same on a busy machine as on a quiet one.

Counting is switched on when everything is loaded and warm, by valgrind's own remote control, so that it costs the
start nothing. A figure is the slope between two amounts of work, so that what the remote control adds falls out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_SMALL = 40
_TIMES = 4
_TOOLS = ("valgrind", "vgdb")
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


def missing_tools() -> list[str]:
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


def under_callgrind(command: Sequence[str], out: Path, *, at_start: bool = False) -> list[str]:
    """The command line that runs `command` and leaves its counts beside `out`."""
    started = "yes" if at_start else "no"
    options = [f"--instr-atstart={started}", f"--callgrind-out-file={out}"]
    return ["valgrind", "--quiet", "--tool=callgrind", *options, *command]


def totals(text: str) -> int:
    """The instructions of a profile. Raises ValueError if it names none."""
    found = _TOTALS.search(text)
    if found is None:
        raise ValueError("not a profile of callgrind")
    return int(found[1])


class Counter:
    """The counter of one process that runs under callgrind. `out` is the file that it was started with."""

    def __init__(self, pid: int, out: Path) -> None:
        self._pid = pid
        self._out = out
        self._dumps = 0

    def slope(self, work: Callable[[int], object], large: int) -> float:
        """Instructions for one unit of `work(units)`, from `large` units and a few.

        Each is counted several times, and the least counts: timers that come due meanwhile only ever add to it.
        """
        self._tell("instrumentation", "on")
        try:
            work(_SMALL)
            few, many = (min(self._count(work, units) for _ in range(_TIMES)) for units in (_SMALL, large))
        finally:
            self._tell("instrumentation", "off")
        return (many - few) / (large - _SMALL)

    def _count(self, work: Callable[[int], object], units: int) -> int:
        self._tell("zero")
        work(units)
        self._tell("dump")
        self._dumps += 1
        return totals(self._out.with_name(f"{self._out.name}.{self._dumps}").read_text())

    def _tell(self, *command: str) -> None:
        subprocess.run(["vgdb", f"--pid={self._pid}", *command], check=True, capture_output=True)


def instructions(command: Sequence[str], out: Path) -> int:
    """Of a whole run of a command."""
    subprocess.run(under_callgrind(command, out, at_start=True), check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    return totals(out.read_text())
