"""kill -9 at random moments under load costs no token and no money; a store that answers early is caught."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import money
from tests.faults.campaign import attack, control

KILLS = 15
PAYMENT_KILLS = 5
ATTEMPTS_MAX = 10


@pytest.mark.timeout(300)
async def test_every_token_that_anyone_received_survives_kill_9(tmp_path: Path, seed: int) -> None:
    tally = await attack(tmp_path, KILLS, seed)
    assert tally.kills == KILLS
    assert tally.tokens > KILLS
    assert (tally.lost, tally.wrong, tally.damaged) == (0, 0, 0)


@pytest.mark.timeout(300)
async def test_answering_before_the_commit_is_caught(tmp_path: Path, seed: int) -> None:
    tally = await control(tmp_path, seed)
    assert tally.lost > 0


@pytest.mark.timeout(300)
async def test_every_payment_is_made_once_and_everyone_is_told_whoever_dies(tmp_path: Path, seed: int) -> None:
    found = await money.attack(tmp_path, PAYMENT_KILLS, seed)
    assert found.harm == []
    assert found.effects == found.payments > PAYMENT_KILLS
    assert found.events >= 2 * found.payments


@pytest.mark.timeout(300)
async def test_believing_that_nothing_is_under_way_any_more_is_caught(tmp_path: Path, seed: int) -> None:
    for attempt in range(ATTEMPTS_MAX):
        found = await money.hurry(tmp_path / f"{attempt}", seed + attempt)
        if any(harm.kind == "double" for harm in found.harm):
            return
    pytest.fail(f"got away with it {ATTEMPTS_MAX} times")


@pytest.fixture
def seed() -> int:
    """Of the moments of this run. The line that a failing test shows runs its like again."""
    chosen = random.getrandbits(32)
    print(f"tests.faults.campaign.attack(folder, {KILLS}, {chosen})")  # noqa: T201
    return chosen
