"""A small HTTP/1.1 server that keeps the exact bytes of every request, and a client that shows what it sent and got.

Both are for the demo and the tests: they speak just enough HTTP to be honest about what crossed the wire.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: its body is the JSON of `content`."""

    status: int
    content: Any
    headers: Mapping[str, str] | None = None

    def raw(self) -> bytes:
        body = json.dumps(self.content).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(self.headers or {})}
        return _head(f"HTTP/1.1 {self.status} {'OK' if self.status < 400 else 'No'}", fields) + body


Handler = Callable[[Received], Awaitable[Reply]]


class Server:
    """Serves `handler` on loopback and appends the bytes of each request to the file `record`."""

    def __init__(self, handler: Handler, record: Path, context: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._record = record
        self._context = context

    async def serve(self, port: int, host: str = "127.0.0.1") -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._record.write_bytes(b"")
        server = await asyncio.start_server(self._connected, host, port, ssl=self._context)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (received := await _read_request(reader)) is not None:
                with self._record.open("ab") as record:
                    record.write(json.dumps({"request": received.raw.decode("latin-1")}).encode() + b"\n")
                writer.write((await self._handler(received)).raw())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def recorded(record: Path) -> list[str]:
    """The requests that a server has kept, oldest first, as text (latin-1)."""
    return [json.loads(line)["request"] for line in record.read_bytes().splitlines()] if record.exists() else []


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    chunks = b""
    if headers.get("transfer-encoding") == "chunked":
        body, chunks = await _read_chunks(reader)
    else:
        body = chunks = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body, head + chunks)


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    body = raw = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line, 16) + 2)
        body, raw = body + chunk[:-2], raw + line + chunk
        if len(chunk) == 2:
            return body, raw


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and both sides' bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: bytes
    received: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection, kept alive, to a listener of the gateway."""

    def __init__(self, port: int, host: str, context: ssl.SSLContext | None, seconds: float = 20) -> None:
        self._host = host
        raw = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname=host) if context else raw
        self._file = self._socket.makefile("rb")

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Raises ConnectionError if the gateway hangs up instead of answering."""
        length = {"Content-Length": str(len(body))} if body or method == "POST" else {}
        sent = _head(f"{method} {target} HTTP/1.1", {"Host": self._host, **headers, **length}) + body
        self._socket.sendall(sent)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline(_HEAD_BYTES_MAX)
            if not line:
                raise ConnectionError("the gateway closed the connection without an answer")
            head += line
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = self._file.read(int(fields.get("content-length", "0")))
        return Answer(int(status_line.split(" ")[1]), fields, content, sent, head + content)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _head(first: str, fields: Mapping[str, str]) -> bytes:
    return "".join([f"{first}\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items()), "\r\n"]).encode(
        "latin-1"
    )
