"""A goal is met by a figure, and by nothing else."""

from __future__ import annotations

import pytest

from bench.report import Row, at_least, at_most, figure, table, verdict


def test_a_bound_is_met_up_to_itself() -> None:
    assert [at_most("r", value, 2.3, "ratio").met for value in (2.2, 2.3, 2.31)] == [True, True, False]
    assert [at_least("r", value, 5.5, "ratio").met for value in (5.4, 5.5, 9.0)] == [False, True, True]


@pytest.mark.parametrize("bound", [at_most, at_least])
def test_what_was_not_measured_meets_no_goal(bound: object) -> None:
    assert callable(bound)
    row = bound("r", None, 1.0, "ratio", "not measured: no envoy here")
    assert (row.value, row.met, verdict(row)) == (None, None, "not measured")
    assert row.goal


def test_figures_keep_the_digits_that_a_run_can_tell() -> None:
    assert [figure(value) for value in (1088.4, 99.96, 12.34, 1.234, 0.004, -250.3, None)] == [
        "1088", "100.0", "12.3", "1.23", "0.00", "-250", "-",
    ]  # fmt: skip


def test_the_table_holds_every_row_and_its_note() -> None:
    lines = table([Row("a", 1.0, "us"), at_most("b", None, 2, "us", "why")]).splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == [
        ["a", "1.00", "us", "", "", ""],
        ["b", "-", "us", "at most 2", "not measured", "why"],
    ]
