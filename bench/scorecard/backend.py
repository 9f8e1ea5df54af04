"""The service behind: records what reaches it, and answers as the case at hand says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_END = b"\r\n\r\n"


class Backend:
    """`requests` since they were last cleared, heads and bodies as they came. `answer` is for each; then it hangs up.

    Without one it answers 200 and goes on.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        self.answer = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                self.requests.append(await _request(reader))
                writer.write(self.answer or _OK)
                await writer.drain()
                if self.answer:
                    break
        writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(_END)
    fields = head.lower()
    if b"\r\ntransfer-encoding: chunked" in fields:
        return head + await reader.readuntil(b"0\r\n\r\n")
    _, declared, rest = fields.partition(b"\r\ncontent-length:")
    return head + await reader.readexactly(int(rest.partition(b"\r\n")[0]) if declared else 0)


@asynccontextmanager
async def recording() -> AsyncIterator[Backend]:
    """A backend on a port of loopback."""
    backend = Backend()
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, limit=16 << 20)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
