"""Slow attackers beside honest callers: a small attack harms nobody, and a gateway that it harms is told."""

from __future__ import annotations

import pytest

from bench.soak import Honest, Soaked, rows, soak
from bench.stage import open_stage

CONNECTIONS = 60
MIB = 1 << 20


def test_who_is_honest_is_answered_while_others_send_a_byte_now_and_then() -> None:
    with open_stage() as stage:
        seen = soak(stage, CONNECTIONS, 3.0, 0.5)
    assert seen.connections >= CONNECTIONS
    assert (seen.before.failed, seen.during.failed) == (0, 0)
    assert len(seen.during.took) > 0


def soaked(took: float = 0.001, failed: int = 0, connections: int = 100, again: int = 140) -> Soaked:
    memory = (90 * MIB, 140 * MIB, again * MIB)
    return Soaked(Honest([0.001] * 100), Honest([took] * 100, failed), connections, memory)


def test_what_harmed_nobody_meets_every_goal() -> None:
    assert {row.met for row in rows(soaked(), 100)} == {True}


@pytest.mark.parametrize(
    ("harm", "row"),
    [
        (soaked(took=0.0031), "soak_p99"),
        (soaked(failed=1), "soak_success"),
        (soaked(connections=80), "soak_connections"),
        (soaked(again=190), "soak_memory"),
    ],
)
def test_what_did_harm_misses_its_goal(harm: Soaked, row: str) -> None:
    assert [found.name for found in rows(harm, 100) if not found.met] == [row]
