"""What was counted, as plain numbers: by one process, or by several together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.pure.metrics import Metric

BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds: from what the gateway adds to what an upstream may take."""
CHILDREN_MAX = 10_000
"""Label sets of one family; what comes beyond is counted under `other`."""

Labels = tuple[str, ...]

_OF_SEVERAL: Mapping[str, Callable[[float, float], float]] = {
    "sum": lambda one, other: one + other,
    "max": max,
    "min": min,
}


class One:
    """One series: a number, and for a histogram the observations by bucket."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)


class Series:
    """Every series of our own, by metric and labels."""

    def __init__(self) -> None:
        self._by_metric: dict[Metric, dict[Labels, One]] = {metric: {} for metric in Metric}

    def change(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add to a counter, set a gauge, observe in a histogram. Once a family has too many series, one is for all."""
        one = self._by_metric[metric].get(labels) or self._another(metric, labels)
        kind = metric.kind
        if kind == "gauge":
            one.total = value
            return
        one.total += value
        if kind == "histogram":
            one.buckets[bisect_left(BUCKETS, value)] += 1

    def of(self, metric: Metric) -> list[tuple[Labels, One]]:
        """The series of a family."""
        return list(self._by_metric[metric].items())

    def keep(self, ended: Series) -> None:
        """Add what a process counted that has ended. Its gauges end with it: they said how things were."""
        for metric in Metric:
            if metric.kind != "gauge":
                self._add(metric, ended)

    def dump(self) -> list[Sequence[Any]]:
        """All of it, as `load` takes it from JSON."""
        return [
            (metric.name, labels, one.total, one.buckets if metric.kind == "histogram" else ())
            for metric in Metric
            for labels, one in self.of(metric)
        ]

    @classmethod
    def load(cls, dumped: Iterable[Sequence[Any]]) -> Series:
        """What a process of this same version dumped."""
        loaded = cls()
        for name, labels, total, buckets in dumped:
            one = loaded._another(Metric[name], tuple(labels))
            one.total = total
            one.buckets = list(buckets) or one.buckets
        return loaded

    @classmethod
    def together(cls, ended: Series, living: Iterable[Series]) -> Series:
        """What several processes counted, with what those did that have ended. Gauges: as `Metric.of_several` says."""
        whole = cls()
        whole.keep(ended)
        for one in living:
            for metric in Metric:
                whole._add(metric, one)
        return whole

    def _another(self, metric: Metric, labels: Labels) -> One:
        ones = self._by_metric[metric]
        chosen = labels if len(ones) < CHILDREN_MAX else ("other",) * len(labels)
        return ones.setdefault(chosen, One())

    def _add(self, metric: Metric, other: Series) -> None:
        ones = self._by_metric[metric]
        for labels, theirs in other.of(metric):
            mine = ones.get(labels)
            if mine is None:
                mine = self._another(metric, labels)
                mine.total += theirs.total
            else:
                mine.total = _OF_SEVERAL[metric.of_several](mine.total, theirs.total)
            mine.buckets = [a + b for a, b in zip(mine.buckets, theirs.buckets, strict=True)]
