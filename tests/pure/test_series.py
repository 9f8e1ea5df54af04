"""What several processes counted: sums that never fall, gauges of those that live."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.metrics import Metric
from gateway.pure.series import CHILDREN_MAX, Series

Change = tuple[Metric, tuple[str, ...], float]

METRICS = (Metric.STORE_COMMITS, Metric.BLOCKED, Metric.CONNECTIONS, Metric.CONFIG_LAST_RELOAD_SUCCESSFUL,
           Metric.OUTBOX_PENDING, Metric.STORE_COMMIT_SECONDS, Metric.REQUEST_SECONDS)  # fmt: skip


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    def change() -> Change:
        metric = draw(st.sampled_from(METRICS))
        labels = tuple(draw(st.sampled_from("ab")) for _ in metric.labels)
        return metric, labels, draw(st.integers(0, 20)) / 4

    return [change() for _ in range(draw(st.integers(0, 12)))]


def counted(noted: Iterable[Change]) -> Series:
    series = Series()
    for change in noted:
        series.change(*change)
    return series


def numbers(series: Series, *kinds: str) -> dict[tuple[str, tuple[str, ...]], tuple[float, list[int]]]:
    return {
        (metric.family, labels): (one.total, one.buckets)
        for metric in Metric
        if metric.kind in kinds
        for labels, one in series.of(metric)
    }


def together(*living: list[Change]) -> Series:
    return Series.together(Series(), map(counted, living))


@given(changes(), changes())
def test_several_processes_count_what_one_would_have_counted(one: list[Change], other: list[Change]) -> None:
    for kinds in (("counter",), ("histogram",)):
        assert numbers(together(one, other), *kinds) == numbers(counted([*one, *other]), *kinds)


@given(st.lists(changes(), max_size=4), st.randoms())
def test_it_does_not_matter_who_is_asked_first(living: list[list[Change]], random: object) -> None:
    shuffled = list(living)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    kinds = ("counter", "gauge", "histogram")
    assert numbers(together(*living), *kinds) == numbers(together(*shuffled), *kinds)


@given(st.lists(changes(), min_size=1, max_size=4))
def test_what_a_process_counted_stays_when_it_ends_and_its_gauges_go(lives: list[list[Change]]) -> None:
    """Each ends in turn; whatever is read in between, no counter was ever higher."""
    ended, living = Series(), list(lives)
    seen: dict[tuple[str, tuple[str, ...]], float] = {}
    while living:
        whole = Series.together(ended, map(counted, living))
        for key, (total, _) in numbers(whole, "counter", "histogram").items():
            assert total >= seen.get(key, 0)
            seen[key] = total
        ended.keep(counted(living.pop()))
    assert {key: total for key, (total, _) in numbers(ended, "counter", "histogram").items()} == seen
    assert numbers(ended, "gauge") == {}


@given(changes())
def test_what_is_dumped_is_loaded_as_it_was(noted: list[Change]) -> None:
    series = counted(noted)
    kinds = ("counter", "gauge", "histogram")
    assert numbers(Series.load(json.loads(json.dumps(series.dump()))), *kinds) == numbers(series, *kinds)


@pytest.mark.parametrize(
    ("metric", "labels", "values", "shown"),
    [
        (Metric.CONNECTIONS, ("edge",), (3, 4), 7),
        (Metric.OUTBOX_PENDING, (), (3, 4), 4),
        (Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, (), (1, 0), 0),
        (Metric.CERTIFICATE_NOT_AFTER, ("edge",), (200, 100), 100),
        (Metric.CONFIG_INFO, ("f00",), (0, 1), 1),
    ],
)
def test_a_gauge_of_several_is_their_sum_or_what_alarms_first(
    metric: Metric, labels: tuple[str, ...], values: tuple[float, float], shown: float
) -> None:
    whole = together(*([(metric, labels, value)] for value in values))
    assert [(found, one.total) for found, one in whole.of(metric)] == [(labels, shown)]


def test_several_processes_together_have_no_more_label_sets_than_one() -> None:
    half = CHILDREN_MAX // 2 + 1
    parts = ([(Metric.JWKS_REFRESHES, (f"{part}-{n}",), 1.0) for n in range(half)] for part in range(2))
    found = together(*parts).of(Metric.JWKS_REFRESHES)
    assert len(found) == CHILDREN_MAX + 1
    assert sum(one.total for _, one in found) == 2 * half
