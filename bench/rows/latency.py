"""`latency`: what Pangate adds to the time of an answer, with one request at a time and nothing else to do.

The median time of an answer on the durable route, less that through Envoy, which only forwards: waiting for the disk
is in the goal. What that wait is stands beside it, twice: how long one write of `WRITE_BYTES` and an fdatasync take in
the same folder, and by how much the durable route is slower than the policed one. `latency_loopback` is the backend
without a proxy, and no TLS.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.report import Row, at_most
from bench.rounds import Samples, Variant, play
from bench.stage import PeerMissingError, Stage, post, right

IDS = ("latency",)
ADDED_MOST = 600.0
"""Microseconds."""
WRITE_BYTES = 24 + 4096
"""What a commit of one vault row mostly appends to SQLite's write-ahead log: one page and its header."""
REQUESTS = 600
_WORKS = ("bare", "policed", "durable")
_SYNCS = 200
_UNIT = "us"


async def measure(stage: Stage, rounds: int) -> list[Row]:
    pangate = stage.pangate()
    targets = {work: (pangate, stage.work(pangate, work)) for work in _WORKS}
    missing = {}
    for name in ("nginx", "envoy"):
        try:
            peer = stage.peer(name)
            targets[name] = peer, stage.work(peer, "bare")
        except PeerMissingError as error:
            missing[name] = f"not measured: {error}"
    variants = [Variant(name, proxy, target, 1, REQUESTS) for name, (proxy, target) in targets.items()]
    found, syncs, direct = dict[str, Samples](), list[float](), list[float]()
    for _ in range(rounds):
        for name, samples in play(variants, 1).items():
            found.setdefault(name, Samples()).latency.extend(samples.latency)
        syncs.append(fdatasync_microseconds(stage.folder / "sync"))
        direct.append(direct_microseconds(stage.backend))
    return list(rows(found, syncs, direct, missing))


def rows(
    found: Mapping[str, Samples], syncs: Sequence[float], direct: Sequence[float], missing: Mapping[str, str]
) -> Iterator[Row]:
    """`syncs` and `direct` hold a microseconds' value a round."""
    for name in (*_WORKS, "nginx", "envoy"):
        value = statistics.median(found[name].latency) if name in found else None
        yield Row(f"latency_{name}", value, _UNIT, note=missing.get(name, ""))
    yield Row("latency_loopback", statistics.median(direct), _UNIT)
    yield Row("latency_fdatasync", statistics.median(syncs), _UNIT)
    yield Row("latency_durability", _added(found, "durable", "policed"), _UNIT)
    yield Row("latency_policed_added", _added(found, "policed", "envoy"), _UNIT, note=missing.get("envoy", ""))
    yield at_most("latency", _added(found, "durable", "envoy"), ADDED_MOST, _UNIT, missing.get("envoy", ""))


def _added(found: Mapping[str, Samples], name: str, other: str) -> float | None:
    """The median of each round's own difference."""
    if other not in found:
        return None
    return statistics.median(a - b for a, b in zip(found[name].latency, found[other].latency, strict=True))


def fdatasync_microseconds(path: Path) -> float:
    """The median time of an appended write that is then waited for."""
    taken = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(_SYNCS):
            before = time.perf_counter_ns()
            os.write(file, bytes(WRITE_BYTES))
            os.fdatasync(file)
            taken.append(time.perf_counter_ns() - before)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(taken) / 1000


def direct_microseconds(port: int, right: Callable[[bytes, bytes], bool] = right) -> float:
    """The median time of the backend's answer over one connection. Raises OSError, RuntimeError."""
    raw, taken = post("/")(0), []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(REQUESTS):
            before = time.perf_counter_ns()
            connection.sendall(raw)
            head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
            taken.append(time.perf_counter_ns() - before)
            if not right(head, body):
                raise RuntimeError("the backend itself gives wrong answers")
    return statistics.median(taken) / 1000
