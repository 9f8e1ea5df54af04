"""Metrics on prometheus-client, and a log of JSON lines. One object for the process; nothing global."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from gateway.adapters.exposition import exposition, process_families
from gateway.ports import Clock
from gateway.pure.metrics import Metric
from gateway.pure.redaction import redact
from gateway.pure.series import Series
from gateway.pure.served import Served

FLUSH_SECONDS = 0.1
NOTES_MAX = 2048

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_OURS: Final = frozenset({
    "id", "request_id", "exchange", "trace_id", "span_id", "delivery", "hash", "digest",
    "route", "listener", "upstream", "kind", "stage", "provider", "method", "mode", "source", "outcome",
})  # fmt: skip
"""Fields that hold ids of our own making, names of the configuration, and words of closed sets: nothing of a caller."""

_NUMBERS: Final = frozenset({int, float, bool, type(None)})

_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS


class Sink(Protocol):
    """Where lines go: a file opened for bytes, `sys.stderr.buffer`."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


class PrometheusTelemetry:
    """Implements `ports.Telemetry`; may be used from any thread.

    A request only notes what happened. Notes are turned into numbers and lines together, `FLUSH_SECONDS` after the
    first of them, or when there are `NOTES_MAX`, or when somebody asks; at once before `start`. Done one by one between
    other work, the same takes several times as long.
    """

    def __init__(self, clock: Clock, sink: Sink, level: str = "info", **always: object) -> None:
        """`always` are fields of every line."""
        self._clock = clock
        self._sink = sink
        self._threshold = LEVELS[level]
        self._always = always
        self._series = Series()
        self._notes: deque[tuple[Any, ...]] = deque()
        """(metric, labels, value), (None, time, level, event, fields) or (Served, time, what was served)."""
        self._lock = threading.Lock()
        self._lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._planned = False

    def start(self) -> None:
        """From now on the running event loop turns notes into numbers and lines."""
        self._loop = asyncio.get_running_loop()

    # --- metrics

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Raises ValueError for another number of labels than the family has, or a negative `by`."""
        if by < 0:
            raise ValueError("a counter never falls")
        if len(labels) != len(metric.labels):
            raise _mislabelled(metric)
        self._notes.append((metric, labels, by))
        if not self._planned:
            self._plan()

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """`value` in seconds."""
        if len(labels) != len(metric.labels):
            raise _mislabelled(metric)
        self._notes.append((metric, labels, value))
        if not self._planned:
            self._plan()

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self.observe(metric, value, *labels)

    def render(self) -> tuple[bytes, str]:
        """All families in the text format of Prometheus, and its media type."""
        return exposition(self.counted(), process_families())

    def counted(self) -> Series:
        """All that was counted up to now. It goes on changing."""
        self.flush()
        return self._series

    def served(self, served: Served) -> None:
        """See `ports.Telemetry`."""
        notes = self._notes
        notes.append((Served, self._clock.now(), served))
        if len(notes) >= NOTES_MAX:
            self.flush()
        elif not self._planned:
            self._plan()

    # --- log

    def log(self, event: str, **fields: object) -> None:
        """One line: `ts` (RFC 3339, UTC), `level` (info unless given), `event`, then the fields.

        A value that is no JSON is written as the name of its type, and a text without what looks like a card number.
        """
        level = fields.pop("level", "info")
        if LEVELS.get(level, 20) >= self._threshold:  # type: ignore[call-overload]
            self._notes.append((None, self._clock.now(), level, event, fields))
            if len(self._notes) >= NOTES_MAX:
                self.flush()
            elif not self._planned:
                self._plan()

    # --- notes to numbers and lines

    def flush(self) -> None:
        """Reckon what was noted. Lines that the sink does not take are lost, and the next ones say how many."""
        with self._lock:
            lines: list[bytes] = []
            for _ in range(len(self._notes)):
                note = self._notes.popleft()
                if note[0] is Served:
                    _, now, served = note
                    for counted in served.notes():
                        self._series.change(*counted)
                    if self._threshold <= LEVELS["info"]:
                        lines.append(_line(now, "info", "request", served.line() | self._always))
                elif note[0] is None:
                    _, now, level, event, fields = note
                    lines.append(_line(now, level, event, self._always | fields))
                else:
                    self._series.change(*note)
            if lines:
                self._write(lines)

    def close(self) -> None:
        """Write the rest. The sink stays open."""
        self._loop = None
        self.flush()

    def _plan(self) -> None:
        """Flush a little later, or now where no event loop will."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self.flush()
            return
        self._planned = True
        loop.call_soon_threadsafe(loop.call_later, FLUSH_SECONDS, self._due)

    def _due(self) -> None:
        self._planned = False
        self.flush()

    def _write(self, lines: list[bytes]) -> None:
        if self._lost:
            lines.insert(0, self._lost_line())
        try:
            self._sink.write(b"".join(lines))
            self._sink.flush()
            self._lost = 0
        except (OSError, ValueError):
            self._lost += len(lines) - bool(self._lost)

    def _lost_line(self) -> bytes:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return orjson.dumps({"ts": now, "level": "error", "event": "log_lines_lost", "count": self._lost}, None, _LINE)


def _mislabelled(metric: Metric) -> ValueError:
    return ValueError(f"{metric.family} takes the labels {metric.labels}")


def _line(now: float, level: object, event: str, fields: dict[str, object]) -> bytes:
    line = {"ts": datetime.fromtimestamp(now, UTC), "level": level, "event": event, **fields}
    for name, value in fields.items():
        if type(value) not in _NUMBERS and value and name not in _OURS:
            line[name] = _clean(value)
    try:
        return orjson.dumps(line, _type_name, _LINE)
    except TypeError:
        return orjson.dumps({name: _plain(value) for name, value in line.items()}, _type_name, _LINE)


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
