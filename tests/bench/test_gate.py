"""The gate's arithmetic: what is judged, by how much it may change, and that a tenth more is always too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.callgrind import totals
from bench.gate import (
    RATIO_TOLERANCE,
    REFERENCE_DRIFT,
    TOLERANCE,
    Measured,
    comparable,
    judge,
    plan,
    rows,
)
from bench.planted import burning, read_plan, write_plan
from tests.conftest import make_exchange

BASELINE = Measured({"python": "3.11.7"}, 10_000.0, {"bare": 500_000.0, "durable": 1_100_000.0})


def costing(factor: float, before: Measured = BASELINE) -> Measured:
    return replace(before, requests={name: cost * factor for name, cost in before.requests.items()})


def test_what_costs_the_same_or_less_holds() -> None:
    assert all(one.held for one in judge(BASELINE, BASELINE))
    assert all(one.held for one in judge(costing(0.5), BASELINE))


@pytest.mark.parametrize(("factor", "held"), [(1 + TOLERANCE - 0.001, True), (1 + TOLERANCE + 0.001, False)])
def test_the_tolerance_is_where_it_is_said_to_be(factor: float, held: bool) -> None:
    assert {one.held for one in judge(costing(factor), BASELINE)} == {held}


def test_one_scenario_that_costs_more_is_told_apart_from_the_others() -> None:
    slower = replace(BASELINE, requests=BASELINE.requests | {"durable": 1_300_000.0})
    assert [(one.scenario, one.held) for one in judge(slower, BASELINE)] == [("bare", True), ("durable", False)]


def test_a_tenth_more_is_caught_under_either_tolerance() -> None:
    other_build = replace(BASELINE, versions={"python": "3.12.0"}, reference=BASELINE.reference * 1.3)
    other_cost = costing(1.3 * 1.1, replace(other_build, requests=BASELINE.requests))
    assert not any(one.held for one in judge(costing(1.1), BASELINE))
    assert not any(one.held for one in judge(other_cost, BASELINE))


def test_another_python_is_judged_by_what_the_reference_work_costs_there() -> None:
    elsewhere = replace(costing(0.8), versions={"python": "3.13.0"}, reference=BASELINE.reference * 0.8)
    assert not comparable(elsewhere, BASELINE)
    assert [round(one.change, 9) for one in judge(elsewhere, BASELINE)] == [0.0, 0.0]
    slower = replace(costing(0.8 * (1 + RATIO_TOLERANCE + 0.001)), versions={}, reference=BASELINE.reference * 0.8)
    assert not any(one.held for one in judge(slower, BASELINE))


def test_another_build_of_the_same_release_is_known_by_the_reference_work() -> None:
    near = replace(BASELINE, reference=BASELINE.reference * (1 + REFERENCE_DRIFT / 2))
    far = replace(BASELINE, reference=BASELINE.reference * (1 + REFERENCE_DRIFT * 2))
    assert comparable(near, BASELINE)
    assert not comparable(far, BASELINE)


def test_a_scenario_of_the_baseline_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError):
        judge(replace(BASELINE, requests={"bare": 1.0}), BASELINE)


def test_what_is_planted_costs_about_a_tenth() -> None:
    for scenario, calls in plan(BASELINE).items():
        assert calls * BASELINE.reference / BASELINE.requests[scenario] == pytest.approx(0.10, rel=0.1)


def test_a_plan_survives_the_command_line() -> None:
    assert read_plan(write_plan({"bare": 6, "durable": 12})) == {"bare": 6, "durable": 12}


def test_the_planted_hook_answers_what_the_hook_answers() -> None:
    hook = burning(lambda _, exchange: exchange.route, {"payments": 3})
    exchange = make_exchange()
    assert hook(None, exchange) == exchange.route


def test_a_control_that_was_not_caught_is_not_met() -> None:
    met = {row.name: row.met for row in rows(judge(BASELINE, BASELINE), judge(costing(1.01), BASELINE))}
    assert met == {"gate_bare": True, "gate_durable": True, "control_bare": False, "control_durable": False}


def test_the_total_of_a_profile_is_read() -> None:
    assert totals("events: Ir\nsummary: 11\n\nfn=(1) f\n1 2\ntotals: 12\n") == 12
    with pytest.raises(ValueError, match="not a profile"):
        totals("events: Ir\n")
