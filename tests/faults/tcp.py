"""A network that fails on command: a TCP proxy on loopback, between whoever connects and one port.

async with proxied(port) as network:
    connect to network.port
    network.back = Way(latency=0.2)          from now on, also for connections that exist
    await network.refuse()                   nobody gets in any more; `await network.admit()` ends it
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_PIECE = 64 * 1024
_DRIP_SECONDS = 0.01
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Way:
    """One direction. Seconds, bytes a second, and after how many bytes of a connection it breaks.

    `reset_after` resets the connection, both ways; `close_after` ends this direction alone, properly (a half-close).
    In a `hole` nothing arrives; what was sent into it comes when the hole is gone, as TCP sends it again.
    """

    latency: float = 0.0
    rate: float = math.inf
    reset_after: float = math.inf
    close_after: float = math.inf
    hole: bool = False


CLEAR = Way()


class Network:
    """`there` leads to the server and `back` to the client. `connections` counts those that got in."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        self._target = target
        self._ways = {"there": CLEAR, "back": CLEAR}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def become(self, there: Way = CLEAR, back: Way = CLEAR) -> None:
        """From now on, also for connections that exist."""
        self._ways = {"there": there, "back": back}
        self._changed.set()
        self._changed = asyncio.Event()

    async def admit(self) -> None:
        """Listen, always on the same port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more; connections that exist go on."""
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.refuse()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("there", reader, far_writer))
                pumps.create_task(self._pump("back", far_reader, writer))
        except* OSError:
            for end in ends:
                _reset(end)
        except* asyncio.CancelledError:
            pass  # the network ends: there is nobody to tell, and asyncio would call it an error
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.close()

    async def _pump(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises OSError when the connection is to be reset."""
        moved = 0
        while True:
            way = await self._passable(name)
            if moved >= way.reset_after:
                raise ConnectionResetError
            if moved >= way.close_after:
                break
            piece = await reader.read(int(min(_PIECE, max(1, way.rate * _DRIP_SECONDS))))
            if not piece:
                break
            way = await self._passable(name)
            piece = piece[: int(min(len(piece), way.reset_after - moved, way.close_after - moved))]
            await asyncio.sleep(way.latency + len(piece) / way.rate)
            writer.write(piece)
            await writer.drain()
            moved += len(piece)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _passable(self, name: str) -> Way:
        while self._ways[name].hole:
            await self._changed.wait()
        return self._ways[name]


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN (socket(7), SO_LINGER of 0 seconds)."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Network]:
    """A clear network in front of a port of loopback."""
    network = Network(target)
    await network.admit()
    try:
        yield network
    finally:
        await network.close()
