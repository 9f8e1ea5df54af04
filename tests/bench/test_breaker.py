"""The row about breakers measures calls that were made, and judges what they cost above the pool's."""

from __future__ import annotations

import pytest

from bench.backend import ANSWER
from bench.rows import breaker
from tests.upstreams import answering, scripted


async def test_each_way_makes_the_same_calls_and_is_timed_in_every_round() -> None:
    async with scripted(answering(ANSWER)) as server:
        found = await breaker.costs(server.port, rounds=2, calls=5)
        assert len(server.requests) == 3 * 3 * 5
        assert sum(b"X-Request-Deadline" in request for request in server.requests) == 2 * 3 * 5
    assert {name: len(values) for name, values in found.items()} == {
        "pool": 2,
        "breaker_cost": 2,
        "breaker_cost_endpoints": 2,
    }
    assert all(value > 0 for values in found.values() for value in values)


async def test_a_wrong_answer_ends_the_measuring() -> None:
    async with scripted(answering(ANSWER.replace(b"succeeded", b"forgotten"))) as server:
        with pytest.raises(RuntimeError):
            await breaker.costs(server.port, rounds=1, calls=1)


def test_what_is_added_is_compared_within_rounds_and_judged() -> None:
    found = {"pool": [40.0, 90.0, 50.0], "breaker_cost": [42.0, 92.0, 70.0], "breaker_cost_endpoints": [44.0] * 3}
    one, two, pool = breaker.rows(found)
    assert (one.name, one.value, one.goal, one.met) == ("breaker_cost", 2.0, "at most 3", True)
    assert (two.name, two.value, two.met) == ("breaker_cost_endpoints", -6.0, True)
    assert (pool.value, pool.goal) == (50.0, "")
