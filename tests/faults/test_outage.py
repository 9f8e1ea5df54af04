"""Payments go on by themselves when PostgreSQL or Redis is back, and none was lost or made twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import outage
from tests.postgres import running_postgres

TIMES = 2


@pytest.mark.timeout(300)
async def test_postgresql_and_then_redis_go_away_and_come_back_in_mid_load(tmp_path: Path) -> None:
    seed = random.getrandbits(32)
    print(f"tests.faults.outage, seed {seed}")  # noqa: T201
    with running_postgres() as server:
        found, (postgres, redis) = await outage.attack(tmp_path, server, TIMES, seed)
    assert found.harm == []
    assert found.effects == found.payments > 0
    assert "store_unavailable" in postgres.reasons
    assert redis.reasons == {"limiter_unavailable"}
    for heard in (postgres, redis):
        assert 503 in heard.statuses <= outage.HONEST
        assert heard.hasty == 0
