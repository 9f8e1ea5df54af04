"""An upstream of our own: a real server on loopback that keeps the raw bytes it received and answers from a script."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Conversation:
    """One connection, seen from the upstream. Methods raise when the client is gone, which ends the script."""

    def __init__(self, upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = upstream
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """The next request's head, its empty line included. Recorded."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        await self._upstream.received(head)
        return head

    async def request(self) -> bytes:
        """The next request with its body, as raw bytes, chunk framing included. Recorded."""
        raw = await self.head()
        fields = raw.lower()
        if b"transfer-encoding: chunked\r\n" in fields:
            while not raw.endswith(b"\r\n0\r\n\r\n"):
                raw += await self.reader.readuntil(b"\r\n")
        elif b"content-length:" in fields:
            length = int(fields.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            raw += await self.reader.readexactly(length)
        self._upstream.requests[-1] = raw
        return raw

    async def send(self, *pieces: bytes) -> None:
        """Send the pieces, with a turn of the loop after each."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def closed(self) -> None:
        """Wait until the client closes the connection; what it sends until then is dropped."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Break off without a proper end."""
        self.writer.transport.abort()


Script = Callable[[Conversation], Awaitable[None]]


class ScriptedUpstream:
    """`requests` in the order they came, over all connections; `open` counts connections that are up."""

    def __init__(self, scheme: str, port: int) -> None:
        self.url = f"{scheme}://localhost:{port}" if scheme == "https" else f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until requests, connections or their ends came so that `condition` holds, and the client sees it too."""
        async with self._changed:
            await self._changed.wait_for(condition)
        for _ in range(5):
            await asyncio.sleep(0)

    async def received(self, head: bytes) -> None:
        async with self._changed:
            self.requests.append(head)
            self._changed.notify_all()

    async def count(self, change: int) -> None:
        async with self._changed:
            self.connections += max(change, 0)
            self.open += change
            self._changed.notify_all()


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedUpstream]:
    """An upstream that runs `script` for each connection, and closes the connection at its end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await upstream.count(1)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await script(Conversation(upstream, reader, writer))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            await upstream.count(-1)
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    upstream = ScriptedUpstream("https" if tls else "http", server.sockets[0].getsockname()[1])
    try:
        yield upstream
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks))
        await server.wait_closed()


def answering(*responses: bytes) -> Script:
    """Answer each request of a connection with the next response; with the last one for ever."""

    async def script(conversation: Conversation) -> None:
        turn = 0
        while True:
            await conversation.request()
            await conversation.send(responses[min(turn, len(responses) - 1)])
            turn += 1

    return script
