"""What is told of a request."""

from __future__ import annotations

from dataclasses import replace

from gateway.pure.metrics import Metric
from gateway.pure.served import Served

SERVED = Served(
    id="req-1",
    listener="edge",
    route="pay",
    method="POST",
    status=201,
    source="upstream",
    outcome="answered",
    blocks=[],
    sent=True,
    took=0.0123456,
    upstream=0.01,
    principal="iss|sub",
    trace_id="0" * 31 + "1",
)


def test_a_request_is_counted_once_and_its_time_is_told_with_and_without_the_upstreams() -> None:
    notes = {metric: (labels, value) for metric, labels, value in SERVED.notes()}
    assert notes[Metric.REQUESTS] == (("pay", "POST", "201", "upstream"), 1)
    assert notes[Metric.REQUEST_SECONDS] == (("pay",), 0.0123456)
    assert notes[Metric.OVERHEAD_SECONDS][1] == 0.0123456 - 0.01
    assert all(len(labels) == len(metric.labels) for metric, (labels, _) in notes.items())


def test_a_line_gives_durations_in_milliseconds() -> None:
    line = SERVED.line()
    assert (line["duration_ms"], line["upstream_ms"], line["overhead_ms"]) == (12.346, 10.0, 2.346)
    assert (line["id"], line["status"], line["sent"]) == ("req-1", 201, True)


def test_a_method_of_somebodys_invention_makes_no_series_of_its_own() -> None:
    invented = replace(SERVED, method="BREW")
    assert next(invented.notes())[1][1] == "other"
    assert invented.line()["method"] == "other"
