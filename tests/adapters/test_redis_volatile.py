"""No server and no replica that writes to a disk gets a security code, whenever it begins to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.adapters.redis_topology import One
from gateway.ports import Unavailable
from tests.adapters.redis_scene import Connect, connect
from tests.conftest import HandClock, Recorder
from tests.redis_deployments import QUICK_REPLICATION, WITHOUT_DISK, direct, until
from tests.servers import VOLATILE, RunningRedis, address_of, persistent_redis_url, redis_url, running_redis

__all__ = ["connect", "persistent_redis_url", "redis_url"]


async def test_a_redis_that_keeps_nothing_may_hold_codes(redis_url: str, connect: Connect) -> None:
    await connect(One(address_of(redis_url)))[1].require_volatile()


@pytest.mark.parametrize("options", [("--save", "60 1", "--appendonly", "no"), ("--save", "", "--appendonly", "yes")])
async def test_a_redis_that_writes_snapshots_or_a_log_may_not_hold_codes(
    options: tuple[str, ...], tmp_path: Path, connect: Connect
) -> None:
    with running_redis(tmp_path, *options) as server, pytest.raises(ValueError, match="writes to its disk"):
        await connect(One(address_of(server.url)))[1].require_volatile()


async def test_a_redis_that_persists_both_ways_may_not_hold_codes(persistent_redis_url: str, connect: Connect) -> None:
    with pytest.raises(ValueError, match="writes to its disk"):
        await connect(One(address_of(persistent_redis_url)))[1].require_volatile()


async def test_a_redis_that_does_not_let_us_see_may_not_hold_codes(tmp_path: Path, connect: Connect) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        _, sad = connect(One(address_of(server.url)))
        direct(server).execute_command("ACL", "SETUSER", "default", "-config")
        with pytest.raises(ValueError, match="CONFIG GET"):
            await sad.require_volatile()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningRedis]]:
    """A master and its replica, which keep nothing on a disk."""
    options = (*VOLATILE, *QUICK_REPLICATION, *WITHOUT_DISK)
    with ExitStack() as stack:
        master = stack.enter_context(running_redis(tmp_path_factory.mktemp("master"), *options))
        following = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = stack.enter_context(running_redis(tmp_path_factory.mktemp("replica"), *options, *following))
        until(lambda: direct(replica).info("replication")["master_link_status"] == "up", "replication")
        yield [master, replica]


async def test_a_master_and_a_replica_that_keep_nothing_may_hold_codes(
    pair: list[RunningRedis], connect: Connect
) -> None:
    await connect(One(address_of(pair[0].url)))[1].require_volatile()


@pytest.mark.parametrize(
    ("which", "setting", "wrong", "right", "complaint"),
    [
        (0, "repl-diskless-sync", "no", "yes", "writes snapshots for its replicas to a disk.*--repl-diskless-sync yes"),
        (1, "repl-diskless-load", "disabled", "on-empty-db", "writes snapshots.*--repl-diskless-load on-empty-db"),
        (1, "save", "60 1", "", "writes to its disk"),
        (1, "appendonly", "yes", "no", "writes to its disk"),
    ],
)
async def test_a_snapshot_for_a_replica_may_not_touch_a_disk_either(
    pair: list[RunningRedis],
    connect: Connect,
    which: int,
    setting: str,
    wrong: str,
    right: str,
    complaint: str,
) -> None:
    server = direct(pair[which])
    server.config_set(setting, wrong)
    try:
        with pytest.raises(ValueError, match=f"127.0.0.1:{pair[which].port} {complaint}"):
            await connect(One(address_of(pair[0].url)))[1].require_volatile()
    finally:
        server.config_set(setting, right)


async def test_a_server_that_begins_to_write_gets_no_new_code_and_still_gives_out_those_it_has(
    tmp_path: Path,
    connect: Connect,
    clock: HandClock,
    telemetry: Recorder,
) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        _, sad = connect(One(address_of(server.url)))
        await sad.put("t", "before", b"737", 60)
        direct(server).config_set("save", "60 1")
        clock.advance(31)
        answers = await asyncio.gather(*(sad.put("t", f"{n}", b"737", 60) for n in range(9)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * 9
        assert [(line["event"], "writes to its disk" in str(line["error"])) for line in telemetry.lines] == [
            ("sad_refused", True)
        ]
        assert await sad.lease("t", "before", "x") == b"737"
        await sad.erase("t", "before", "x")
        assert direct(server).dbsize() == 0
        direct(server).config_set("save", "")
        await sad.put("t", "after", b"737", 60)


async def test_another_server_in_the_place_of_one_is_looked_at_before_it_gets_a_code(
    tmp_path: Path, connect: Connect, telemetry: Recorder
) -> None:
    with running_redis(tmp_path, *VOLATILE) as server:
        _, sad = connect(One(address_of(server.url)))
        await sad.put("t", "before", b"737", 60)
    with pytest.raises(Unavailable):
        await sad.put("t", "meanwhile", b"737", 60)
    with running_redis(tmp_path, "--save", "60 1", port=server.port) as another:
        for _ in range(400):
            with pytest.raises(Unavailable):
                await sad.put("t", "after", b"737", 60)
            if any(line["event"] == "sad_refused" for line in telemetry.lines):
                break
            await asyncio.sleep(0.01)
        assert telemetry.lines[-1]["event"] == "sad_refused"
        assert direct(another).dbsize() == 0
