"""The queries of `deploy/`, as data: of the dashboard's panels, of recorded series, of what alerts compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "pangate.json"
RULES = DEPLOY / "prometheus" / "rules.yml"
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"

_COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})


@dataclass(frozen=True, slots=True)
class Query:
    """`where` names the panel or rule; `legend` is the panel's, else empty."""

    where: str
    text: str
    legend: str = ""


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def dashboard_queries(rate_interval: str = "5m") -> list[Query]:
    """`rate_interval` takes the place of Grafana's `$__rate_interval`."""
    return [
        Query(panel["title"], target["expr"].replace("$__rate_interval", rate_interval), target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def rules() -> list[dict[str, Any]]:
    """All recording and alerting rules."""
    groups = YAML(typ="safe").load(RULES)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rule_queries() -> list[Query]:
    """All expressions as they stand. An alert's has data only while it fires."""
    return [Query(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()]


def watched_queries() -> list[Query]:
    """Recorded series, and the values that alerts compare: these have data whether or not an alert fires."""
    return [Query(query.where, text) for query in rule_queries() for text in _compared(promql.parse(query.text))]


def _compared(expression: promql.Expr) -> Iterator[str]:
    if isinstance(expression, promql.BinaryExpr) and str(expression.op) in ("and", "or", "unless"):
        yield from _compared(expression.lhs)
        yield from _compared(expression.rhs)
    elif isinstance(expression, promql.BinaryExpr) and str(expression.op) in _COMPARISONS:
        yield expression.lhs.prettify()
    else:
        yield expression.prettify()
