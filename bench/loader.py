"""Keeps a number of mTLS connections busy, each with one request at a time, and checks every answer.

It must cost less than what it measures: one thread, non-blocking sockets, one wait for all of them, no event loop.
`Load.cost` says what it took itself.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

ANSWER_SECONDS_MAX = 30.0
_READ_BYTES = 65536


class WrongAnswerError(Exception):
    """An answer that was not the expected one, or none: the run is worth nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send what. `request(n)` is the n-th request's bytes; `right(head, body)` judges its answer."""

    port: int
    context: ssl.SSLContext
    request: Callable[[int], bytes]
    right: Callable[[bytes, bytes], bool]


@dataclass(slots=True)
class _Connection:
    """`sent` is when its request left (ns), 0 while none is under way; `received` what has come of the answer."""

    socket: ssl.SSLSocket
    sent: int = 0
    received: bytes = b""


def connect(target: Target) -> ssl.SSLSocket:
    """A new connection after a full handshake; nothing is resumed. Raises OSError."""
    plain = socket.create_connection(("127.0.0.1", target.port), timeout=ANSWER_SECONDS_MAX)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return target.context.wrap_socket(plain, server_hostname="localhost")


class Load:
    """Connections that stay open between `run`s, so that a run holds no handshake."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ready = selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        self._sent = 0
        self.cost = 0.0
        """CPU microseconds of this thread per request, in the last run."""

    def connect(self, connections: int) -> None:
        """Open so many more. Raises OSError."""
        for _ in range(connections):
            connection = _Connection(connect(self._target))
            connection.socket.settimeout(0)
            self._ready.register(connection.socket, selectors.EVENT_READ, connection)
            self._connections.append(connection)

    def run(self, requests: int) -> list[int]:
        """How long each answer took, in ns. Raises WrongAnswerError, or OSError when a connection is dropped."""
        started = time.thread_time_ns()
        taken: list[int] = []
        goal = self._sent + requests
        for connection in self._connections[:requests]:
            self._send(connection)
        while len(taken) < requests:
            ready = self._ready.select(ANSWER_SECONDS_MAX)
            if not ready:
                raise WrongAnswerError(f"no answer in {ANSWER_SECONDS_MAX:g} s")
            for key, _ in ready:
                nanoseconds = self._receive(key.data)
                if nanoseconds:
                    taken.append(nanoseconds)
                    if self._sent < goal:
                        self._send(key.data)
        self.cost = (time.thread_time_ns() - started) / requests / 1000
        return taken

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()
        self._ready.close()

    def _send(self, connection: _Connection) -> None:
        """A request is smaller than what the kernel takes from an idle connection: it goes out whole."""
        self._sent += 1
        raw = self._target.request(self._sent)
        connection.sent = time.perf_counter_ns()
        if connection.socket.send(raw) != len(raw):
            raise WrongAnswerError("a request was not taken whole")

    def _receive(self, connection: _Connection) -> int:
        """How long the answer took, in ns: it is whole, and right. 0 while it is not whole."""
        try:
            data = connection.socket.recv(_READ_BYTES)
        except ssl.SSLWantReadError:
            return 0
        if not data:
            raise ConnectionError("the connection was dropped")
        connection.received += data
        head, end, body = connection.received.partition(b"\r\n\r\n")
        if not end or len(body) < (length := _length(head)):
            return 0
        if len(body) > length or not connection.sent or not self._target.right(head, body):
            raise WrongAnswerError(f"{head[:200]!r} {body[:300]!r}")
        nanoseconds = time.perf_counter_ns() - connection.sent
        connection.received, connection.sent = b"", 0
        return nanoseconds


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"\r\ncontent-length:")
    if start < 0:
        raise WrongAnswerError(f"no Content-Length in {head[:200]!r}")
    return int(lowered[start + 17 :].partition(b"\r\n")[0])
