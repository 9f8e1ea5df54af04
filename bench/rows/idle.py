"""`idle`: what a kept-alive mTLS connection holds in memory between two requests.

The proportional set size of a fresh process with `IDLE` such connections, each of which has had one request, less that
with one, divided by `IDLE`; buffers of the kernel are not in it. `idle_asyncio` is the same where uvloop is not
installed.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.loader import Load, Target
from bench.report import Row, at_most
from bench.stage import PeerMissingError, Proxy, Stage

IDS = ("idle",)
IDLE = 1000
MOST = 55.0
"""KiB."""
_UNIT = "KiB/connection"


async def measure(stage: Stage, rounds: int) -> list[Row]:
    stages: dict[str, Callable[[Stage], Proxy]] = {
        "idle": Stage.pangate,
        "idle_asyncio": without_uvloop,
        "idle_nginx": lambda own: own.peer("nginx"),
        "idle_envoy": lambda own: own.peer("envoy"),
    }
    found: dict[str, list[float]] = {name: [] for name in stages}
    missing: dict[str, str] = {}
    for _ in range(rounds):
        for name in [name for name in stages if name not in missing]:
            with stage.nested() as own:
                try:
                    proxy = stages[name](own)
                except PeerMissingError as error:
                    missing[name] = f"not measured: {error}"
                else:
                    found[name].append(kibibytes_each(own, proxy))
    return list(rows(found, missing))


def without_uvloop(stage: Stage) -> Proxy:
    """Pangate where `import uvloop` fails."""
    folder = stage.folder / "path"
    folder.mkdir()
    (folder / "uvloop.py").write_text("raise ImportError('there is no uvloop here')\n")
    return stage.pangate(PYTHONPATH=str(folder))


def kibibytes_each(stage: Stage, proxy: Proxy) -> float:
    """Of one idle connection. Raises WrongAnswerError or OSError."""
    target = stage.work(proxy, "bare")
    with contextlib.ExitStack() as stack:
        open_connection(target, stack)
        before = kibibytes(proxy)
        for _ in range(IDLE):
            open_connection(target, stack)
        return (kibibytes(proxy) - before) / IDLE


def open_connection(target: Target, stack: contextlib.ExitStack) -> None:
    """One that has had its request, and stays. Raises WrongAnswerError or OSError."""
    load = Load(target)
    stack.callback(load.close)
    load.connect(1)
    load.run(1)


def kibibytes(proxy: Proxy) -> int:
    """Proportional set size of its processes (Linux: /proc/PID/smaps_rollup)."""
    texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in proxy.pids)
    return sum(int(size) for text in texts for size in re.findall(r"^Pss: +(\d+) kB$", text, re.MULTILINE))


def rows(found: Mapping[str, Sequence[float]], missing: Mapping[str, str]) -> Iterator[Row]:
    """`found` holds KiB per connection, one a round."""
    for name, values in found.items():
        if name != "idle":
            yield Row(name, statistics.median(values) if values else None, _UNIT, note=missing.get(name, ""))
    yield at_most("idle", statistics.median(found["idle"]), MOST, _UNIT)
