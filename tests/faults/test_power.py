"""A loss of power at any write costs no unit that was answered; a store that does not wait for its disk is caught."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from tests.adapters.operations import put_token
from tests.conftest import HandClock, Recorder
from tests.faults.disk import SECTOR, Disk, File
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


async def test_what_a_killed_process_had_not_synced_is_safe_before_the_next_one_answers_from_it(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> None:
    """A commit that is in the log and not yet on the platter is true for who reads it next: it must not go again."""

    def start(disk: Disk) -> SqliteStore:
        return open_sqlite(str(tmp_path / "power.db"), clock=clock, telemetry=telemetry, vfs=disk.name)

    async def tokens(files: dict[str, File], name: str) -> tuple[int, Disk]:
        disk = Disk(name, files)
        store = start(disk)
        seen = int(store._db.execute("SELECT count(*) FROM tokens").get)
        disk.fuse(1)
        await store.close()
        return seen, disk

    seen_by_next = 0
    for cut in itertools.count(1):
        disk = Disk(f"killed after {cut}")
        store = start(disk)
        disk.fuse(cut)
        await store.commit([put_token("tok_1")])
        if not disk.blown:
            break
        seen, after = await tokens(disk.after_kill(), f"next after {cut}")
        kept, _ = await tokens(after.after_power_loss(Unlucky()), f"last after {cut}")
        assert kept >= seen, f"killed before its write {cut}"
        seen_by_next += seen
        await store.close()
    await store.close()
    assert seen_by_next > 0


class Unlucky(random.Random):
    """Nothing that was not synced is left."""

    def choice(self, seq: Sequence[Any]) -> Any:  # type: ignore[override]
        return min(seq)

    def random(self) -> float:
        return 1.0


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
