"""What is told of each request once it was answered: the metrics of requests, and a line of the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.pure.http import METHODS
from gateway.pure.metrics import Metric

Note = tuple[Metric, tuple[str, ...], float]


@dataclass(slots=True)
class Served:
    """A request and what became of it. Holds nothing of its bodies. Durations are seconds."""

    id: str
    listener: str
    route: str
    method: str
    status: int
    source: str
    """Who made the answer: `upstream` or `gateway`."""
    outcome: str
    blocks: list[list[str]]
    """What was refused: kind of rule or stage, reason, mode."""
    sent: bool
    took: float
    upstream: float
    """Of that, spent in the upstream."""
    principal: str
    trace_id: str
    target: str = ""
    """Where a rule replaced something in it: as it was sent on, other values of its query left out."""

    def notes(self) -> Iterator[Note]:
        """What it adds to which metric, with which labels."""
        route = (self.route,)
        yield Metric.REQUESTS, (self.route, self._method(), str(self.status), self.source), 1
        yield Metric.REQUEST_SECONDS, route, self.took
        yield Metric.OVERHEAD_SECONDS, route, self.took - self.upstream

    def line(self) -> dict[str, Any]:
        """The fields of its line; durations in milliseconds."""
        line: dict[str, Any] = {
            "id": self.id,
            "route": self.route,
            "listener": self.listener,
            "method": self._method(),
            "status": self.status,
            "source": self.source,
            "outcome": self.outcome,
            "blocks": self.blocks,
            "sent": self.sent,
            "duration_ms": round(self.took * 1000, 3),
            "upstream_ms": round(self.upstream * 1000, 3),
            "overhead_ms": round((self.took - self.upstream) * 1000, 3),
            "principal": self.principal,
            "trace_id": self.trace_id,
        }
        if self.target:
            line["target"] = self.target
        return line

    def _method(self) -> str:
        return self.method if self.method in METHODS else "other"
