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

from examples.demo.wire import Client

START_SECONDS = 20.0
PORTS = {"EDGE": 8443, "EGRESS": 8444, "SIDECAR": 8445, "ADMIN": 9901, "SHOP": 9000, "PROVIDER": 9443}


@dataclass(frozen=True, slots=True)
class Stage:
    """The folder with config.yaml, and the ports; `PANGATE_EDGE_PORT` and so on choose others."""

    folder: Path
    ports: Mapping[str, int]

    @classmethod
    def at(cls, folder: Path) -> Stage:
        ports = {name: int(os.environ.get(f"PANGATE_{name}_PORT", port)) for name, port in PORTS.items()}
        return cls(folder, ports)

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
            running.enter_context(_process("provider", provider, ports["PROVIDER"]))
            running.enter_context(_process("shop", shop, ports["SHOP"]))
            running.enter_context(_process("gateway", gateway, ports["EDGE"], log))
            yield


@contextlib.contextmanager
def _process(name: str, command: list[str], port: int, output: object = None) -> Iterator[None]:
    if _listens(port):
        raise SystemExit(f"demo: port {port} ({name}) is taken; set PANGATE_{name.upper()}_PORT to another")
    process = subprocess.Popen(command, stdout=output, stderr=None)  # type: ignore[call-overload]
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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
