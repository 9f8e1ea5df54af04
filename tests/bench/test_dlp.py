"""The rows about the search for card numbers are judged by their worst, and void if something was missed."""

from __future__ import annotations

from bench.rows import dlp
from bench.rows.dlp import lines, speed
from gateway.pure.card_scan import Scanner


def test_speed_is_that_of_the_slowest_input() -> None:
    slowest, ordinary = speed({"log lines": 120.0, "digits": 79.0})
    assert (slowest.value, slowest.met, slowest.goal) == (79.0, False, "at least 80")
    assert "digits" in slowest.note
    assert (ordinary.value, ordinary.met) == (120.0, None)


def test_lines_meet_their_goal_and_nothing_planted_is_missed() -> None:
    row = lines(Scanner(), 10_000)
    assert row.met is True
    assert "taken for a card: 0; planted numbers not found: 0" in row.note


def test_a_search_that_finds_less_is_void() -> None:
    assert lines(Scanner(unless_named=["declined", "pan", "cards", "note"]), 100).value is None


def test_all_inputs_are_of_one_size() -> None:
    assert {len(data) for data in dlp.inputs().values()} == {dlp.MIB}
