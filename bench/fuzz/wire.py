"""Bytes into a gateway that runs as its user would start it: it answers or hangs up, and fails at nothing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.fuzz.mutation import mutate
from bench.fuzz.targets import finding_name, wire_seeds
from bench.scorecard.backend import recording
from bench.scorecard.cases import Port
from bench.scorecard.targets import GATEWAY, target, working_folder

NAME = "wire"
_LISTENERS: tuple[Port, ...] = ("open", "edge", "mutual")
_AT_ONCE = 8
_WHOLE = 0.7
"""Of the inputs: that many come in one piece."""
_HONEST = b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n"
_PATIENCE = 30.0
"""Seconds for an answer or a close, both of which come at once: the client has ended its side."""
_SPEAK_OF_THE_REQUEST = {501, 505}
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ")


@dataclass(slots=True)
class Caught:
    """How often something was sent, and by what made the gateway fail: what happened, and the bytes."""

    sent: int = 0
    findings: dict[str, bytes] = field(default_factory=dict)


Sending = Callable[[Mapping[Port, int], Caught], Awaitable[None]]


async def attack(seconds: float, seed: int) -> Caught:
    """Send what the mutation of requests makes until the time is over."""
    random, until = Random(seed), time.monotonic() + seconds

    async def sender(ports: Mapping[Port, int], caught: Caught) -> None:
        while time.monotonic() < until:
            data = b"".join(mutate(random, wire_seeds()) for _ in range(random.randint(1, 2)))
            cut = random.randint(0, len(data))
            pieces = [data] if random.random() < _WHOLE else [data[:cut], data[cut:]]
            await send(ports[random.choice(_LISTENERS)], pieces, caught)

    async def senders(ports: Mapping[Port, int], caught: Caught) -> None:
        await asyncio.gather(*(sender(ports, caught) for _ in range(_AT_ONCE)))

    return await _attacked(senders)


async def play(data: bytes) -> Caught:
    """The same bytes once more, to each listener."""

    async def to_each(ports: Mapping[Port, int], caught: Caught) -> None:
        for listener in _LISTENERS:
            await send(ports[listener], [data], caught)

    return await _attacked(to_each)


async def _attacked(sending: Sending) -> Caught:
    """A gateway that was sent something, asked for something honest afterwards, and its log."""
    caught = Caught()
    with working_folder() as folder:
        async with recording() as backend:
            with target(GATEWAY, folder, backend) as proxy:
                await sending(proxy.ports, caught)
                await send(proxy.ports["open"], [_HONEST], caught, must_serve=True)
        for line in (folder / f"{GATEWAY}.log").read_bytes().splitlines():
            if not line.startswith(b"{") or b'_crashed"' in line:
                caught.findings.setdefault("the log tells of a crash", line)
    return caught


async def send(port: int, pieces: list[bytes], caught: Caught, *, must_serve: bool = False) -> None:
    """One connection: the pieces, then nothing more; what became of it is noted."""
    received, data = b"", b"".join(pieces)
    try:
        async with asyncio.timeout(_PATIENCE):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                caught.findings.setdefault("nobody listens any more", data)
                return
            with suppress(OSError):  # it may hang up before all was sent
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write_eof()
                while piece := await reader.read(65536):
                    received += piece
            writer.close()
    except TimeoutError:
        caught.findings.setdefault("neither answered nor hung up on", data)
    caught.sent += 1
    statuses = {int(status) for status in _STATUS.findall(received)}
    for status in statuses:
        if status >= 500 and status not in _SPEAK_OF_THE_REQUEST:
            caught.findings.setdefault(f"answered {status}", data)
    if must_serve and 200 not in statuses:
        caught.findings.setdefault("an honest request was not served afterwards", data)


def kept(findings: dict[str, bytes], folder: Path) -> list[str]:
    """The files in which the findings are kept."""
    paths = []
    for data in findings.values():
        path = folder / finding_name(NAME, data)
        path.write_bytes(data)
        paths.append(str(path))
    return paths
