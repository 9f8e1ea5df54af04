"""Redis servers by the files of TLS that a configuration names, replaced while connections exist."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from gateway.adapters.clock import SystemClock
from gateway.adapters.keys import read_secret
from gateway.config.inert import NoKeys
from gateway.config.load import load
from gateway.ports import Publisher, Shared, Unavailable, settled
from gateway.publishing import make_publishers
from gateway.pure.metrics import Metric
from gateway.pure.relaying import TAKEN
from gateway.reaching import RedisServers
from gateway.renewal import Renewal
from gateway.sharing import make_shared
from tests.adapters.published import event, published
from tests.certificates import Authority, Pair
from tests.config.world import CONFIG, POLICY
from tests.conftest import Recorder
from tests.redis_deployments import documented_user, tls_redis
from tests.servers import RunningRedis

TLS = 'tls: {ca: ca.pem, certificate: live.pem, key: "file:live.key"}'
ENTERED = f'url: "rediss://127.0.0.1:PORT", username: pangate, password: "file:password", {TLS}'
WRITER = ("--user", "writer", "on", ">correct-horse", "~pangate:*", "+xadd", "+ping", "+client|setname")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningRedis]:
    users = ("--user", "default", "on", "nopass", "~*", "+@all", "--user", *documented_user(), *WRITER)
    with tls_redis(tmp_path_factory.mktemp("tls"), authority, *users) as running:
        yield running


@dataclass
class Entered:
    """A gateway's ways to a Redis, and the files by which it enters."""

    folder: Path
    authority: Authority
    server: RunningRedis
    telemetry: Recorder
    servers: RedisServers
    shared: Shared
    publisher: Publisher
    renewal: Renewal

    async def look(self) -> None:
        await self.renewal.look_at_servers("redis", self.servers)

    async def asks(self, *, patiently: bool = False) -> bool:
        """Is there an answer? `patiently`: ask until there is one, for a minute."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return await settled(self.shared.first_use([f"pangate:{uuid.uuid4()}"], 1.0))
                except Unavailable:
                    if not patiently:
                        return False
                await asyncio.sleep(0.02)

    def connections(self) -> set[str]:
        """Those of the gateway, by the server's ids."""
        pair = self.authority.client("admin", "spiffe://shop.example/admin")
        files = {"ssl_ca_certs": self.authority.file, "ssl_certfile": pair.certificate, "ssl_keyfile": pair.key}
        given = {name: str(file) for name, file in files.items()}
        with Redis(port=self.server.port, ssl=True, decode_responses=True, **given) as admin:  # type: ignore[arg-type]
            return {found["id"] for found in admin.client_list() if found["user"] == "pangate"}


def put(folder: Path, authority: Authority, pair: Pair) -> None:
    for source, target in ((authority.file, "ca.pem"), (pair.certificate, "live.pem"), (pair.key, "live.key")):
        shutil.copy(source, folder / "new")
        (folder / "new").replace(folder / target)


def client_of(authority: Authority) -> Pair:
    return authority.client("gateway", "spiffe://shop.example/gateway")


@asynccontextmanager
async def entering(folder: Path, authority: Authority, server: RunningRedis) -> AsyncIterator[Entered]:
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text(POLICY)
    (folder / "password").write_text("correct-horse")
    entered = ENTERED.replace("PORT", str(server.port))
    text = CONFIG.replace("keys: {key: file:certs/vault.key}\n", "") + f"shared: {{{entered}, timeout: 5s}}\n"
    stream = entered.replace("username: pangate", "username: writer")
    text += f"events:\n  publish:\n    - {{kind: redis_stream, name: books, {stream}, timeout: 20s}}\n"
    (folder / "config.yaml").write_text(text)
    config, telemetry = load(str(folder / "config.yaml")), Recorder()
    secrets = functools.partial(read_secret, base=Path())
    servers = RedisServers(config, secrets)
    outside = {"clock": SystemClock(), "entropy": os.urandom, "keys": NoKeys(), "telemetry": telemetry}
    shared, _ = make_shared(config.settings.shared, servers, **outside)  # type: ignore[arg-type]
    (publisher,) = make_publishers(config, servers, secrets, SystemClock().now, telemetry)
    try:
        yield Entered(folder, authority, server, telemetry, servers, shared, publisher, Renewal(telemetry))
    finally:
        await asyncio.gather(shared.close(), publisher.close())


async def test_a_stream_is_entered_by_tls_as_a_user_who_may_do_no_more_than_add_to_it(
    tmp_path: Path, authority: Authority, server: RunningRedis
) -> None:
    put(tmp_path, authority, client_of(authority))
    async with entering(tmp_path, authority, server) as it:
        assert await published(it.publisher, event(1), event(2, "pay_2")) == [TAKEN, TAKEN]


async def test_a_new_certificate_is_shown_from_the_next_look_on_and_no_call_fails(
    tmp_path: Path, authority: Authority, server: RunningRedis
) -> None:
    put(tmp_path, authority, client_of(authority))
    async with entering(tmp_path, authority, server) as it:
        for _ in range(2):
            await it.look()
            assert await it.asks()
        before = it.connections()
        put(tmp_path, authority, client_of(authority))
        await it.look()
        assert await it.asks()
        assert before
        assert not before & it.connections()
        counts = it.telemetry.counts
        assert [counts[Metric.CERTIFICATE_RENEWALS, (name, "applied")] for name in it.servers.tls] == [1, 1]
        assert list(it.servers.tls) == ["shared", "publishers.books"]


async def test_a_bad_pair_changes_nothing_and_is_told_of_once(
    tmp_path: Path, authority: Authority, server: RunningRedis
) -> None:
    put(tmp_path, authority, client_of(authority))
    async with entering(tmp_path, authority, server) as it:
        assert await it.asks()
        before = it.connections()
        (tmp_path / "live.key").write_bytes(b"-----BEGIN NONSENSE-----\n")
        for _ in range(4):
            await it.look()
            assert await it.asks()
        assert it.connections() == before
        told = [line["redis"] for line in it.telemetry.lines if line["event"] == "certificate_rejected"]
        assert told == ["shared", "publishers.books"]
        assert it.telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("shared", "rejected")] == 1


async def test_a_gateway_that_the_server_does_not_know_gets_in_once_its_files_are_right(
    tmp_path: Path, authority: Authority, server: RunningRedis
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    put(tmp_path, other, client_of(other))
    async with entering(tmp_path, authority, server) as it:
        assert not await it.asks()
        put(tmp_path, authority, client_of(authority))
        await it.look()
        assert await it.asks(patiently=True)
