"""Who plays in the story: the processes, the addresses they listen on, and what each of them presents."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from examples.demo.wire import Client

START_SECONDS = 20.0
PORTS = {"EDGE": 8443, "EGRESS": 8444, "SIDECAR": 8445, "ADMIN": 9901, "SHOP": 9000, "PROVIDER": 9443}
"""The gateway opens its admin port last."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The folder with config.yaml, and the ports; `PANGATE_EDGE_PORT` and so on choose others.

    What keeps the demo from starting is a SystemExit that says what to do about it.
    """

    folder: Path
    ports: Mapping[str, int]

    @classmethod
    def at(cls, folder: Path) -> Stage:
        return cls(folder, {name: _port(_variable(name), port) for name, port in PORTS.items()})

    def certificate(self, name: str) -> Path:
        return self.folder / "certs" / name

    def record(self, who: str) -> Path:
        return self.folder / "var" / "demo" / f"{who}.jsonl"

    def trust(self, identity: str | None, authority: str = "server-ca.pem") -> ssl.SSLContext:
        """TLS as a caller uses it; `identity` names its certificate and key in certs/."""
        context = ssl.create_default_context(cafile=self.certificate(authority))
        if identity is not None:
            context.load_cert_chain(self.certificate(f"{identity}.pem"), self.certificate(f"{identity}.key"))
        return context

    def edge(self, identity: str | None = "partner") -> Client:
        """A connection to the edge listener, as a partner or as nobody."""
        return Client(self.ports["EDGE"], "localhost", self.trust(identity))

    def egress(self, identity: str, host: str) -> Client:
        return Client(self.ports["EGRESS"], host, self.trust(identity))

    @contextlib.contextmanager
    def cast(self) -> Iterator[None]:
        """The provider, the shop and the gateway, each a process of its own, ended on the way out."""
        _refuse_taken(self.ports)
        ports, crew = self.ports, [sys.executable, "-m"]
        provider = [*crew, "examples.demo.provider", "--port", str(ports["PROVIDER"])]
        provider += ["--certificate", str(self.certificate("provider.pem"))]
        provider += ["--key", str(self.certificate("provider.key")), "--record", str(self.record("provider"))]
        shop = [*crew, "examples.demo.shop", "--port", str(ports["SHOP"]), "--egress", str(ports["EGRESS"])]
        shop += ["--ca", str(self.certificate("server-ca.pem")), "--certificate", str(self.certificate("shop.pem"))]
        shop += ["--key", str(self.certificate("shop.key")), "--record", str(self.record("shop"))]
        gateway = [*crew, "gateway.cli", "run", "--config", str(self.folder / "config.yaml")]
        self.record("gateway").parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as running:
            log = running.enter_context(self.record("gateway").open("wb"))
            running.enter_context(_process("provider", provider, ports["PROVIDER"], self.folder))
            running.enter_context(_process("shop", shop, ports["SHOP"], self.folder))
            running.enter_context(_process("gateway", gateway, ports["ADMIN"], self.folder, log))
            yield


@contextlib.contextmanager
def _process(name: str, command: list[str], port: int, folder: Path, output: IO[bytes] | None = None) -> Iterator[None]:
    # A session of its own: Ctrl-C at the terminal ends the demo, and the demo ends its cast in order.
    process = subprocess.Popen(command, cwd=folder, stdout=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None:
                raise SystemExit(f"demo: {name} ended at its start with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"demo: {name} does not listen on port {port}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _variable(name: str) -> str:
    return f"PANGATE_{name}_PORT"


def _port(variable: str, default: int) -> int:
    written = os.environ.get(variable) or str(default)
    if not written.isdecimal() or not 0 < int(written) < 65536:
        raise SystemExit(f"demo: {variable} is {written!r}; set it to a port, from 1 to 65535")
    return int(written)


def _refuse_taken(ports: Mapping[str, int]) -> None:
    taken = {name: port for name, port in ports.items() if _listens(port)}
    if not taken:
        return
    listed = ", ".join(f"{port} ({name.lower()})" for name, port in taken.items())
    others = " ".join(f"{_variable(name)}={_free_port()}" for name in taken)
    raise SystemExit(f"demo: taken by another program: port {listed}; try it with other ports:\n  {others} make demo")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
