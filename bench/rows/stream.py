"""`stream`: a body of 100 MiB each way through a route without body rules: memory, and bytes per CPU second.

One connection, one body at a time. Growth is that of the resident set, looked at after every MiB, over what it was when
a body of 1 MiB had gone each way; the worst round counts. nginx gets the same bodies with its buffering of requests
switched off (`location /stream/` of `bench/peers/nginx.conf`).
"""

from __future__ import annotations

import ssl
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.loader import WrongAnswerError, connect
from bench.processes import LOADER_CORE, free_port, resident_bytes
from bench.report import Row, at_least, at_most
from bench.stage import PYTHON, PeerMissingError, Proxy, Stage, right

IDS = ("stream",)
MIB = 1 << 20
SIZE = 100 * MIB
MOST = 2.0
"""MiB."""
LEAST = 0.6
_PIECE = bytes(64 * 1024)


@dataclass(slots=True)
class Transfers:
    """A value a round: bytes per CPU second of the proxy, each way and in all, and growth of its memory in bytes."""

    up: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    growth: list[int] = field(default_factory=list)


async def measure(stage: Stage, rounds: int) -> list[Row]:
    with stage.nested() as own:
        own.backend = free_port()
        own.start("stream", [*PYTHON, "bench.stream_backend", "--port", str(own.backend)], own.backend, LOADER_CORE)
        proxies, missing = {"pangate": own.pangate()}, ""
        try:
            proxies["nginx"] = own.peer("nginx")
        except PeerMissingError as error:
            missing = f"not measured: {error}"
        found = {name: Transfers() for name in proxies}
        for _ in range(rounds):
            for name, proxy in proxies.items():
                play(own, proxy, found[name], SIZE)
    return list(rows(found, missing))


def play(stage: Stage, proxy: Proxy, transfers: Transfers, size: int) -> None:
    """One round. Raises WrongAnswerError or OSError."""
    with connect(stage.target(proxy, "/stream/up")) as client:
        upload(client, MIB, lambda: None)
        download(client, MIB, lambda: None)
        peak = before = resident_bytes(proxy.pids)

        def look() -> None:
            nonlocal peak
            peak = max(peak, resident_bytes(proxy.pids))

        start = proxy.cpu()
        upload(client, size, look)
        half = proxy.cpu()
        download(client, size, look)
        end = proxy.cpu()
    transfers.up.append(size / (half - start) * 1e9)
    transfers.down.append(size / (end - half) * 1e9)
    transfers.both.append(2 * size / (end - start) * 1e9)
    transfers.growth.append(peak - before)


def upload(client: ssl.SSLSocket, size: int, look: Callable[[], None]) -> None:
    """Post a body of `size` bytes, a multiple of 1 MiB."""
    client.sendall(b"POST /stream/up HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // MIB):
        for _ in range(MIB // len(_PIECE)):
            client.sendall(_PIECE)
        look()
    head, length, body = _answer(client)
    while len(body) < length:
        body += _received(client)
    if not right(head, body):
        raise WrongAnswerError(f"{head[:200]!r} {body[:300]!r}")


def download(client: ssl.SSLSocket, size: int, look: Callable[[], None]) -> None:
    """Get a body of `size` bytes."""
    client.sendall(b"GET /stream/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
    head, length, body = _answer(client)
    if length != size or not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswerError(f"{head[:200]!r}")
    got = len(body)
    seen = 0
    while got < size:
        got += len(_received(client))
        if got // MIB > seen:
            seen = got // MIB
            look()
    if got > size:
        raise WrongAnswerError(f"{got} bytes instead of {size}")


def _answer(client: ssl.SSLSocket) -> tuple[bytes, int, bytes]:
    """Head, Content-Length, and what has come of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(client)
    head, _, body = data.partition(b"\r\n\r\n")
    return head, int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]), body


def _received(client: ssl.SSLSocket) -> bytes:
    data = client.recv(256 * 1024)
    if not data:
        raise ConnectionError("the connection was dropped")
    return data


def rows(found: Mapping[str, Transfers], missing: str) -> Iterator[Row]:
    """`missing` says why nginx was not measured."""
    pangate, nginx = found["pangate"], found.get("nginx")
    yield at_most("stream", max(pangate.growth) / MIB, MOST, "MiB growth", "100 MiB up, then 100 MiB down")
    share = None
    if nginx is not None:
        share = statistics.median(ours / theirs for ours, theirs in zip(pangate.both, nginx.both, strict=True))
    yield at_least("stream_to_nginx", share, LEAST, "ratio of MiB/CPU s", missing)
    for name in ("pangate", "nginx"):
        for way in ("up", "down"):
            speeds = getattr(found[name], way) if name in found else []
            value = statistics.median(speeds) / MIB if speeds else None
            yield Row(f"stream_{way}_{name}", value, "MiB/CPU s", note="" if speeds else missing)
