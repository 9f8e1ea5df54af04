"""Redis as it is deployed: by TLS with users, with replicas and sentinels, as a cluster. All of them real servers."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from gateway.adapters.redis_node import Address
from tests.certificates import Authority
from tests.servers import VOLATILE, RunningRedis, free_port, running_redis

MASTER = "counters"
QUICK_REPLICATION = (
    "--repl-diskless-sync",
    "yes",
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "1",
)
WITHOUT_DISK = ("--repl-diskless-load", "on-empty-db")


def documented_user() -> list[str]:
    """The name and the permissions of the user of docs/operate/scaling.md, and a password."""
    page = (Path(__file__).parents[1] / "docs/operate/scaling.md").read_text("utf-8")
    found = re.search(r"^```\nuser (pangate .*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].replace("PASSWORD", "correct-horse").split()


def direct(server: RunningRedis) -> Redis:
    return Redis(port=server.port, socket_timeout=5, decode_responses=True)


def until(happened: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll servers for what they are to come to, bounded in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if happened():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


# --- TLS


@contextmanager
def tls_redis(directory: Path, authority: Authority, *options: str, port: int | None = None) -> Iterator[RunningRedis]:
    """Takes nobody without a certificate of the authority. Listens on 127.0.0.2 too, which its own does not name."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server here, and the Valkey of the test extra has no TLS: apt-get install redis-server")
    pair, port = authority.server("redis"), port or free_port()
    files = {"cert": pair.certificate, "key": pair.key, "ca-cert": authority.file}
    named = [text for name, file in files.items() for text in (f"--tls-{name}-file", str(file))]
    tls = ["--tls-port", str(port), "--tls-auth-clients", "yes", *named, "--bind", "127.0.0.1", "127.0.0.2"]
    with running_redis(directory, *VOLATILE, *tls, *options, port=0, listens=port, binary=binary) as server:
        yield server


# --- Sentinel


@dataclass
class Watched:
    """A master, its replica, and three sentinels; `servers` are the first two, whoever of them is master."""

    servers: list[RunningRedis]
    sentinels: list[RunningRedis]
    password: str | None = None

    def ask(self, sentinel: RunningRedis) -> Redis:
        return Redis(port=sentinel.port, password=self.password)

    def master(self) -> RunningRedis:
        _, port = self.ask(self.sentinels[0]).sentinel_get_master_addr_by_name(MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def addresses(self) -> list[Address]:
        return [Address("127.0.0.1", sentinel.port) for sentinel in self.sentinels]


@contextmanager
def watched_redis(directory: Path, *options: str, sentinels: str = "") -> Iterator[Watched]:
    """Sentinels that take a silence of 300 ms for a death; `options` are the servers', `sentinels` a line of theirs."""
    with ExitStack() as stack:
        enter = stack.enter_context
        master = enter(running_redis(directory, *VOLATILE, *QUICK_REPLICATION, *WITHOUT_DISK, *options))
        following = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = enter(running_redis(directory, *VOLATILE, *QUICK_REPLICATION, *WITHOUT_DISK, *options, *following))
        until(lambda: direct(replica).info("replication")["master_link_status"] == "up", "replication")
        watchers = []
        for number in range(3):
            file = directory / f"sentinel-{number}.conf"
            lines = (f"monitor {MASTER} 127.0.0.1 {master.port} 2", f"down-after-milliseconds {MASTER} 300")
            lines += (f"failover-timeout {MASTER} 3000",)
            file.write_text("".join(f"sentinel {line}\n" for line in lines) + f"{sentinels}\n")
            watchers.append(enter(running_redis(directory, "--sentinel", config=file)))
        watched = Watched([master, replica], watchers, sentinels.removeprefix("requirepass ") or None)
        for watcher in watchers:
            until(lambda: _knows_all(watched.ask(watcher)), "sentinels that know one another")  # noqa: B023
        yield watched


def _knows_all(sentinel: Redis) -> bool:
    told = sentinel.sentinel_master(MASTER)
    return (told["num-other-sentinels"], told["num-slaves"]) == (2, 1)


# --- Cluster


@dataclass
class RedisCluster:
    """Three masters, a third of the slots each."""

    servers: list[RunningRedis] = field(default_factory=list)

    def addresses(self) -> list[Address]:
        return [Address("127.0.0.1", server.port) for server in self.servers]

    def holder(self, slot: int) -> int:
        """Which of the servers holds a slot."""
        for first, last, (_, port, *_), *_ in direct(self.servers[0]).execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [server.port for server in self.servers].index(port)
        raise AssertionError("nobody's slot")

    def id(self, number: int) -> str:
        return str(direct(self.servers[number]).execute_command("CLUSTER", "MYID"))


@contextmanager
def clustered_redis(directory: Path) -> Iterator[RedisCluster]:
    with ExitStack() as stack:
        cluster = RedisCluster()
        for number in range(3):
            own = directory / str(number)
            own.mkdir()
            options = (
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "15000",
                "--cluster-port",
                str(free_port()),
            )
            cluster.servers.append(stack.enter_context(running_redis(own, *VOLATILE, *options)))
        ends = (0, 5461, 10_923, 16_384)
        for server, first, after in zip(cluster.servers, ends[:-1], ends[1:], strict=True):
            direct(server).execute_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for number, server in enumerate(cluster.servers):
            direct(server).execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bus = [direct(server).config_get("cluster-port")["cluster-port"] for server in cluster.servers]
        for server, port in zip(cluster.servers[1:], bus[1:], strict=True):
            direct(cluster.servers[0]).execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, port)
        for server in cluster.servers:
            until(lambda: _is_whole(direct(server)), "the cluster")  # noqa: B023
        yield cluster


def _is_whole(client: Redis) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    return "cluster_state:ok" in info and "cluster_known_nodes:3" in info


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with clustered_redis(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class Move:
    """A slot on its way from one server to another, as redis-cli moves it (Redis Cluster specification, resharding)."""

    def __init__(self, cluster: RedisCluster, slot: int, source: int, target: int) -> None:
        self._cluster = cluster
        self._slot = slot
        self._source, self._target = direct(cluster.servers[source]), direct(cluster.servers[target])
        self._ids = cluster.id(source), cluster.id(target)
        self._port = cluster.servers[target].port

    def announce(self) -> None:
        self._target.execute_command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._ids[0])
        self._source.execute_command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._ids[1])

    def carry(self, *names: str) -> None:
        keys = names or self._source.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 100)
        if keys:
            self._source.execute_command("MIGRATE", "127.0.0.1", self._port, "", 0, 1000, "KEYS", *keys)

    def finish(self) -> None:
        for server in (self._target, self._source):
            server.execute_command("CLUSTER", "SETSLOT", self._slot, "NODE", self._ids[1])
