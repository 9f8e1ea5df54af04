"""Rows come to a new key under load and kill -9; destroying the old key too early is caught."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import rewrapping
from tests.faults.programs import BRISK

ROWS = 2_500


@pytest.mark.timeout(300)
async def test_rows_are_rewrapped_under_load_and_kill_9_and_the_old_key_is_not_needed(tmp_path: Path) -> None:
    found = await rewrapping.attack(tmp_path, ROWS, random.getrandbits(32), BRISK)
    assert (found.complaints, found.failed) == ([], 0)
    assert (found.tally.kills, found.tally.harm) == (1, 0)
    assert found.tally.tokens > ROWS
    assert found.requests > 0


@pytest.mark.timeout(300)
async def test_destroying_the_old_key_before_the_end_is_caught(tmp_path: Path) -> None:
    found = await rewrapping.control(tmp_path, random.getrandbits(32))
    assert found.failed > 0
    assert 0 < found.tally.lost < rewrapping.CONTROL_ROWS
