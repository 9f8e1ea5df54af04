"""The row about the relay measures what it says: events of real payments, all of them, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from bench.rows import relay
from tests.pure.lifecycles import card
from tests.servers import redis_url

__all__ = ["redis_url"]


async def test_every_event_of_every_payment_goes_through_the_stream(tmp_path: Path, redis_url: str) -> None:
    assert await relay.rate(tmp_path / "whole.db", redis_url, card(), payments=150) > 0
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing waits here


async def test_a_stream_that_holds_anything_else_ends_the_measuring(tmp_path: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("strange", {"subject": "pay_0", "sequence": "7"})
    with pytest.raises(RuntimeError, match="once and in order"):
        await relay.rate(tmp_path / "strange.db", redis_url, card(), payments=5)
