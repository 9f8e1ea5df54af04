"""Drawings in any format hold the same paths and flows."""

from __future__ import annotations

import json
import re

from gateway.pure.boundaries import Boundaries, Flow, Path, Service
from gateway.pure.boundary_drawing import draw

BOUNDARIES = Boundaries(
    [
        Service("check--out", ("spiffe://shop.example/checkout",)),
        Service("payments", ("spiffe://shop.example/payments",), owns=("payments", "psp")),
        Service("partners", ("spiffe://partner.example/*",), external=True),
        Service("ledger"),
    ],
    [
        Path("check--out", "create", "payments"),
        Path("partners", "create", "payments"),
        Path("payments", "charge", "psp", ("cvc", "pan")),
        Path("payments", "status", "psp"),
    ],
    [
        Flow("payments", "payment.sale.succeeded.v1", "ledger", "stream"),
        Flow("payments", "payment.sale.failed.v1", "ledger", "stream"),
        Flow("payments", "payment.sale.failed.v1", "ledger", "hook"),
    ],
)
EDGES = {
    ("check--out", "create", "payments"),
    ("partners", "create", "payments"),
    ("payments", "charge reveals cvc, pan", "psp"),
    ("payments", "status", "psp"),
    ("payments", "payment.sale.failed.v1, payment.sale.succeeded.v1", "ledger"),
}


def test_mermaid_draws_every_path_and_no_other() -> None:
    text = draw(BOUNDARIES, "mermaid")
    names = dict(re.findall(r'^ +([su]\d+)[\[(]+"([^",]+)', text, re.MULTILINE))
    edges = re.findall(r'^ +(\w+) (?:-->|==>|-\.->)\|"([^"]+)"\| (\w+)$', text, re.MULTILINE)
    assert {(names[a], label, names[b]) for a, label, b in edges} == EDGES
    assert text.count("\n") == 1 + len(names) + len(EDGES)
    assert '(["partners"])' in text
    assert "psp, of payments" in text


def test_dot_draws_every_path_and_no_other() -> None:
    text = draw(BOUNDARIES, "dot")
    edges = re.findall(r'"service ([^"]+)" -> "\w+ ([^"]+)" \[style=\w+, label="([^"]+)"\];', text)
    assert {(a, label, b) for a, b, label in edges} == EDGES
    assert text.count("->") == len(EDGES)


def test_json_is_all_that_is_enforced() -> None:
    drawn = json.loads(draw(BOUNDARIES, "json"))
    assert {(p["service"], p["route"], p["upstream"], tuple(p["reveals"])) for p in drawn["paths"]} == {
        (p.service, p.route, p.upstream, p.reveals) for p in BOUNDARIES.paths
    }
    assert len(drawn["flows"]) == 3
    assert drawn["services"][1]["owns"] == ["payments", "psp"]
