"""Exact bytes to a listener, and whatever comes back."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any

import orjson

SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Status 0: nothing; a refused handshake is the same as nothing."""

    received: bytes = b""

    @property
    def status(self) -> int:
        return int(self.received[9:12] or 0)

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> str:
        """Empty if it is not there."""
        lines = self.received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return fields.get(name.lower(), "")

    def problem(self) -> dict[str, Any]:
        """The problem document, if it is one; else nothing."""
        document = self.header("content-type") == "application/problem+json" and orjson.loads(self.body)
        return document or {}


def ask(
    port: int,
    raw: bytes,
    context: ssl.SSLContext | None = None,
    name: str = "localhost",
    *,
    hang_up: bool = False,
    seconds: float = SECONDS,
) -> Answer:
    """Send, and read one answer; with `hang_up`, go away without reading. `seconds` bounds each wait.

    Raises TimeoutError if the answer does not come, or stops halfway.
    """
    received = b""
    try:
        with _connected(port, context, name, seconds) as connection:
            connection.sendall(raw)
            while not hang_up and not _whole(received) and (piece := connection.recv(65536)):
                received += piece
    except (ssl.SSLError, ConnectionError):
        pass
    return Answer(received)


def _connected(port: int, context: ssl.SSLContext | None, name: str, seconds: float) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return raw
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def _whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    declared = Answer(head + end).header("content-length")
    return len(body) >= int(declared) if declared else body.endswith(b"0\r\n\r\n")
