"""`python -m bench.soak [--connections 5000] [--seconds 60]`: slow attackers, and whoever is honest meanwhile.

The gateway runs with its default limits. In a first attack half of the connections send their head a byte at a time and
half their body. In a second one a third ask for a large answer, from the upstream of all others, and do not read it.
What the gateway ends is opened again. Attackers call from as many addresses as the cap for one makes them need. The
honest caller asks at an even pace, before and during the attacks.

Memory is what an operator sees, the resident set: before, in the attacks, and when nobody is connected any more after
each. Attackers yield (`nice`), and upstream and honest caller go first where that is permitted (SCHED_RR), as if each
had a machine of its own. The exit code says whether an honest request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import socket
import statistics
import struct
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.processes import LOADER_CORE, free_port, resident_bytes
from bench.report import Row, at_least, at_most, publish
from bench.stage import PYTHON, Proxy, Stage, open_stage

CONFIG = Path(__file__).parent / "config" / "soak" / "config.yaml"
SLOWER = 3.0
"""How much longer an honest request may take under attack, at the 99th percentile."""
RETURNED = 1.1
"""What may be left of memory when an attack is over, in parts of what there was before."""
HELD_SECONDS = 35.0
"""How long a connection may live whose client reads nothing: `write_timeout`, and a while to see that it ended."""
_KIB_EACH = 128
"""What a connection may take of memory, the most that is under way to a client that does not read."""
_PER_ADDRESS = 400
_DRIP_SECONDS = 4.0
_LOOK_SECONDS = 1.0
_YIELDING = 5
"""How nice attackers are: enough to let others go first, too little to starve on a busy machine."""
_PATIENCE_SECONDS = 60.0
_SETTLE_SECONDS = 5.0
"""For the gateway to see that nobody is connected any more, and to give memory back."""
_PACE_SECONDS = 0.02
_BEFORE_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)
_HEAD = b"POST /bare HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n"
_LARGE = b"GET /stream/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (16 << 20)
_RECEIVED_BYTES = 4096
"""Of the receive buffer of a client that does not read; the kernel makes somewhat more of it."""
_TCP_CLOSE = 7
_HONEST = b"POST /bare HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


_Way = Callable[[int, str], Awaitable[float]]
"""Port and source address; says how many seconds it was kept, if that could have been less."""


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
    slow: Honest
    """During the first attack."""
    unread: Honest
    """During the second."""
    connections: int
    """Open at the gateway, at the most."""
    memory: tuple[int, int, int, int]
    """Before, during an attack at the most, after the first attack and after the second."""
    held: float
    """Seconds that a client which reads nothing was kept, at the most; 0 if none was sent away."""


def rows(soaked: Soaked, wanted: int) -> list[Row]:
    """The figures, each with its goal."""
    took = len(soaked.slow.took) + len(soaked.unread.took)
    asked = took + soaked.slow.failed + soaked.unread.failed
    before, most, first, second = soaked.memory
    each = (most - before) / 1024 / max(1, soaked.connections)
    mib = "{:.0f} MiB before, {:.0f} at most, {:.0f} after the first, {:.0f} after the second".format(
        *(value / (1 << 20) for value in soaked.memory)
    )
    return [
        at_least("soak_connections", soaked.connections, 0.9 * wanted, "connections at once"),
        at_least("soak_success", 100 * took / asked if asked else None, 100, "%", f"of {asked}"),
        _slower("soak_p99", soaked.before, soaked.slow),
        _slower("soak_p99_unread", soaked.before, soaked.unread),
        at_most("soak_unread", soaked.held or None, HELD_SECONDS, "s", "kept, whose client reads nothing"),
        at_most("soak_memory_each", each, _KIB_EACH, "KiB/connection", mib),
        at_most("soak_memory_first", first / before, RETURNED, "ratio", "after an attack, to before it"),
        at_most("soak_memory_second", second / before, RETURNED, "ratio", "after a second attack, to before the first"),
    ]


def _slower(row: str, before: Honest, during: Honest) -> Row:
    ratio = during.p99 / before.p99 if before.p99 else None
    return at_most(row, ratio, SLOWER, "ratio", f"{before.p99 * 1000:.1f} ms before, {during.p99 * 1000:.1f} ms during")


# --- the attack -------------------------------------------------------------------------------------------------------


async def _slow_head(port: int, source: str) -> float:
    return await _drip(port, source, b"", _HEAD)


async def _slow_body(port: int, source: str) -> float:
    return await _drip(port, source, _HEAD, bytes(4096))


async def _slow_read(port: int, source: str) -> float:
    """Ask for more than the kernel holds, and read none of it. Seconds until the gateway has ended that."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    with socket.socket() as wire:
        wire.setblocking(False)  # noqa: FBT003 - the name of the argument is positional
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        wire.bind((source, 0))
        await loop.sock_connect(wire, ("127.0.0.1", port))
        await loop.sock_sendall(wire, _LARGE)
        while wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


async def _drip(port: int, source: str, first: bytes, rest: bytes) -> float:
    """Send a byte now and then until it is answered; nobody is kept whom the gateway could send away (0)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), limit=1024)
    writer.write(first)
    try:
        for byte in rest:
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), _DRIP_SECONDS)
                break
    finally:
        _vanish(writer)
    return 0.0


def _go_first(pid: int) -> None:
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def _vanish(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


_SLOW = (_slow_head, _slow_body)
_WAYS = (*_SLOW, _slow_read)


def attack(ways: int, port: int, connections: int, seconds: float, held: Synchronized[float], ready: Event) -> None:
    """Hold so many connections for so long, in the first of all `ways`. A process of its own; `held` as in `Soaked`,
    `ready` once it begins.
    """
    os.sched_setaffinity(0, {LOADER_CORE})
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(_YIELDING)
    ready.set()
    asyncio.run(_attack(_WAYS[:ways], port, connections, seconds, held))


async def _attack(ways: Sequence[_Way], port: int, connections: int, seconds: float, held: Synchronized[float]) -> None:
    until = time.monotonic() + seconds
    ramp = min(10.0, seconds / 6)

    async def one(number: int) -> None:
        source = f"127.0.{1 + number // _PER_ADDRESS}.1"
        await asyncio.sleep(ramp * number / connections)
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                held.value = max(held.value, await ways[number % len(ways)](port, source))
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
    """Before, and during two attacks. Seconds."""
    backend = free_port()
    _go_first(stage.start("large", [*PYTHON, "bench.stream_backend", "--port", str(backend)], backend, LOADER_CORE))
    proxy = stage.pangate(CONFIG, BENCH_BACKEND=str(backend))
    calm = ask(proxy.port, before)
    unharmed = resident_bytes(proxy.pids)
    memory, seen = [unharmed], [0]
    held = multiprocessing.get_context("spawn").Value("d", 0.0)

    def look() -> None:
        memory.append(resident_bytes(proxy.pids))
        seen.append(_open_connections(proxy))

    def suffer(ways: Sequence[_Way]) -> tuple[Honest, int]:
        with attacking(ways, proxy.port, connections, seconds, held):
            found = ask(proxy.port, seconds, look)
        return found, _left(proxy)

    slow, first = suffer(_SLOW)
    unread, second = suffer(_WAYS)
    return Soaked(calm, slow, unread, max(seen), (unharmed, max(memory), first, second), held.value)


def _left(proxy: Proxy) -> int:
    """Resident bytes once nobody is connected any more."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while _open_connections(proxy) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    time.sleep(_SETTLE_SECONDS)
    return resident_bytes(proxy.pids)


@contextlib.contextmanager
def attacking(
    ways: Sequence[_Way], port: int, connections: int, seconds: float, held: Synchronized[float]
) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=attack, args=(len(ways), port, connections, seconds, held, ready))
    process.start()
    try:
        ready.wait(_PATIENCE_SECONDS)
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
    os.sched_setaffinity(0, {LOADER_CORE})
    with open_stage() as stage:
        _go_first(0)
        soaked = soak(stage, asked.connections, asked.seconds, _BEFORE_SECONDS)
    publish("soak", rows(soaked, asked.connections))
    return 1 if soaked.before.failed + soaked.slow.failed + soaked.unread.failed else 0


if __name__ == "__main__":
    sys.exit(main())
