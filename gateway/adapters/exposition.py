"""Series and process figures in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.pure.metrics import Metric
from gateway.pure.series import BUCKETS, Labels, One, Series

PREFIX = "pangate_"

_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def exposition(series: Series, families: Iterable[Family] = ()) -> tuple[bytes, str]:
    """All of it as text, and its media type."""
    return generate_latest(_Listed([*families, *_collect(series)])), CONTENT_TYPE_PLAIN_0_0_4


def process_families() -> list[Family]:
    """What this process takes of its machine (CPU, memory, file descriptors), its garbage collector and its Python."""
    collectors = (ProcessCollector(registry=None), PlatformCollector(registry=None), GCCollector(_NOWHERE))
    return [family for collector in collectors for family in collector.collect()]


def dump_families(families: Iterable[Family]) -> list[Any]:
    """As `load_families` takes them from JSON."""
    return [
        (family.name, family.type, family.documentation, [(s.name, s.labels, s.value) for s in family.samples])
        for family in families
    ]


def load_families(by_worker: Iterable[tuple[str, list[Any]]]) -> list[Family]:
    """The families of several processes, each sample with the label `worker`."""
    found: dict[str, Family] = {}
    for worker, dumped in by_worker:
        for name, kind, text, samples in dumped:
            family = found.setdefault(name, Family(name, text, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {"worker": worker, **labels}, value)
    return list(found.values())


class _Listed(Collector):
    """Stands for a registry."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)

    def register(self, collector: Collector) -> None:
        """Nobody is asked again."""


_NOWHERE: Any = _Listed([])


def _collect(series: Series) -> Iterator[Family]:
    for metric in Metric:
        of = series.of(metric) if metric.labels else series.of(metric) or [((), One())]
        yield _histogram(metric, of) if metric.kind == "histogram" else _numbers(metric, of)


def _numbers(metric: Metric, series: list[tuple[Labels, One]]) -> Any:
    family: Any = _FAMILIES[metric.kind](PREFIX + metric.family, metric.help, labels=metric.labels)
    for labels, one in series:
        family.add_metric(labels, one.total)
    return family


def _histogram(metric: Metric, series: list[tuple[Labels, One]]) -> Any:
    family = HistogramMetricFamily(PREFIX + metric.family, metric.help, labels=metric.labels)
    for labels, one in series:
        counted = zip((*map(floatToGoString, BUCKETS), "+Inf"), accumulate(one.buckets), strict=True)
        family.add_metric(labels, buckets=list(counted), sum_value=one.total)
    return family
