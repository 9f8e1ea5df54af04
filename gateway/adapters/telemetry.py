"""Metrics on prometheus-client, and a log of JSON lines. One object for the process; nothing global."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

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

_KINDS: Final[dict[str, Callable[..., Any]]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
_ACTIONS: Final = {"counter": "inc", "gauge": "set", "histogram": "observe"}
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
        self._families = {metric.family: _family(metric, self._registry) for metric in Metric}
        self._actions: dict[tuple[str, tuple[str, ...]], Callable[[float], None]] = {}
        self._children = dict.fromkeys(self._families, 0)
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._timer_of: asyncio.AbstractEventLoop | None = None

    # --- metrics

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Raises ValueError for another number of labels than the family has, or a negative `by`."""
        (self._actions.get((metric.family, labels)) or self._action(metric, labels))(by)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """`value` in seconds."""
        (self._actions.get((metric.family, labels)) or self._action(metric, labels))(value)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        (self._actions.get((metric.family, labels)) or self._action(metric, labels))(value)

    def render(self) -> tuple[bytes, str]:
        """All families in the text format of Prometheus, and its media type."""
        return generate_latest(_WithoutCreated(self._registry)), CONTENT_TYPE_PLAIN_0_0_4

    def _action(self, metric: Metric, labels: tuple[str, ...]) -> Callable[[float], None]:
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.family} takes the labels {metric.labels}")
        family = self._families[metric.family]
        with self._lock:
            known = self._children[metric.family] < CHILDREN_MAX
            chosen = labels if known else ("other",) * len(labels)
            child = family.labels(*chosen) if labels else family
            action: Callable[[float], None] = getattr(child, _ACTIONS[metric.kind])
            if known and (metric.family, labels) not in self._actions:
                self._children[metric.family] += 1
                self._actions[metric.family, labels] = action
        return action

    # --- log

    def log(self, event: str, **fields: object) -> None:
        """One line: `ts` (RFC 3339, UTC), `level` (info unless given), `event`, then the fields.

        A value that is no JSON is written as the name of its type, and a text without what looks like a card number.
        """
        level = fields.pop("level", "info")
        if LEVELS.get(level, 20) < self._threshold:  # type: ignore[call-overload]
            return
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(self._clock.now(), UTC),
            "level": level,
            "event": event,
        }
        for name, value in fields.items():
            line[name] = value if not value or name in _OURS or type(value) in _NUMBERS else _clean(value)
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


class _WithoutCreated(Collector):
    """The samples of a registry but for `_created`, which cost as much as the values they date."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Family]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _family(metric: Metric, registry: CollectorRegistry) -> Any:
    options = {"buckets": BUCKETS} if metric.kind == "histogram" else {}
    return _KINDS[metric.kind](PREFIX + metric.family, metric.help, metric.labels, registry=registry, **options)


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
