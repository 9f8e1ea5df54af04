"""A gateway that is cut off from the database says so; when it is back nothing was paid twice, and no event is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import partition
from tests.faults.hosts import hosts, missing

CUT_SECONDS = 30
"""Many leases, and longer than any connection to the database is believed in."""


@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
async def test_of_two_hosts_one_is_cut_off_from_the_database(tmp_path: Path) -> None:
    seed = random.getrandbits(32)
    print(f"tests.faults.partition, seed {seed}")  # noqa: T201
    with hosts(partition.LINKS) as found:
        harm, answers = await partition.attack(tmp_path, found, seed, CUT_SECONDS)
    assert harm == []
    assert 503 in answers.statuses["a"] <= partition.HONEST - {201}
    assert answers.statuses["b"] <= partition.HONEST
    assert answers.paid > 0
