"""Shared counters: one suite for all adapters, then what is particular to each."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import MemoryShared
from gateway.adapters.redis import RedisShared, open_redis
from gateway.adapters.redis_node import Access
from gateway.adapters.redis_nodes import Script
from gateway.adapters.redis_topology import One
from gateway.ports import Hit, Shared, Unavailable, settled
from gateway.pure import velocity
from gateway.pure.gcra import SECOND, STRATEGIES, Limit, State, decide
from gateway.pure.velocity import Tally
from tests.adapters.redis_scene import found, halted
from tests.conftest import CountingEntropy, HandClock, Recorder
from tests.servers import VOLATILE, address_of, redis_url, running_redis

__all__ = ["redis_url"]

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def a_hit(
    key: str, strategy: str = "gcra", enforced: bool = True, amount: int = 20, period: float = 100.0, burst: int = 20
) -> Hit:
    return Hit("{" + key + "}", strategy, Limit(amount, round(period * SECOND), burst), enforced)


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def connect(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> Callable[..., RedisShared]:
    """Makes a RedisShared; the test closes it."""
    (tmp_path / "root.key").write_text(generate_key())
    (tmp_path / "root.key").chmod(0o600)
    keys = FileKeys(tmp_path / "root.key")

    def make(url: str, **options: Any) -> RedisShared:
        ports = {"clock": clock, "entropy": CountingEntropy(), "keys": keys, "telemetry": telemetry}
        return open_redis(One(address_of(url)), Access(), **ports, **options)[0]

    return make


@dataclass
class Counters:
    """Shared counters whose clock a test moves; `now` in whole microseconds."""

    shared: Shared
    now: int
    set_clock: Callable[[int], Awaitable[object]]
    steps_back: bool
    """Whether the clock it counts by is one that may."""

    async def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        await self.set_clock(self.now)

    async def passed(self, *hits: Hit) -> list[bool]:
        return [decision.allowed for decision in await settled(self.shared.hit(hits))]


@pytest.fixture
def memory(clock: HandClock) -> Counters:
    start = round(clock.monotonic() * SECOND)

    async def set_clock(now: int) -> None:
        clock._monotonic = now / SECOND

    return Counters(MemoryShared(clock), start, set_clock, steps_back=False)


@pytest.fixture
async def on_redis(redis_url: str, connect: Callable[..., RedisShared], key: str) -> AsyncIterator[Counters]:
    """The script as it is, but for its clock: the server's is no test's to move, so it reads a key of ours."""
    shared = connect(redis_url)
    source = shared._hit.source
    assert source.count("redis.call('TIME')") == 1
    told = f"{{0, tonumber(redis.call('GET', 'clock:{key}'))}}"
    shared._hit = Script(source.replace("redis.call('TIME')", told))
    async with Redis.from_url(redis_url) as direct:
        counters = Counters(shared, 1_800_000_000 * SECOND, lambda now: direct.set(f"clock:{key}", now), True)
        await counters.advance(0)
        yield counters
    await shared.close()


@pytest.fixture(params=["memory", "on_redis"])
def counters(request: pytest.FixtureRequest) -> Counters:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@every_strategy
async def test_of_many_at_once_exactly_the_limit_passes(counters: Counters, strategy: str, key: str) -> None:
    answers = await asyncio.gather(*(counters.passed(a_hit(key, strategy)) for _ in range(57)))
    assert sum(allowed for (allowed,) in answers) == 20


@every_strategy
async def test_time_makes_a_limit_whole_again(counters: Counters, strategy: str, key: str) -> None:
    hit = a_hit(key, strategy, amount=3, burst=3)
    assert [(await counters.passed(hit))[0] for _ in range(4)] == [True, True, True, False]
    (refused,) = await settled(counters.shared.hit([hit]))
    await counters.advance(refused.retry_after)
    assert await counters.passed(hit) == [True]
    await counters.advance(200)
    assert [(await counters.passed(hit))[0] for _ in range(4)] == [True, True, True, False]


async def test_a_refusal_by_one_limit_counts_against_none(counters: Counters, key: str) -> None:
    tight, wide = a_hit(key + "}1", amount=1, burst=1), a_hit(key + "}2", amount=2, burst=2)
    for expected in ([True, True], [False, True], [False, True]):
        assert await counters.passed(tight, wide) == expected
    assert [(await counters.passed(wide))[0] for _ in range(2)] == [True, False]


async def test_a_limit_in_report_refuses_no_other(counters: Counters, key: str) -> None:
    shadow, live = a_hit(key + "}1", amount=1, burst=1, enforced=False), a_hit(key + "}2", amount=3, burst=3)
    answers = [await counters.passed(shadow, live) for _ in range(4)]
    assert answers == [[True, True], [False, True], [False, True], [False, False]]


@every_strategy
async def test_every_answer_is_the_pure_decision(counters: Counters, strategy: str, key: str) -> None:
    """Also between Python and Lua: the same numbers, to the microsecond, for any course of time."""
    chance = random.Random(strategy)
    limits = [
        a_hit(f"{key}}}{i}", strategy, amount=chance.randint(1, 9), burst=chance.randint(1, 9), enforced=i != 1)
        for i in range(3)
    ]
    states: list[State] = [()] * len(limits)
    back = -60 if counters.steps_back else 0
    for _ in range(120):
        steps = [0, 0, 0, 0.000001, chance.random() * 10, chance.random() * 150, chance.random() * back]
        await counters.advance(chance.choice(steps))
        rulings = decide(limits, states, counters.now)
        states = [old if r.state is None else r.state for old, r in zip(states, rulings, strict=True)]
        answers = await settled(counters.shared.hit(limits))
        assert [
            (a.allowed, a.remaining, round(a.reset_after * SECOND), round(a.retry_after * SECOND)) for a in answers
        ] == [(r.allowed, r.room.remaining, r.room.reset_after, r.room.retry_after) for r in rulings]


async def test_of_fifty_who_use_it_at_once_one_is_first(counters: Counters, key: str) -> None:
    answers = await asyncio.gather(*(settled(counters.shared.first_use([key], 60.0)) for _ in range(50)))
    assert answers.count(True) == 1


async def test_what_is_used_together_is_used_as_one(counters: Counters, key: str) -> None:
    a, b, c = (f"{{{key}}}{part}" for part in "abc")
    assert [await settled(counters.shared.first_use(keys, 60.0)) for keys in ([a, b], [b, c], [c], [c])] == [
        True, False, True, False,
    ]  # fmt: skip


# --- memory


async def test_memory_forgets_a_use_in_its_time_and_not_before(clock: HandClock) -> None:
    shared = MemoryShared(clock)
    assert shared.first_use(["a"], 60.0)
    clock.advance(59.9)
    assert not shared.first_use(["a"], 60.0)
    clock.advance(0.1)
    assert shared.first_use(["a"], 60.0)


async def test_memory_full_of_uses_that_live_takes_no_new_one(clock: HandClock) -> None:
    shared = MemoryShared(clock, uses=3)
    assert all(shared.first_use([f"{i}"], 10.0 + i) for i in range(3))
    with pytest.raises(Unavailable):
        shared.first_use(["3"], 60.0)
    assert not any(shared.first_use([f"{i}"], 60.0) for i in range(3))
    clock.advance(10)
    assert shared.first_use(["3"], 60.0)
    assert not shared.first_use(["1"], 60.0)


async def test_memory_refuses_what_it_has_no_room_to_count_and_counts_nothing_of_it(clock: HandClock) -> None:
    shared = MemoryShared(clock, most=2)
    await settled(shared.hit([a_hit("a", amount=1, burst=1)]))
    with pytest.raises(Unavailable):
        await settled(shared.hit([a_hit("b"), a_hit("c")]))
    await settled(shared.hit([a_hit("d")]))
    with pytest.raises(Unavailable):
        await settled(shared.hit([a_hit("e")]))
    assert not (await settled(shared.hit([a_hit("a", amount=1, burst=1)])))[0].allowed


async def test_memory_forgets_limits_that_are_whole_to_make_room(clock: HandClock) -> None:
    shared = MemoryShared(clock, most=50)
    for i in range(500):
        await settled(shared.hit([a_hit(f"{i}", period=1.0, amount=1, burst=1)]))
        clock.advance(0.02)
    assert len(shared._states._entries) <= 50
    assert len(shared._states._ends) <= 51


# --- Redis


async def test_of_many_at_once_from_several_gateways_exactly_the_limit_passes(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    gateways = [connect(redis_url) for _ in range(4)]
    limits = [a_hit(f"{key}}}{strategy}", strategy, amount=25, burst=25, period=3600.0) for strategy in STRATEGIES]
    for hit in limits:
        answers = await asyncio.gather(*(gateway.hit([hit]) for _ in range(15) for gateway in gateways))
        assert sum(decision.allowed for (decision,) in answers) == 25
    for gateway in gateways:
        await gateway.close()


async def test_of_fifty_at_once_from_several_gateways_one_is_first(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    gateways = [connect(redis_url) for _ in range(5)]
    answers = await asyncio.gather(*(gateway.first_use([key], 60.0) for _ in range(10) for gateway in gateways))
    assert answers.count(True) == 1
    for gateway in gateways:
        await gateway.close()


async def test_redis_forgets_a_use_in_its_time(redis_url: str, connect: Callable[..., RedisShared], key: str) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        assert await shared.first_use([key], 60.0)
        assert 59_000 < await direct.pttl(key) <= 60_000
        await direct.pexpireat(key, 1)
        assert await shared.first_use([key], 0.0001)
    await shared.close()


async def test_a_redis_without_room_lets_nobody_be_first(
    tmp_path: Path, connect: Callable[..., RedisShared], key: str
) -> None:
    with running_redis(tmp_path, *VOLATILE, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        shared = connect(server.url)
        with pytest.raises(Unavailable):
            await shared.first_use([key], 60.0)
        await shared.close()


async def test_a_use_and_a_hit_of_one_turn_share_a_round_trip(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        await asyncio.gather(shared.first_use([f"{key}0"], 60.0), shared.hit([a_hit(key)]))
        before = (await direct.info("stats"))["total_reads_processed"]
        await asyncio.gather(shared.first_use([key], 60.0), *(shared.hit([a_hit(f"{key}{i}")]) for i in range(50)))
        assert (await direct.info("stats"))["total_reads_processed"] - before <= 3
    await shared.close()


async def test_the_clock_is_the_servers(redis_url: str, connect: Callable[..., RedisShared], key: str) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        before, _ = await direct.time()
        await settled(shared.hit([a_hit(key, "fixed_window")]))
        after, _ = await direct.time()
        _, start = (await direct.get("{" + key + "}")).split()
        assert before <= int(start) / SECOND <= after + 1
        assert 99_000 < await direct.pttl("{" + key + "}") <= 100_000
    await shared.close()


@every_strategy
async def test_a_server_clock_that_steps_back_refills_nothing(on_redis: Counters, strategy: str, key: str) -> None:
    for _ in range(20):
        await settled(on_redis.shared.hit([a_hit(key, strategy)]))
    await on_redis.advance(-3600)
    assert await on_redis.passed(a_hit(key, strategy)) == [False]


async def test_the_calls_of_one_turn_share_a_round_trip(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        await settled(shared.hit([a_hit(key)]))
        before = (await direct.info("stats"))["total_reads_processed"]
        await asyncio.gather(*(shared.hit([a_hit(f"{key}{i}")]) for i in range(50)))
        assert (await direct.info("stats"))["total_reads_processed"] - before <= 3
    await shared.close()


async def test_a_server_that_forgot_the_script_is_told_it_again(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        hit = a_hit(key, amount=3, burst=3)
        await settled(shared.hit([hit]))
        await direct.script_flush()
        answers = await asyncio.gather(*(shared.hit([hit]) for _ in range(5)))
    assert [decision.allowed for (decision,) in answers] == [True, True, False, False, False]
    await shared.close()


async def test_a_server_that_does_not_answer_in_time_is_unavailable_and_its_late_answers_reach_nobody(
    tmp_path: Path, connect: Callable[..., RedisShared], telemetry: Recorder
) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        shared = connect(server.url, timeout=0.05, connections=2)
        await settled(shared.hit([a_hit("warm")]))
        with halted(server.process.pid):
            for _ in range(4):
                answers = await asyncio.gather(*(shared.hit([a_hit("a")]) for _ in range(9)), return_exceptions=True)
                assert [type(answer) for answer in answers] == [Unavailable] * 9
        await found(shared)
        (decision,) = await settled(shared.hit([a_hit("b", amount=7, burst=7)]))
        assert decision.remaining == 6
        await shared.close()
    assert [line["event"] for line in telemetry.lines] == ["redis_lost", "redis_found"]


async def test_cve_2023_28858_28859_a_cancelled_call_leaves_its_answer_to_nobody(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    shared = connect(redis_url, connections=1)
    for turns in range(6):
        doomed = asyncio.ensure_future(shared.hit([a_hit(f"{key}a", amount=99, burst=99)]))
        others = [asyncio.ensure_future(shared.hit([a_hit(f"{key}{turns}", amount=5, burst=5)])) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        doomed.cancel()
        assert [(await other)[0].remaining for other in others] == [4, 3, 2, 1, 0]
    await shared.close()


async def test_a_server_that_comes_back_is_used_again(tmp_path: Path, connect: Callable[..., RedisShared]) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        shared = connect(server.url)
        await settled(shared.hit([a_hit("a")]))
    with pytest.raises(Unavailable):
        await settled(shared.hit([a_hit("a")]))
    with running_redis(tmp_path, *VOLATILE, port=server.port):
        await found(shared)
        assert (await settled(shared.hit([a_hit("a")])))[0].remaining == 19
    await shared.close()


async def test_a_key_that_is_not_ours_harms_only_who_asks_for_it(
    redis_url: str, connect: Callable[..., RedisShared], key: str
) -> None:
    shared = connect(redis_url)
    async with Redis.from_url(redis_url) as direct:
        await direct.lpush("{" + key + "}", "x")
    wrong, right = await asyncio.gather(
        shared.hit([a_hit(key)]), shared.hit([a_hit(f"{key}2")]), return_exceptions=True
    )
    assert isinstance(wrong, Unavailable)
    assert not isinstance(right, BaseException)
    await shared.close()


async def test_redis_has_a_twin_in_this_process_for_rules_that_want_one(
    connect: Callable[..., RedisShared],
) -> None:
    shared = connect("redis://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await settled(shared.hit([a_hit("a")]))
    answers = [(await settled(shared.local.hit([a_hit("a", amount=2, burst=2)])))[0].allowed for _ in range(3)]
    assert answers == [True, True, False]
    await shared.close()


# --- windows ---------------------------------------------------------------------------------------------------------


def a_tally(key: str, member: str = "", weight: int = 1, most: int = 3, period: float = 100.0, **more: Any) -> Tally:
    return Tally("{" + key + "}", member, weight, most, round(period * SECOND), more.get("enforced", True))


@pytest.fixture
async def windows(counters: Counters, key: str) -> Counters:
    """Their clock is a test's to move on Redis too."""
    if isinstance(counters.shared, RedisShared):
        source = counters.shared._tally.source
        assert source.count("redis.call('TIME')") == 1
        told = f"{{0, tonumber(redis.call('GET', 'clock:{key}'))}}"
        counters.shared._tally = Script(source.replace("redis.call('TIME')", told))
    return counters


async def tallied(windows: Counters, *tallies: Tally) -> list[bool]:
    return [each.allowed for each in await settled(windows.shared.tally(tallies))]


async def test_of_many_at_once_exactly_as_many_members_are_counted(windows: Counters, key: str) -> None:
    answers = await asyncio.gather(*(tallied(windows, a_tally(key, f"m{n}")) for n in range(30)))
    assert sum(allowed for (allowed,) in answers) == 3


async def test_a_window_slides(windows: Counters, key: str) -> None:
    for member in "abc":
        assert await tallied(windows, a_tally(key, member)) == [True]
        await windows.advance(10)
    assert await tallied(windows, a_tally(key, "d")) == [False]
    assert await tallied(windows, a_tally(key, "b")) == [True]
    (refused,) = await settled(windows.shared.tally([a_tally(key, "d")]))
    assert refused.retry_after == 70.0
    await windows.advance(70)
    assert await tallied(windows, a_tally(key, "d")) == [True]
    assert await tallied(windows, a_tally(key, "e")) == [False]


async def test_what_is_taken_back_was_never_counted(windows: Counters, key: str) -> None:
    for member in "abc":
        await tallied(windows, a_tally(key, member))
    await settled(windows.shared.take_back([a_tally(key, "b"), a_tally(key + "x", "b")]))
    assert [(await tallied(windows, a_tally(key, member)))[0] for member in "de"] == [True, False]


async def test_windows_of_one_request_are_decided_together(windows: Counters, key: str) -> None:
    other = Tally("{" + key + "}2", "m", 1, 1, 100 * SECOND, enforced=True)
    assert await tallied(windows, a_tally(key, "a"), other) == [True, True]
    assert await tallied(windows, a_tally(key, "b"), replace(other, member="n")) == [True, False]
    assert [(await tallied(windows, a_tally(key, member)))[0] for member in "cde"] == [True, True, False]


async def test_windows_answer_as_the_algorithm_does(windows: Counters, key: str) -> None:
    drawn = random.Random(7)
    states: dict[str, velocity.State] = {}
    for _ in range(150):
        tallies = [
            Tally(
                f"{{{key}}}:{n}",
                drawn.choice(["", "a", "b", "c", "d"]) if n else "",
                drawn.randint(1, 4),
                7,
                100 * SECOND * (n + 1),
                enforced=drawn.random() < 0.7,
            )
            for n in range(2)
        ]
        rulings = velocity.decide(tallies, [states.get(tally.key, ()) for tally in tallies], windows.now)
        answers = await settled(windows.shared.tally(tallies))
        assert [(each.allowed, round(each.retry_after * SECOND)) for each in answers] == [
            (ruling.allowed, ruling.retry_after) for ruling in rulings
        ]
        states |= {tally.key: ruling.state for tally, ruling in zip(tallies, rulings, strict=True)}
        await windows.advance(drawn.choice([0, 0.001, 5, 40, 150]))


async def test_memory_for_windows_is_bounded(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.adapters.memory.MEMBERS_MAX", 50)
    shared = MemoryShared(clock)
    for n in range(50):
        shared.tally([a_tally("k", f"m{n}", most=1000)])
    with pytest.raises(Unavailable):
        shared.tally([a_tally("k", "one more", most=1000)])
    clock.advance(101)
    assert shared.tally([a_tally("k", "one more", most=1000)])[0].allowed
    assert shared._members == 1
