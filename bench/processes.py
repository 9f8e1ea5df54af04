"""Processes under measurement: pinned to a core, their CPU time read from the kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

PROXY_CORE = 0
LOADER_CORE = 1 if (os.cpu_count() or 1) > 1 else 0
_START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_nanoseconds(pid: int) -> int:
    """Time on a core of a process, its threads and its children (Linux: /proc/PID/task/*/schedstat, first field)."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return own + sum(cpu_nanoseconds(child) for child in children)


def core_nanoseconds(core: int) -> int:
    """Time that a core was busy, whoever kept it so: user, system, interrupts, and what a hypervisor took away."""
    (line,) = (line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, *others = map(int, line.split()[1:9])
    return (user + nice + system + sum(others)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def thread_nanoseconds(pid: int, thread: int) -> int:
    """Time on a core of one thread."""
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])


def resident_bytes(pids: Iterable[int]) -> int:
    """The resident set of processes (Linux: VmRSS of /proc/PID/status)."""
    statuses = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(status.partition("VmRSS:")[2].split(maxsplit=1)[0]) * 1024 for status in statuses)


@contextlib.contextmanager
def running(command: Sequence[str], port: int, core: int, log: Path, env: Mapping[str, str]) -> Iterator[int]:
    """Start a process on a core, wait until it listens on `port`, and end it. Yields its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        pinned = ["taskset", "-c", str(core), *command]
        process = subprocess.Popen(pinned, stdout=output, stderr=output, env={**os.environ, **env})
        try:
            _await_port(process, port, log)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not listen on {port}: {log.read_text()[-2000:]}")
        time.sleep(0.05)
