"""`python -m bench.soak [--connections 5000] [--seconds 60]`: slow attackers, and whoever is honest meanwhile.

The gateway runs with its default limits. Half of the connections send their head a byte at a time, the others their
body; what the gateway ends is opened again. Attackers call from as many addresses as the cap for one makes them need.
The honest caller asks at an even pace, before and during the attack.

Memory has returned if a second attack of the same size takes no more than the first: what Python's allocator keeps for
itself cannot be told from what leaks by one look.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import resource
import socket
import statistics
import struct
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import resident_bytes
from bench.report import Row, at_least, at_most, publish
from bench.stage import Proxy, Stage, open_stage

CONFIG = Path(__file__).parent / "config" / "soak" / "config.yaml"
SLOWER = 3.0
"""How much longer an honest request may take under attack, at the 99th percentile."""
GROWN = 1.1
"""What a second attack may take of memory, in parts of what the first took; and some spare bytes."""
_SPARE_BYTES = 8 << 20
_PER_ADDRESS = 400
_DRIP_SECONDS = 4.0
_PACE_SECONDS = 0.02
_BEFORE_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)
_HEAD = b"POST /bare HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n"
_HONEST = b"POST /bare HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(slots=True)
class Honest:
    """Seconds that answers took, and requests that were not answered as they should be."""

    took: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.took, n=100)[98] if len(self.took) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was seen. Memory is the resident set of the gateway, in bytes."""

    before: Honest
    during: Honest
    connections: int
    """Open at the gateway, at the most."""
    memory: tuple[int, int, int]
    """Before, during the attack at the most, and during a second one."""


def rows(soaked: Soaked, wanted: int) -> list[Row]:
    """The figures, each with its goal."""
    asked = len(soaked.during.took) + soaked.during.failed
    before, first, second = soaked.memory
    grown = max(0, second - before - _SPARE_BYTES) / max(1, first - before)
    ratio = soaked.during.p99 / soaked.before.p99 if soaked.before.p99 else None
    milliseconds = f"{soaked.before.p99 * 1000:.1f} ms before, {soaked.during.p99 * 1000:.1f} ms during"
    mib = [f"{value / (1 << 20):.0f}" for value in soaked.memory]
    return [
        at_least("soak_connections", soaked.connections, 0.9 * wanted, "connections at once"),
        at_least("soak_success", 100 * len(soaked.during.took) / asked if asked else None, 100, "%", f"of {asked}"),
        at_most("soak_p99", ratio, SLOWER, "ratio", milliseconds),
        at_most("soak_memory", grown, GROWN, "ratio", f"{mib[0]} MiB before, {mib[1]}, {mib[2]} the second time"),
    ]


# --- the attack -------------------------------------------------------------------------------------------------------


async def _slow_head(port: int, source: str) -> None:
    await _drip(port, source, b"", _HEAD)


async def _slow_body(port: int, source: str) -> None:
    await _drip(port, source, _HEAD, bytes(4096))


async def _drip(port: int, source: str, first: bytes, rest: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), limit=1024)
    writer.write(first)
    try:
        for byte in rest:
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), _DRIP_SECONDS)
                return
    finally:
        _vanish(writer)


def _vanish(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


_WAYS = (_slow_head, _slow_body)


def attack(port: int, connections: int, seconds: float) -> None:
    """Hold so many connections for so long. A process of its own."""
    asyncio.run(_attack(port, connections, seconds))


async def _attack(port: int, connections: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    ramp = min(10.0, seconds / 6)

    async def one(number: int) -> None:
        source = f"127.0.{1 + number // _PER_ADDRESS}.1"
        await asyncio.sleep(ramp * number / connections)
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                await _WAYS[number % len(_WAYS)](port, source)
            await asyncio.sleep(random.uniform(0.1, 0.5))

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(one(number) for number in range(connections)))


# --- the honest -------------------------------------------------------------------------------------------------------


def ask(port: int, seconds: float, look: Callable[[], None] = lambda: None) -> Honest:
    """Ask at an even pace, now on a kept connection and now on a new one; `look` once a second."""
    honest, until, looked = Honest(), time.monotonic() + seconds, 0.0
    wire: socket.socket | None = None
    number = 0
    while (now := time.monotonic()) < until:
        try:
            if wire is None:
                wire = socket.create_connection(("127.0.0.1", port), timeout=30)
            wire.sendall(_HONEST)
            right = wire.recv(65536).startswith(b"HTTP/1.1 201")
        except OSError:
            right = False
        if right:
            honest.took.append(time.monotonic() - now)
        else:
            honest.failed += 1
        number += 1
        if wire is not None and (not right or number % 10 == 0):
            wire.close()
            wire = None
        if now - looked >= 1:
            looked = now
            look()
        time.sleep(max(0.0, _PACE_SECONDS - (time.monotonic() - now)))
    if wire is not None:
        wire.close()
    return honest


def _open_connections(proxy: Proxy) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("pangate_connections{"))


def soak(stage: Stage, connections: int, seconds: float, before: float) -> Soaked:
    """Before, during, and during once more for half the time. Seconds."""
    proxy = stage.pangate(CONFIG)
    calm = ask(proxy.port, before)
    unharmed = resident_bytes(proxy.pids)
    memory, seen = [unharmed], [0]

    def look() -> None:
        memory.append(resident_bytes(proxy.pids))
        seen.append(_open_connections(proxy))

    with attacking(proxy.port, connections, seconds):
        attacked = ask(proxy.port, seconds, look)
    first = max(memory)
    memory.clear()
    with attacking(proxy.port, connections, seconds / 2):
        again = ask(proxy.port, seconds / 2, look)
    attacked.failed += again.failed
    return Soaked(calm, attacked, max(seen), (unharmed, first, max(memory)))


@contextlib.contextmanager
def attacking(port: int, connections: int, seconds: float) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=attack, args=(port, connections, seconds))
    process.start()
    try:
        yield
    finally:
        process.join(seconds + 30)
        process.kill()


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args(given)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < 2 * asked.connections + 500:
        print(f"{asked.connections} connections need more file descriptors than {most}", file=sys.stderr)
        return 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with open_stage() as stage:
        found = rows(soak(stage, asked.connections, asked.seconds, _BEFORE_SECONDS), asked.connections)
    publish("soak", found)
    return 0 if all(row.met is not False for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
