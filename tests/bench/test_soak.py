"""Slow attackers beside honest callers: a small attack harms nobody, and a gateway that it harms is told."""

from __future__ import annotations

import pytest

from bench.soak import Honest, Soaked, rows, soak
from bench.stage import open_stage

CONNECTIONS = 60
MIB = 1 << 20


def test_who_is_honest_is_answered_while_others_send_a_byte_now_and_then_or_read_none() -> None:
    with open_stage() as stage:
        seen = soak(stage, CONNECTIONS, 3.0, 0.5)
    assert seen.connections > 1, "a busy machine may not have let in all of them"
    assert (seen.before.failed, seen.slow.failed, seen.unread.failed) == (0, 0, 0)
    assert min(len(seen.slow.took), len(seen.unread.took)) > 0


def soaked(
    took: float = 0.001,
    unread: float = 0.001,
    failed: int = 0,
    connections: int = 1024,
    most: int = 140,
    left: tuple[int, int] = (95, 95),
    held: float = 31.0,
) -> Soaked:
    memory = (90 * MIB, most * MIB, left[0] * MIB, left[1] * MIB)
    attacked = (Honest([took] * 100, failed), Honest([unread] * 100))
    return Soaked(Honest([0.001] * 100), *attacked, connections, memory, held)


def test_what_harmed_nobody_meets_every_goal() -> None:
    assert {row.met for row in rows(soaked(), 1024)} == {True}


@pytest.mark.parametrize(
    ("harm", "row"),
    [
        (soaked(took=0.0031), "soak_p99"),
        (soaked(unread=0.0031), "soak_p99_unread"),
        (soaked(failed=1), "soak_success"),
        (soaked(connections=800), "soak_connections"),
        (soaked(held=36.0), "soak_unread"),
        (soaked(most=219), "soak_memory_each"),
        (soaked(left=(100, 95)), "soak_memory_first"),
        (soaked(left=(95, 100)), "soak_memory_second"),
    ],
)
def test_what_did_harm_misses_its_goal(harm: Soaked, row: str) -> None:
    assert [found.name for found in rows(harm, 1024) if not found.met] == [row]


def test_where_the_attack_was_shorter_than_the_deadline_nothing_is_said_of_it() -> None:
    (unread,) = (found for found in rows(soaked(held=0.0), 1024) if found.name == "soak_unread")
    assert (unread.value, unread.met) == (None, None)
