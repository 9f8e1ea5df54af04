"""A loss of power at any write costs no unit that was answered; a store that does not wait for its disk is caught."""

from __future__ import annotations

import random

import pytest

from tests.faults.disk import SECTOR, File
from tests.faults.power import IMAGES, attack, control

MOMENTS = 60


def test_what_was_answered_survives_a_loss_of_power_at_any_write(seed: int) -> None:
    tally = attack(seed, MOMENTS)
    assert (tally.moments, tally.images) == (MOMENTS, MOMENTS * IMAGES)
    assert tally.units > MOMENTS
    assert (tally.lost, tally.torn, tally.damaged) == (0, 0, 0)


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_a_store_that_does_not_wait_for_its_disk_is_caught(synchronous: str, seed: int) -> None:
    assert control(seed, MOMENTS // 2, synchronous).lost > 0


# --- the disk --------------------------------------------------------------------------------------------------------


def test_what_was_synced_is_kept_and_what_was_not_is_kept_or_not_or_in_part() -> None:
    file = File()
    file.write(0, b"a" * 4 * SECTOR)
    file.unsynced.clear()
    file.write(SECTOR, b"b" * 2 * SECTOR)
    file.write(4 * SECTOR, b"c" * SECTOR)
    seen = {bytes(file.lost(random.Random(seed)).content[::SECTOR]) for seed in range(300)}
    assert seen == {b"aaaa", b"aaaac", b"abba", b"abbac", b"abaa", b"abaac"}


def test_a_file_can_shrink_back_and_grow_back() -> None:
    file = File()
    file.write(0, b"a" * 4)
    file.unsynced.clear()
    file.write(6, b"b" * 2)
    file.truncate(2)
    seen = {bytes(file.lost(random.Random(seed)).content) for seed in range(300)}
    assert bytes(file.content) == b"aa"
    assert {b"aaaa", b"aa", b"aaaa\0\0bb"} <= seen


@pytest.fixture
def seed() -> int:
    """Of this run. The line that a failing test shows runs it again."""
    chosen = random.getrandbits(32)
    print(f"tests.faults.power.attack({chosen}, {MOMENTS})")  # noqa: T201
    return chosen
