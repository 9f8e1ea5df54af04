"""A real OpenBao in development mode, with its transit engine: in memory, on a free port of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port

ROOT_TOKEN = "root-of-a-test"
READY_SECONDS = 60.0


class Bao:
    """Asked as its operator asks it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": ROOT_TOKEN},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def token(self, *allowed: str) -> str:
        """A token whose policy allows these paths, and nothing else."""
        rules = "\n".join(f'path "{path}" {{ capabilities = ["create", "update", "delete"] }}' for path in allowed)
        name = f"policy-{abs(hash(allowed))}"
        self.ask("POST", f"sys/policies/acl/{name}", {"policy": rules})
        return str(self.ask("POST", "auth/token/create", {"policies": [name]})["auth"]["client_token"])


@pytest.fixture(scope="session")
def bao() -> Iterator[Bao]:
    program, port = Path(sys.executable).with_name("bao"), free_port()
    address = f"127.0.0.1:{port}"
    arguments = ["server", "-dev", f"-dev-listen-address={address}", f"-dev-root-token-id={ROOT_TOKEN}"]
    process = subprocess.Popen(
        [program, *arguments, "-dev-no-store-token"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Bao(f"http://{address}")
    try:
        _wait_for(server, process)
        server.ask("POST", "sys/mounts/transit", {"type": "transit"})
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(server: Bao, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            server.ask("GET", "sys/health")
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "bao has ended"
            assert time.monotonic() < deadline, "bao does not answer"
            time.sleep(0.05)
        else:
            return
