"""What processes have in memory (proc(5)): all that they wrote there, without the files that they only read."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.([sp]) [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) ([0-9]+)")


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children = [int(task) for path in Path(f"/proc/{pid}/task").glob("*/children") for task in path.read_text().split()]
    return [pid, *(one for child in children for one in family(child))]


def memory(pid: int) -> bytes:
    """Of a process and its family; what several of them share is there once."""
    shared: set[str] = set()
    return b"\n".join(piece for one in family(pid) for piece in _written(one, shared))


def _written(pid: int, shared: set[str]) -> Iterator[bytes]:
    # A process may end, and a mapping go, while they are read.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        mappings = _MAPPING.findall(Path(f"/proc/{pid}/maps").read_text())
        file = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            for first, last, kind, device, inode in mappings:
                if kind == "s" and f"{device} {inode}" in shared:
                    continue
                if kind == "s":
                    shared.add(f"{device} {inode}")
                start, end = int(first, 16), int(last, 16)
                with contextlib.suppress(OSError):
                    yield os.pread(file, end - start, start)
        finally:
            os.close(file)
