"""Several gateways on one PostgreSQL cost no money, whoever dies or stands still, but for who looks at no lease.

More of the same, with both at random: `make faults`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import cluster, races
from tests.faults.programs import HEEDLESS_OF_LEASE
from tests.postgres import Server, postgres_server

__all__ = ["postgres_server"]

TIMES = 2
ATTEMPTS_MAX = 5


@pytest.fixture
def seed() -> int:
    """Of the moments of this run. The line that a failing test shows runs its like again."""
    chosen = random.getrandbits(32)
    print(f"tests.faults.cluster, seed {chosen}")  # noqa: T201
    return chosen


@pytest.mark.timeout(300)
async def test_every_payment_is_made_once_whoever_dies_or_stands_still(
    tmp_path: Path, postgres_server: Server, seed: int
) -> None:
    found = await cluster.attack(tmp_path, postgres_server, TIMES, seed)
    assert found.harm == []
    assert found.effects == found.payments > TIMES


def test_a_race_through_three_gateways_refunds_no_more_than_was_captured(
    tmp_path: Path, postgres_server: Server
) -> None:
    with cluster.cluster_street(tmp_path, postgres_server, races.REFUNDING) as stage:
        assert list(races.refunds(stage, each=7).harm()) == []


def test_of_a_hundred_with_one_key_at_three_gateways_one_pays_and_all_are_told_the_same(
    tmp_path: Path, postgres_server: Server
) -> None:
    with cluster.cluster_street(tmp_path, postgres_server, races.PAYING) as stage:
        raced = races.one_key(stage)
    assert list(raced.harm()) == []
    assert raced.effects == 1


@pytest.mark.timeout(600)
async def test_going_on_without_a_look_at_the_lease_is_caught(
    tmp_path: Path, postgres_server: Server, seed: int
) -> None:
    for attempt in range(ATTEMPTS_MAX):
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        found = await cluster.stall(folder, postgres_server, seed + attempt, HEEDLESS_OF_LEASE)
        if any(harm.kind == "double" for harm in found.harm):
            return
    pytest.fail(f"got away with it {ATTEMPTS_MAX} times")
