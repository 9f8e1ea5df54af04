"""Metrics on prometheus-client, and a log of JSON lines. One object for the process; nothing global."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Final, Protocol

import orjson
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.ports import Clock
from gateway.pure.metrics import Metric
from gateway.pure.redaction import redact

PREFIX = "pangate_"
BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds: from what the gateway adds to what an upstream may take."""
CHILDREN_MAX = 10_000
"""Label sets of one family; what comes beyond is counted under `other`."""
FLUSH_SECONDS = 0.1
FLUSH_BYTES = 64 * 1024

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_OURS: Final = frozenset({
    "id", "request_id", "exchange", "trace_id", "span_id", "delivery", "hash", "digest",
    "route", "listener", "upstream", "kind", "stage", "provider", "method", "mode", "source", "outcome",
})  # fmt: skip
"""Fields that hold ids of our own making, names of the configuration, and words of closed sets: nothing of a caller."""

_NUMBERS: Final = frozenset({int, float, bool, type(None)})

_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS


class Sink(Protocol):
    """Where lines go: a file opened for bytes, `sys.stderr.buffer`."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


class PrometheusTelemetry:
    """Implements `ports.Telemetry`; may be used from any thread.

    Lines below `level` are dropped. Others are written together: after `FLUSH_BYTES`, or `FLUSH_SECONDS` after the
    first of them; at once where no event loop runs.
    """

    def __init__(self, clock: Clock, sink: Sink, level: str = "info") -> None:
        self._clock = clock
        self._sink = sink
        self._threshold = LEVELS[level]
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._series = _Series()
        self._registry.register(self._series)
        self._known = self._series.known
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._timer_of: asyncio.AbstractEventLoop | None = None

    # --- metrics

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Raises ValueError for another number of labels than the family has, or a negative `by`."""
        if by < 0:
            raise ValueError("a counter never falls")
        one = self._known.get((metric.family, labels)) or self._series.add(metric, labels)
        with one.lock:
            one.total += by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """`value` in seconds."""
        one = self._known.get((metric.family, labels)) or self._series.add(metric, labels)
        bucket = bisect_left(BUCKETS, value)
        with one.lock:
            one.buckets[bucket] += 1
            one.total += value

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        one = self._known.get((metric.family, labels)) or self._series.add(metric, labels)
        one.total = value

    def render(self) -> tuple[bytes, str]:
        """All families in the text format of Prometheus, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    # --- log

    def log(self, event: str, **fields: object) -> None:
        """One line: `ts` (RFC 3339, UTC), `level` (info unless given), `event`, then the fields.

        A value that is no JSON is written as the name of its type, and a text without what looks like a card number.
        """
        level = fields.pop("level", "info")
        if LEVELS.get(level, 20) < self._threshold:  # type: ignore[call-overload]
            return
        line = {"ts": datetime.fromtimestamp(self._clock.now(), UTC), "level": level, "event": event, **fields}
        for name in fields.keys() - _OURS:
            value = fields[name]
            if value and type(value) not in _NUMBERS:
                line[name] = _clean(value)
        try:
            self._append(orjson.dumps(line, _type_name, _LINE))
        except TypeError:
            self._append(orjson.dumps({name: _plain(value) for name, value in line.items()}, _type_name, _LINE))

    def flush(self) -> None:
        """Write what is buffered. Lines that the sink does not take are lost, and the next ones say how many."""
        with self._lock:
            lines, self._lines, self._size = self._lines, [], 0
            if not lines:
                return
            if self._lost:
                lines.insert(0, self._lost_line())
            try:
                self._sink.write(b"".join(lines))
                self._sink.flush()
                self._lost = 0
            except (OSError, ValueError):
                self._lost += len(lines) - bool(self._lost)

    def close(self) -> None:
        """Write the rest. The sink stays open."""
        self.flush()

    def _append(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
            full = self._size >= FLUSH_BYTES
            planned = self._timer_of is not None and self._timer_of.is_running()
        if full or not (planned or self._plan()):
            self.flush()

    def _plan(self) -> bool:
        """Plan a flush on the running event loop, if there is one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._timer_of = loop
        loop.call_later(FLUSH_SECONDS, self._due)
        return True

    def _due(self) -> None:
        self._timer_of = None
        self.flush()

    def _lost_line(self) -> bytes:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return orjson.dumps({"ts": now, "level": "error", "event": "log_lines_lost", "count": self._lost}, None, _LINE)


class _One:
    """One series: a number, and for a histogram the observations by bucket. Its lock makes a change whole."""

    __slots__ = ("buckets", "lock", "total")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)


class _Series(Collector):
    """Every series of our own, kept as plain numbers; turned into families of the client library when it is scraped."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, tuple[str, ...]], _One] = {}
        self._by_metric: dict[Metric, dict[tuple[str, ...], _One]] = {metric: {} for metric in Metric}
        self._lock = threading.Lock()

    def add(self, metric: Metric, labels: tuple[str, ...]) -> _One:
        """The series of these labels; once a family has too many, one for all others."""
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.family} takes the labels {metric.labels}")
        with self._lock:
            ones = self._by_metric[metric]
            chosen = labels if len(ones) < CHILDREN_MAX or labels in ones else ("other",) * len(labels)
            one = ones.setdefault(chosen, _One())
            if chosen == labels:
                self.known[metric.family, labels] = one
            return one

    def collect(self) -> Iterator[Family]:
        for metric, ones in self._by_metric.items():
            with self._lock:
                series = list(ones.items())
            yield _histogram(metric, series) if metric.kind == "histogram" else _numbers(metric, series)


def _numbers(metric: Metric, series: list[tuple[tuple[str, ...], _One]]) -> Any:
    family: Any = _FAMILIES[metric.kind](PREFIX + metric.family, metric.help, labels=metric.labels)
    for labels, one in series if metric.labels else series or [((), _One())]:
        family.add_metric(labels, one.total)
    return family


def _histogram(metric: Metric, series: list[tuple[tuple[str, ...], _One]]) -> Any:
    family = HistogramMetricFamily(PREFIX + metric.family, metric.help, labels=metric.labels)
    for labels, one in series if metric.labels else series or [((), _One())]:
        with one.lock:
            total, buckets = one.total, list(one.buckets)
        counted = zip((*map(floatToGoString, BUCKETS), "+Inf"), accumulate(buckets), strict=True)
        family.add_metric(labels, buckets=list(counted), sum_value=total)
    return family


def _clean(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {redact(str(name)): _clean(item) for name, item in value.items()}
    return value


def _plain(value: object) -> object:
    """A value that surely is JSON: half surrogate pairs escaped, all but texts and the time reduced to their type."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, datetime) else _type_name(value)


def _type_name(value: object) -> str:
    return type(value).__name__
