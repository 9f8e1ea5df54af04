"""What `deploy/` promises without a Prometheus: queries that parse, and that name only what Pangate exposes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from ruamel.yaml import YAML

from gateway.pure.metrics import Metric
from tests.deploy_queries import (
    PROMETHEUS,
    RULES,
    Query,
    dashboard,
    dashboard_queries,
    rule_queries,
    rules,
    watched_queries,
)

RULES_TEST = Path(__file__).parent / "data" / "prometheus_rules_test.yml"
QUERIES = [*dashboard_queries(), *rule_queries(), *watched_queries()]

OF_THE_SCRAPE = {"job", "instance"}
FOREIGN = {"up": set(), "process_cpu_seconds_total": {"worker"}, "process_resident_memory_bytes": {"worker"}}
"""Series that Prometheus or its client library expose."""


def exposed() -> dict[str, set[str]]:
    """Labels by series name, as a scrape shows them."""
    series: dict[str, set[str]] = dict(FOREIGN)
    for metric in Metric:
        name, labels = f"pangate_{metric.family}", set(metric.labels)
        match metric.kind:
            case "counter":
                series[name + "_total"] = labels
            case "histogram":
                series |= {name + "_bucket": labels | {"le"}, name + "_sum": labels, name + "_count": labels}
            case _:
                series[name] = labels
    series |= {rule["record"]: set() for rule in rules() if "record" in rule}
    return series


EXPOSED = exposed()


class Mentions:
    """Series that an expression selects, and labels that it filters or groups by."""

    def __init__(self, text: str) -> None:
        self.series: set[str] = set()
        self.labels: set[str] = set()
        promql.walk(promql.parse(text), self._visit)

    def _visit(self, node: Any) -> bool:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            self.series.add(node.name)
            self.labels |= {matcher.name for matcher in node.matchers.matchers}
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            self.labels |= set(node.modifier.labels)
        return True


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_every_query_names_only_series_and_labels_that_exist(query: Query) -> None:
    mentions = Mentions(query.text)

    assert mentions.series
    assert mentions.series <= EXPOSED.keys()
    assert mentions.labels <= OF_THE_SCRAPE.union(*(EXPOSED[name] for name in mentions.series))


@pytest.mark.parametrize("query", dashboard_queries(), ids=lambda query: query.where)
def test_every_legend_names_labels_that_its_query_leaves(query: Query) -> None:
    named = set(re.findall(r"{{(\w+)}}", query.legend))
    labels = Mentions(query.text).labels
    kept = labels or OF_THE_SCRAPE.union(*(EXPOSED[name] for name in Mentions(query.text).series))

    assert named <= kept | OF_THE_SCRAPE


@pytest.mark.parametrize("metric", Metric, ids=lambda metric: metric.family)
def test_every_metric_is_on_a_board(metric: Metric) -> None:
    shown = {name for query in dashboard_queries() for name in Mentions(query.text).series}

    assert any(name.startswith(f"pangate_{metric.family}") for name in shown)


def test_what_an_alert_compares_is_watched_without_the_comparison() -> None:
    watched = {(query.where, query.text) for query in watched_queries()}

    assert ("PangateDown", 'up{job="pangate"}') in watched
    assert ("PangateErrorBudgetBurns", "pangate:errors:ratio_rate30m") in watched
    assert not any(re.search(r"[<>]|==", text) for _, text in watched)


def test_the_dashboard_can_be_imported_anywhere() -> None:
    board = dashboard()
    panels = board["panels"]
    (variable,) = board["templating"]["list"]
    sources = [holder["datasource"] for panel in panels for holder in (panel, *panel.get("targets", []))
               if panel["type"] != "row"]  # fmt: skip

    assert board["id"] is None
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_no_panel_lies_on_another() -> None:
    taken = [
        (x, y)
        for panel in dashboard()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


def test_the_boards_answer_the_questions_they_are_for() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]

    assert rows == [
        "Blocked",
        "Traffic",
        "Upstreams",
        "Money path",
        "Webhooks and inbox",
        "Events",
        "Configuration, certificates, keys",
    ]


def test_every_alert_says_what_happened_and_what_to_do_and_is_tried_out() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    tried = set(re.findall(r'alertname="(\w+)"', RULES_TEST.read_text()))

    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in alerts.values())
    assert {rule["labels"]["severity"] for rule in alerts.values()} == {"page", "ticket"}
    assert tried == alerts.keys()


def test_the_example_scrapes_the_admin_listener_and_loads_the_rules() -> None:
    example = YAML(typ="safe").load(PROMETHEUS)

    assert [PROMETHEUS.parent / name for name in example["rule_files"]] == [RULES]
    assert [job["job_name"] for job in example["scrape_configs"]] == ["pangate"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
@pytest.mark.parametrize(
    "command", [("check", "config", PROMETHEUS), ("test", "rules", RULES_TEST)], ids=["check", "test"]
)
def test_prometheus_own_tool_accepts_the_rules_and_sees_each_alert_fire(command: tuple[str | Path, ...]) -> None:
    done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
