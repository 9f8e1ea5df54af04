"""The gateway as a user starts it (`pangate run`, a process of its own), in a folder of its own on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo.wire import Client
from gateway.adapters.dev_certificates import mint_token

START_SECONDS = 60.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports(*names: str) -> dict[str, int]:
    """A port for each, no two the same: all of them are held until the last was found."""
    with contextlib.ExitStack() as held:
        probes = {name: held.enter_context(socket.socket()) for name in names}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}


def listens(port: int) -> bool:
    """Does anybody accept connections at this port of loopback?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(happened: Any, seconds: float = 60.0, what: str = "it", pause: float = 0.02) -> None:
    """Poll a condition of another process, bounded in time."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(pause)


@dataclass
class Gateway:
    """`folder` holds config.yaml, policies/ and certs/; `env` is what the configuration's `${NAME}`s expand to.

    `program` is what Python is given to run, before the command `run`.
    """

    folder: Path
    ports: Mapping[str, int]
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    program: Sequence[str] = ("-m", "gateway.cli")
    cwd: Path | None = None

    def environment(self) -> dict[str, str]:
        ports = {f"PANGATE_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        return {**os.environ, **ports, **self.env}

    def start(self, ready: str = "edge") -> None:
        command = [sys.executable, *self.program, "run", "--config", str(self.folder / "config.yaml")]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment(), cwd=self.cwd)
        try:
            wait_until(lambda: self._listens(ready), START_SECONDS, f"the start of the gateway ({self.log_path})")
        except BaseException:
            self.kill()
            raise

    def _listens(self, name: str) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self.process.returncode}: {self.log()[-3000:]}")
        return listens(self.ports[name])

    @property
    def log_path(self) -> Path:
        return self.folder / "gateway.log"

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The structured log lines of one event; not the one that is being written."""
        whole, named = self.log().rpartition("\n")[0], f'"event":"{event}"'
        found = (json.loads(line) for line in whole.splitlines() if line.startswith("{") and named in line)
        return [line for line in found if line["event"] == event]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def certificate(self, name: str) -> Path:
        return self.folder / "certs" / name

    def trust(self, identity: str | None) -> ssl.SSLContext:
        """TLS of a caller that trusts our server CA and presents the named certificate of certs/, or none."""
        context = ssl.create_default_context(cafile=self.certificate("server-ca.pem"))
        if identity is not None:
            context.load_cert_chain(self.certificate(f"{identity}.pem"), self.certificate(f"{identity}.key"))
        return context

    def client(self, listener: str, identity: str | None, host: str = "localhost") -> Client:
        return Client(self.ports[listener], host, self.trust(identity))

    def bearer(self, scope: str = "payments:write", **claims: Any) -> str:
        return f"Bearer {mint_token(self.folder / 'certs', {'scope': scope, **claims})}"

    def admin(self, path: str) -> tuple[int, str]:
        """Status and body of the admin listener's answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['admin']}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self, family: str) -> dict[str, float]:
        """The samples of a family by their labels, as text."""
        named = (line.rpartition(" ") for line in self.admin("/metrics")[1].splitlines())
        parted = ((name.partition("{"), float(value)) for name, _, value in named if name.startswith(family))
        return {labels.removesuffix("}"): value for (name, _, labels), value in parted if name == family}

    def metric(self, family: str, **labels: str) -> float:
        """The sum over all samples of a family that have these labels."""
        found = self.samples(family).items()
        return sum(value for text, value in found if all(f'{k}="{v}"' in text for k, v in labels.items()))


@contextlib.contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
