"""The service behind the proxies where bodies are large: throws away what is posted, and makes up what is asked for.

`POST /stream/...` is answered when the whole body (Content-Length) has come; `GET /stream/N` with N bytes.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import uvloop

from bench.backend import ANSWER

PIECE = bytes(65536)


class StreamBackend(asyncio.Protocol):
    """One connection, one request at a time. Writes only while the other side takes it."""

    def __init__(self) -> None:
        self._head = b""
        self._incoming = 0
        self._outgoing = 0
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._incoming:
            self._take(len(data))
            return
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return
        self._head = b""
        if head.startswith(b"GET "):
            self._outgoing = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._outgoing)
            self._give()
        else:
            self._incoming = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            self._take(len(rest))

    def _take(self, size: int) -> None:
        self._incoming -= size
        if not self._incoming:
            self._transport.write(ANSWER)

    def _give(self) -> None:
        while self._outgoing and not self._paused:
            piece = PIECE[: self._outgoing]
            self._outgoing -= len(piece)
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._give()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(StreamBackend, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
