"""Keeps a number of mTLS connections busy, each with one request at a time, and checks every answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass


class WrongAnswerError(Exception):
    """An answer that was not the expected one: the run is worth nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send what. `request(n)` is the n-th request's bytes; `right(head, body)` judges its answer."""

    port: int
    context: ssl.SSLContext
    request: Callable[[int], bytes]
    right: Callable[[bytes, bytes], bool]


class Load:
    """Connections that stay open between `run`s, so that a run holds no handshake."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._sent = 0

    async def connect(self, connections: int) -> None:
        for _ in range(connections):
            stream = await asyncio.open_connection(
                "127.0.0.1", self._target.port, ssl=self._target.context, server_hostname="localhost"
            )
            self._streams.append(stream)

    async def run(self, requests: int) -> None:
        """Raises WrongAnswerError, or ConnectionError when a connection is dropped."""
        goal = self._sent + requests
        await asyncio.gather(*(self._busy(reader, writer, goal) for reader, writer in self._streams))

    async def _busy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, goal: int) -> None:
        while self._sent < goal:
            self._sent += 1
            writer.write(self._target.request(self._sent))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            if not self._target.right(head, body):
                raise WrongAnswerError(f"{head[:200]!r} {body[:300]!r}")

    async def close(self) -> None:
        for _, writer in self._streams:
            writer.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    if start < 0:
        raise WrongAnswerError(f"no Content-Length in {head[:200]!r}")
    return int(lowered[start + 15 : lowered.index(b"\r\n", start)])
