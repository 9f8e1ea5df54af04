from __future__ import annotations

import asyncio
import io
import threading
from dataclasses import dataclass

import orjson
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters import telemetry as module
from gateway.adapters.telemetry import NOTES_MAX, PrometheusTelemetry
from gateway.ports import Telemetry
from gateway.pure import series
from gateway.pure.metrics import Metric
from tests.conftest import HandClock
from tests.pure.test_served import SERVED


class Sink(io.BytesIO):
    """A file that can be told to be full."""

    full = False

    def __init__(self) -> None:
        super().__init__()
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.flushed.set()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.full:
            raise OSError(28, "no space left")
        return super().write(data)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def telemetry(clock: HandClock, sink: Sink) -> PrometheusTelemetry:
    return PrometheusTelemetry(clock, sink)


def samples(telemetry: PrometheusTelemetry) -> dict[tuple[str, tuple[str, ...]], float]:
    text = telemetry.render()[0].decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_of_the_list_is_exposed_under_its_name_type_and_labels(telemetry: PrometheusTelemetry) -> None:
    port: Telemetry = telemetry
    for metric in Metric:
        values = ["x"] * len(metric.labels)
        match metric.kind:
            case "counter":
                port.count(metric, *values, by=3)
            case "gauge":
                port.set(metric, 3, *values)
            case _:
                port.observe(metric, 3, *values)

    families = {family.name: family for family in text_string_to_metric_families(telemetry.render()[0].decode())}
    for metric in Metric:
        family = families["pangate_" + metric.family]
        suffix = {"counter": "_total", "gauge": "", "histogram": "_sum"}[metric.kind]
        sample = next(sample for sample in family.samples if sample.name == family.name + suffix)
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert (set(sample.labels), sample.value) == (set(metric.labels), 3)


def test_a_count_adds_and_a_gauge_replaces(telemetry: PrometheusTelemetry) -> None:
    telemetry.count(Metric.BLOCKED, "a", "inbox", "stale", "enforce")
    telemetry.count(Metric.BLOCKED, "a", "inbox", "stale", "enforce", by=2)
    telemetry.set(Metric.CONNECTIONS, 5, "edge")
    telemetry.set(Metric.CONNECTIONS, 4, "edge")

    found = samples(telemetry)
    assert found["pangate_connections", ("edge",)] == 4
    assert sum(v for (name, labels), v in found.items() if name == "pangate_blocked_total") == 3


def test_durations_fall_into_buckets_from_100_microseconds_to_10_seconds(telemetry: PrometheusTelemetry) -> None:
    for seconds in (0.0001, 0.003, 9.0, 11.0):
        telemetry.observe(Metric.UPSTREAM_SECONDS, seconds, "payments")

    found = samples(telemetry)
    below = {labels[0]: v for (name, labels), v in found.items() if name == "pangate_upstream_duration_seconds_bucket"}
    assert (below["0.0001"], below["0.005"], below["10.0"], below["+Inf"]) == (1, 2, 3, 4)


def test_the_process_is_measured_too(telemetry: PrometheusTelemetry) -> None:
    names = {name for name, _ in samples(telemetry)}

    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= names
    assert "python_gc_collections_total" in names


def test_no_creation_times_are_exposed(telemetry: PrometheusTelemetry) -> None:
    telemetry.count(Metric.STORE_COMMITS)

    assert b"_created" not in telemetry.render()[0]


def test_the_media_type_is_the_one_of_the_text_format(telemetry: PrometheusTelemetry) -> None:
    assert telemetry.render()[1].startswith("text/plain; version=0.0.4")


def test_what_is_always_said_stands_in_every_line(clock: HandClock, sink: Sink) -> None:
    telemetry = PrometheusTelemetry(clock, sink, worker=3)
    telemetry.log("x")
    telemetry.served(SERVED)

    assert [line["worker"] for line in sink.lines] == [3, 3]


def test_two_telemetries_know_nothing_of_each_other_nor_of_the_global_registry(clock: HandClock) -> None:
    one, other = PrometheusTelemetry(clock, Sink()), PrometheusTelemetry(clock, Sink())
    one.count(Metric.STORE_COMMITS)

    assert samples(other)["pangate_store_commits_total", ()] == 0
    assert REGISTRY.get_sample_value("pangate_store_commits_total") is None


@pytest.mark.parametrize("labels", [(), ("a", "b")])
def test_a_wrong_number_of_labels_is_a_mistake_of_ours(telemetry: PrometheusTelemetry, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="listener"):
        telemetry.set(Metric.CONNECTIONS, 1, *labels)


def test_label_sets_do_not_grow_without_bound(telemetry: PrometheusTelemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert series.CHILDREN_MAX == 10_000
    monkeypatch.setattr(series, "CHILDREN_MAX", 3)
    for turn in range(2):
        for n in range(10):
            telemetry.count(Metric.JWKS_REFRESHES, f"result {n}", by=turn + 1)

    found = {labels[0]: v for (name, labels), v in samples(telemetry).items() if name == "pangate_jwks_refreshes_total"}
    assert found == {"result 0": 3, "result 1": 3, "result 2": 3, "other": 21}


def test_threads_lose_no_count(telemetry: PrometheusTelemetry) -> None:
    def count() -> None:
        for n in range(1000):
            telemetry.count(Metric.JWKS_REFRESHES, str(n % 7))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(v for (name, _), v in samples(telemetry).items() if name == "pangate_jwks_refreshes_total") == 4000


def test_a_line_is_json_with_time_level_event_and_fields(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.log("delivery_parked", level="warning", id="dlv_1", attempts=3, mean=0.5, last=None, tags=["a"])

    assert sink.getvalue().endswith(b"\n")
    assert sink.lines == [
        {
            "ts": "2027-01-15T08:00:00Z",
            "level": "warning",
            "event": "delivery_parked",
            "id": "dlv_1",
            "attempts": 3,
            "mean": 0.5,
            "last": None,
            "tags": ["a"],
        }
    ]


def test_the_level_is_info_unless_said_otherwise_and_lower_ones_are_dropped(clock: HandClock, sink: Sink) -> None:
    telemetry = PrometheusTelemetry(clock, sink, "warning")
    for level in ("debug", "info", "warning", "error"):
        telemetry.log(level, level=level)
    telemetry.log("no level")

    assert [line["event"] for line in sink.lines] == ["warning", "error"]


@dataclass
class Card:
    number: str


def test_what_looks_like_a_card_number_is_masked_in_every_text(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    pan = "4242424242424242"
    telemetry.log("x", note=f"card {pan}", deep={"a": [f"{pan[:4]} {pan[4:8]} {pan[8:12]} {pan[12:]}"], pan: 1})
    telemetry.log("x", card=Card(pan), raw=pan.encode(), error=ValueError(pan), items=(pan, {pan}))

    assert b"4242" not in sink.getvalue()
    assert [line["event"] for line in sink.lines] == ["x", "x"]


def test_ids_of_our_own_making_stay_whole(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.log("x", id="4242424242424242", trace_id="00004242424242424242000000000000")

    assert (sink.lines[0]["id"], sink.lines[0]["trace_id"]) == ("4242424242424242", "00004242424242424242000000000000")


@pytest.mark.parametrize("value", ["\ud800", 2**80, {1: 2}, object(), b"\xff", float("nan"), {"a": {2**80}}])
def test_no_value_keeps_a_line_from_being_written(telemetry: PrometheusTelemetry, sink: Sink, value: object) -> None:
    telemetry.log("odd", value=value, other="text")

    assert (sink.lines[0]["event"], sink.lines[0]["other"]) == ("odd", "text")


def test_a_line_break_cannot_make_a_second_line(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.log("x", note='a\n{"event":"forged"}\r\u2028')

    assert len(sink.getvalue().splitlines()) == 1


async def test_lines_wait_for_company_and_not_for_long(
    telemetry: PrometheusTelemetry, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0)
    telemetry.start()
    telemetry.log("one")
    telemetry.log("two")
    assert sink.lines == []

    await sink.flushed.wait()
    assert [line["event"] for line in sink.lines] == ["one", "two"]

    sink.flushed.clear()
    telemetry.log("three")
    await sink.flushed.wait()
    assert len(sink.lines) == 3


async def test_many_lines_are_written_without_waiting(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.start()
    for _ in range(NOTES_MAX + 1):
        telemetry.log("x", note="n" * 1000)

    assert sink.lines


async def test_closing_writes_the_rest(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.log("last")
    telemetry.close()

    assert [line["event"] for line in sink.lines] == ["last"]


def test_lines_that_the_disk_does_not_take_are_counted_and_nobody_is_harmed(
    telemetry: PrometheusTelemetry, sink: Sink
) -> None:
    sink.full = True
    for _ in range(3):
        telemetry.log("lost")
    sink.full = False
    telemetry.log("kept")
    telemetry.log("kept")

    assert [(line["event"], line.get("count")) for line in sink.lines] == [
        ("log_lines_lost", 3),
        ("kept", None),
        ("kept", None),
    ]


def test_a_request_that_was_served_is_counted_and_leaves_a_line(telemetry: PrometheusTelemetry, sink: Sink) -> None:
    telemetry.served(SERVED)

    found = samples(telemetry)
    assert found["pangate_requests_total", ("201", "POST", "pay", "upstream")] == 1
    assert found["pangate_overhead_seconds_count", ("pay",)] == 1
    (line,) = sink.lines
    assert (line["event"], line["level"], line["id"], line["route"]) == ("request", "info", "req-1", "pay")


def test_below_the_level_a_request_is_counted_without_a_line(clock: HandClock, sink: Sink) -> None:
    telemetry = PrometheusTelemetry(clock, sink, "warning")
    telemetry.served(SERVED)

    assert samples(telemetry)["pangate_requests_total", ("201", "POST", "pay", "upstream")] == 1
    assert sink.lines == []
