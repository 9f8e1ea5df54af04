"""Several gateways on one PostgreSQL cost no money, whoever dies or stands still, but for who looks at no lease.

More of the same, with both at random: `make faults`.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import cluster
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
