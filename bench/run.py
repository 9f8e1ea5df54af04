"""`make bench`: CPU microseconds per request of Pangate, beside nginx and a minimal aiohttp proxy, in one run.

Every proxy runs alone on one core, loader and backend on the other. Connections (mutual TLS, kept alive; 16, then 64
at once) are opened before anything is measured, so no figure holds a handshake. The variants take turns; a figure is
the median of the rounds. Every answer is checked: a wrong one ends the run with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import ssl
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.backend import ANSWER, CARD
from bench.loader import Load, Target
from bench.processes import LOADER_CORE, PROXY_CORE, cpu_nanoseconds, free_port, running
from bench.report import Row, publish
from gateway.adapters.dev_certificates import make_dev_certificates, mint_token

CONNECTIONS = (16, 64)
HERE = Path(__file__).parent
_BODY_BYTES = 431
_EXPECTED = ANSWER.partition(b"\r\n\r\n")[2]


@dataclass
class Variant:
    """A proxy doing one kind of work; `samples` are CPU microseconds per request, one a round, by connections."""

    name: str
    pid: int
    target: Target
    samples: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in CONNECTIONS})


def payment() -> bytes:
    """A JSON payment of 431 bytes with one card number."""
    body = b'{"amount":1999,"currency":"EUR","card":{"number":"%b","exp":"12/30"},"note":"%b"}'
    return body % (CARD, b"x" * (_BODY_BYTES - len(body % (CARD, b""))))


def post(path: str, headers: str = "") -> Callable[[int], bytes]:
    body = payment()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return lambda _: raw


def right(head: bytes, body: bytes) -> bool:
    return head.startswith(b"HTTP/1.1 201") and body == _EXPECTED


def client_context(certs: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certs / "server-ca.pem")
    context.load_cert_chain(certs / "partner.pem", certs / "partner.key")
    return context


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[list[Variant]]:
    """Backend and proxies, running. nginx is left out where the machine has none."""
    certs = folder / "certs"
    make_dev_certificates(certs)
    context, backend = client_context(certs), free_port()
    with contextlib.ExitStack() as stack:

        def start(name: str, command: list[str], port: int, core: int, **env: str) -> int:
            return stack.enter_context(running(command, port, core, folder / f"{name}.log", env))

        python = [sys.executable, "-m"]
        start("backend", [*python, "bench.backend", "--port", str(backend)], backend, LOADER_CORE)
        port, admin = free_port(), free_port()
        env = {"BENCH_PORT": str(port), "BENCH_ADMIN": str(admin), "BENCH_BACKEND": str(backend)}
        env |= {"BENCH_CERTS": str(certs), "BENCH_VAR": str(folder)}
        config = str(HERE / "config" / "config.yaml")
        pid = start("pangate", [*python, "gateway.cli", "run", "--config", config], port, PROXY_CORE, **env)
        bearer = f"Authorization: Bearer {mint_token(certs, {'scope': 'payments:write'})}\r\nX-Expect-Token: 1\r\n"
        variants = [
            Variant("pangate_bare", pid, Target(port, context, post("/bare"), right)),
            Variant("pangate_durable", pid, Target(port, context, post("/durable", bearer), right)),
        ]
        peer = [*python, "bench.peers.minimal_aiohttp", "--upstream", f"http://127.0.0.1:{backend}"]
        peer += ["--certificate", str(certs / "server.pem"), "--key", str(certs / "server.key")]
        peer += ["--ca", str(certs / "partners-ca.pem")]
        for name, extra in (("minimal_aiohttp", []), ("minimal_aiohttp_uvloop", ["--uvloop"])):
            port = free_port()
            pid = start(name, [*peer, "--port", str(port), *extra], port, PROXY_CORE)
            variants.append(Variant(name, pid, Target(port, context, post("/bare"), right)))
        if nginx := shutil.which("nginx"):
            port = free_port()
            conf = (HERE / "peers" / "nginx.conf").read_text()
            (folder / "nginx.conf").write_text(conf.format(folder=folder, port=port, upstream=backend, certs=certs))
            pid = start("nginx", [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)], port, PROXY_CORE)
            variants.append(Variant("nginx", pid, Target(port, context, post("/bare"), right)))
        yield variants


async def measure(variants: list[Variant], rounds: int, requests: int) -> None:
    loads = []
    for variant in variants:
        for connections in CONNECTIONS:
            load = Load(variant.target)
            await load.connect(connections)
            await load.run(requests // 4)
            loads.append((variant, connections, load))
    for _ in range(rounds):
        for variant, connections, load in loads:
            before = cpu_nanoseconds(variant.pid)
            await load.run(requests)
            variant.samples[connections].append((cpu_nanoseconds(variant.pid) - before) / requests / 1000)
    for _, _, load in loads:
        await load.close()


def rows(variants: list[Variant]) -> Iterator[Row]:
    for connections in CONNECTIONS:
        us = {variant.name: statistics.median(variant.samples[connections]) for variant in variants}
        for name, value in us.items():
            yield Row(f"{name}_{connections}", value, "us CPU/request")
        for peer in ("minimal_aiohttp", "minimal_aiohttp_uvloop"):
            ratio = us["pangate_durable"] / us[peer]
            yield Row(f"durable_to_{peer}_{connections}", ratio, "ratio", "below 1", ratio < 1)
        if "nginx" in us:
            yield Row(f"bare_to_nginx_{connections}", us["pangate_bare"] / us["nginx"], "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=4000, help="per variant and round")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOADER_CORE})
    with tempfile.TemporaryDirectory(prefix="pangate-bench-") as folder, stage(Path(folder)) as variants:
        asyncio.run(measure(variants, options.rounds, options.requests))
        publish("bench", list(rows(variants)))


if __name__ == "__main__":
    main()
