"""Rounds that take turns, and what may be concluded from them: medians, and ratios within the same round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.loader import Load, Target
from bench.processes import PROXY_CORE, core_nanoseconds
from bench.stage import Proxy

WARM_UP = 20
"""Requests on each connection before anything is measured: what follows a handshake is over by then."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A proxy doing one kind of work over so many connections; `requests` in each round."""

    name: str
    proxy: Proxy
    target: Target
    connections: int = 16
    requests: int = 4000


@dataclass(slots=True)
class Samples:
    """A value a round: CPU microseconds per request of the proxy and of the loader, median latency in microseconds.

    `busy` is the part of the time that the proxy was on its core, `noise` the part that somebody else was: the rest it
    waited, for a disk or for the loader.
    """

    cpu: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    loader: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


def play(variants: Sequence[Variant], rounds: int) -> dict[str, Samples]:
    """Samples by the variants' names.

    In each round every variant opens its connections, warms them up, and only then is measured: no figure holds a
    handshake. Raises WrongAnswerError or OSError.
    """
    found = {variant.name: Samples() for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            _play_once(variant, found[variant.name])
    return found


def _play_once(variant: Variant, samples: Samples) -> None:
    load = Load(variant.target)
    try:
        load.connect(variant.connections)
        load.run(variant.connections * WARM_UP)
        before = variant.proxy.cpu(), core_nanoseconds(PROXY_CORE), time.perf_counter_ns()
        taken = load.run(variant.requests)
        after = variant.proxy.cpu(), core_nanoseconds(PROXY_CORE), time.perf_counter_ns()
        cpu, core, wall = (b - a for a, b in zip(before, after, strict=True))
    finally:
        load.close()
    samples.cpu.append(cpu / variant.requests / 1000)
    samples.busy.append(cpu / wall)
    samples.noise.append(max(0, core - cpu) / wall)
    samples.loader.append(load.cost)
    samples.latency.append(statistics.median(taken) / 1000)


def median(found: Mapping[str, Samples], name: str) -> float | None:
    """CPU microseconds per request; None if the variant was not measured."""
    return statistics.median(found[name].cpu) if name in found else None


def ratio(found: Mapping[str, Samples], name: str, other: str) -> float | None:
    """The median of each round's own ratio of CPU costs; None if either variant was not measured."""
    if name not in found or other not in found:
        return None
    return statistics.median(a / b for a, b in zip(found[name].cpu, found[other].cpu, strict=True))


def difference(found: Mapping[str, Samples], name: str, other: str) -> float | None:
    """The median of what each round's own CPU cost is above the other's; None if either variant was not measured."""
    if name not in found or other not in found:
        return None
    return statistics.median(a - b for a, b in zip(found[name].cpu, found[other].cpu, strict=True))
