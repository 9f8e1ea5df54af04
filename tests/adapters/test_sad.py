"""Security codes: handed out once, gone in time, never on a disk."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.memory import CODE_BYTES, MemorySad
from gateway.adapters.redis import open_redis
from gateway.adapters.redis_node import Access
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.redis_topology import One
from gateway.ports import SadVault, Unavailable
from tests.conftest import CountingEntropy, HandClock, Recorder
from tests.servers import address_of, persistent_redis_url, redis_url

__all__ = ["persistent_redis_url", "redis_url"]


RACED = 200


@pytest.fixture
def token() -> str:
    return f"cvc_{uuid.uuid4().hex}"


@pytest.fixture
async def connect(
    tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> AsyncIterator[Callable[[str], tuple[RedisSad, Redis]]]:
    """Another gateway of the deployment, and a look at its server's memory."""
    (tmp_path / "root.key").write_text(generate_key())
    (tmp_path / "root.key").chmod(0o600)
    keys = FileKeys(tmp_path / "root.key")
    opened = []

    def make(url: str) -> tuple[RedisSad, Redis]:
        shared, sad = open_redis(
            One(address_of(url)), Access(), clock=clock, entropy=CountingEntropy(), keys=keys, telemetry=telemetry
        )
        opened.append((shared, direct := Redis.from_url(url)))
        return sad, direct

    yield make
    for shared, server in opened:
        await shared.close()
        await server.aclose()


@pytest.fixture(params=["memory", "redis"])
def sad(
    request: pytest.FixtureRequest,
    clock: HandClock,
    redis_url: str,
    connect: Callable[[str], tuple[RedisSad, Redis]],
) -> SadVault:
    return MemorySad(clock) if request.param == "memory" else connect(redis_url)[0]


async def test_a_code_is_leased_to_one_exchange(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    leased = await asyncio.gather(*(sad.lease("t", token, f"x{i}") for i in range(20)))
    assert leased.count(b"737") == 1
    assert leased.count(None) == 19


async def test_the_exchange_that_holds_the_lease_may_read_again(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    assert [await sad.lease("t", token, "x1") for _ in range(2)] == [b"737", b"737"]


async def test_a_code_given_back_is_leased_again(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    await sad.lease("t", token, "x1")
    await sad.give_back("t", token, "x1")
    assert await sad.lease("t", token, "x2") == b"737"
    assert await sad.lease("t", token, "x1") is None


async def test_an_erased_code_is_gone(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    await sad.lease("t", token, "x1")
    await sad.erase("t", token, "x1")
    await sad.give_back("t", token, "x1")
    assert [await sad.lease("t", token, x) for x in ("x1", "x2")] == [None, None]


async def test_only_the_holder_gives_back_and_erases(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    await sad.erase("t", token, "x2")
    await sad.lease("t", token, "x1")
    await sad.give_back("t", token, "x2")
    await sad.erase("t", token, "x2")
    assert await sad.lease("t", token, "x2") is None
    assert await sad.lease("t", token, "x1") == b"737"


async def test_another_tenant_does_not_find_the_code(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    assert await sad.lease("u", token, "x1") is None
    await sad.erase("u", token, "x1")
    assert await sad.lease("t", token, "x1") == b"737"


async def test_an_unknown_token_is_nobodys(sad: SadVault, token: str) -> None:
    assert await sad.lease("t", token, "x1") is None


async def test_a_code_put_again_is_new(sad: SadVault, token: str) -> None:
    await sad.put("t", token, b"737", 60)
    await sad.lease("t", token, "x1")
    await sad.put("t", token, b"1234", 60)
    assert await sad.lease("t", token, "x2") == b"1234"


# --- memory


async def test_memory_hands_out_no_code_past_its_time_and_wipes_it(clock: HandClock, token: str) -> None:
    sad = MemorySad(clock)
    await sad.put("t", token, b"737", 60)
    held = sad._codes._entries["t", token][1].value
    clock.advance(59.9)
    assert await sad.lease("t", token, "x1") == b"737"
    clock.advance(0.1)
    assert await sad.lease("t", token, "x1") is None
    assert held == b"\0\0\0"


async def test_memory_wipes_what_is_erased(clock: HandClock, token: str) -> None:
    sad = MemorySad(clock)
    await sad.put("t", token, b"737", 60)
    held = sad._codes._entries["t", token][1].value
    await sad.lease("t", token, "x1")
    await sad.erase("t", token, "x1")
    assert held == b"\0\0\0"


async def test_memory_is_bounded_and_never_drops_a_code_that_lives(clock: HandClock) -> None:
    sad = MemorySad(clock, room=3 * CODE_BYTES)
    for i in range(3):
        await sad.put("t", f"{i}", b"737", 10 * (i + 1))
    with pytest.raises(Unavailable):
        await sad.put("t", "3", b"737", 60)
    clock.advance(10)
    await sad.put("t", "3", b"737", 60)
    assert [await sad.lease("t", f"{i}", "x") for i in range(4)] == [None, b"737", b"737", b"737"]


async def test_a_code_in_memory_takes_no_more_than_is_reckoned(clock: HandClock) -> None:
    """In steps: a table that has just grown has room for more than it holds. The first are made of what lay about."""
    sad = MemorySad(clock)
    ours = [tracemalloc.Filter(True, f"*/{name}.py") for name in ("gateway/adapters/*", "gateway/pure/*", "test_sad")]
    tracemalloc.start()
    try:
        for count in range(1, 12_001):
            await sad.put("default", f"cvc_live_{count:026d}", b"1234", 3600)
            if count % 1000 == 0:
                snapshot = tracemalloc.take_snapshot().filter_traces(ours)  # other threads allocate as well
                taken = sum(trace.size for trace in snapshot.traces)
                assert taken / count <= CODE_BYTES
        assert taken / count > 0.8 * CODE_BYTES
    finally:
        tracemalloc.stop()


async def test_memory_keeps_no_trace_of_codes_that_are_used_up(clock: HandClock) -> None:
    sad = MemorySad(clock)
    for i in range(1000):
        await sad.put("t", f"{i}", b"737", 3600)
        await sad.lease("t", f"{i}", "x")
        await sad.erase("t", f"{i}", "x")
    assert len(sad._codes._entries) == 0
    assert len(sad._codes._ends) < 50


async def test_memory_shows_no_code_in_its_repr(clock: HandClock, token: str) -> None:
    sad = MemorySad(clock)
    await sad.put("t", token, b"737", 60)
    assert "737" not in repr(vars(sad._codes))


# --- Redis


async def test_redis_ends_a_code_in_its_time_whether_leased_or_not(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], token: str
) -> None:
    sad, server = connect(redis_url)
    await sad.put("t", token, b"737", 60)
    for step in (sad.lease, sad.give_back, sad.lease):
        await step("t", token, "x1")
        assert 59_000 < await server.pttl(sad._name("t", token)) <= 60_000


async def test_redis_holds_neither_code_nor_token_in_clear(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], token: str
) -> None:
    sad, server = connect(redis_url)
    code = b"CANARY-CVC-16-ch"
    await sad.put("t", token, code, 60)
    await sad.lease("t", token, "x1")
    memory = b"".join([key + repr(await server.dump(key)).encode() async for key in server.scan_iter("pangate:sad:*")])
    assert code not in memory
    assert token.encode() not in memory
    assert sad._name("t", token).encode() in memory


async def test_redis_opens_a_code_only_under_the_token_it_was_put_for(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], token: str
) -> None:
    sad, server = connect(redis_url)
    await sad.put("t", token, b"737", 60)
    await sad.put("t", "other", b"123", 60)
    await server.hset(sad._name("t", token), "value", await server.hget(sad._name("t", "other"), "value"))
    with pytest.raises(Unavailable):
        await sad.lease("t", token, "x1")


async def test_redis_serves_every_gateway_of_the_deployment(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], token: str
) -> None:
    here, there = connect(redis_url)[0], connect(redis_url)[0]
    await here.put("t", token, b"737", 60)
    assert await there.lease("t", token, "x1") == b"737"
    assert await here.lease("t", token, "x2") is None


def started_racer(port: int, key: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.adapters.sad_racer", str(port), str(key), name, str(RACED)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(racers: list[subprocess.Popen[str]]) -> list[str]:
    """Each reads a line, at the same time, and says one."""
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    return [racer.stdout.readline() for racer in racers]  # type: ignore[union-attr]


async def test_of_processes_that_race_for_codes_one_gets_each_and_none_what_was_erased(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], tmp_path: Path
) -> None:
    sad, _ = connect(redis_url)
    for number in range(RACED):
        await sad.put("t", f"token-{number}", b"737", 60)
    port = address_of(redis_url).port
    with ExitStack() as stack:
        racers = [stack.enter_context(started_racer(port, tmp_path / "root.key", name)) for name in "ab"]
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2  # type: ignore[union-attr]
        left = set(range(RACED))
        for _ in range(2):
            first, second = (set(json.loads(line)) for line in tell(racers))
            assert first | second == left
            assert not first & second
            assert tell(racers) == ["done\n"] * 2
            left = {number for number in left if number % 2 == 0}
        for racer in racers:
            racer.communicate()
    codes = [await sad.lease("t", f"token-{number}", "x") for number in range(RACED)]
    assert codes == [b"737", None] * (RACED // 2)


async def test_a_cancelled_lease_leaves_its_code_to_nobody_else(
    redis_url: str, connect: Callable[[str], tuple[RedisSad, Redis]], token: str
) -> None:
    sad, _ = connect(redis_url)
    await sad.put("t", token, b"737", 60)
    for turns in range(12):
        await sad.put("t", f"{token}{turns}", b"999", 60)
        doomed = asyncio.ensure_future(sad.lease("t", token, "x1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        doomed.cancel()
        assert await sad.lease("t", f"{token}{turns}", "x2") == b"999"


async def test_a_redis_that_is_away_is_unavailable(
    connect: Callable[[str], tuple[RedisSad, Redis]], token: str, telemetry: Recorder
) -> None:
    sad, _ = connect("redis://127.0.0.1:1")
    for call in (
        sad.put("t", token, b"737", 60),
        sad.lease("t", token, "x"),
        sad.give_back("t", token, "x"),
        sad.erase("t", token, "x"),
        sad.require_volatile(),
    ):
        with pytest.raises(Unavailable, match="sad"):
            await call
    assert [line["event"] for line in telemetry.lines] == ["redis_lost"]
