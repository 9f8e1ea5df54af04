"""A gateway of several workers: its configuration, its processes, and how they are replaced."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.faults.programs import PRODUCT
from tests.upstreams import ScriptedUpstream

SECONDS = 60.0
CONFIG = """\
version: 1
workers: {workers}
listeners:
  edge: {{bind: "127.0.0.1:${{PANGATE_EDGE_PORT}}", identity: "spiffe://shop.example/web", limits: {limits}}}
admin: {{bind: "127.0.0.1:${{PANGATE_ADMIN_PORT}}"}}
store: "{store}"
upstreams:
  pay: {{url: "http://127.0.0.1:{upstream}", timeouts: {{connect: 10s, total: 20s}}}}
routes:
  - {{name: pay, listener: edge, match: {{path: /pay}}, policy: known, upstream: pay}}
drain: 10s
"""
POLICY = "rules:\n  - {kind: mtls, ca: ca.pem, san: ['spiffe://shop.example/*']}\n"


@dataclass
class Street:
    """What workers stand on: a folder with a configuration, and a database."""

    folder: Path
    store: str
    program: Sequence[str] = PRODUCT

    @classmethod
    def laid_out(cls, folder: Path, authority: Path, store: str, program: Sequence[str] = PRODUCT) -> Street:
        """`authority` is a certificate that is never asked for."""
        street = cls(folder, store, program)
        street.policy.parent.mkdir()
        street.policy.write_text(POLICY)
        (folder / "ca.pem").write_bytes(authority.read_bytes())
        return street

    @asynccontextmanager
    async def workers(self, upstream: ScriptedUpstream, number: int) -> AsyncIterator[Gateway]:
        """All of them serve."""
        limits = "{max_connections_per_address: 2000}"
        text = CONFIG.format(workers=number, upstream=upstream.port, store=self.store, limits=limits)
        (self.folder / "config.yaml").write_text(text)
        gateway = Gateway(self.folder, free_ports("edge", "admin"), program=self.program)
        try:
            await asyncio.to_thread(gateway.start, "admin")
            await until(lambda: len(seated(gateway)) == number, "the word of every worker")
            yield gateway
        finally:
            await asyncio.to_thread(gateway.stop)

    @property
    def policy(self) -> Path:
        return self.folder / "policies" / "known.yaml"


def seated(gateway: Gateway) -> list[int]:
    """The processes of the workers that began last, by seat."""
    begun = {line["seat"]: line["pid"] for line in gateway.lines("worker_started")}
    return [begun[seat] for seat in sorted(begun)]


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def lines(gateway: Gateway, event: str) -> int:
    return len(gateway.lines(event))


async def until(happened: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    await asyncio.to_thread(wait_until, happened, seconds, what, 0.05)


async def roll(gateway: Gateway, times: int) -> None:
    for n in range(times):
        gateway.signal(signal.SIGUSR2)
        await until(lambda n=n: lines(gateway, "rolled") > n, "a rolling restart", 60)  # type: ignore[misc]
