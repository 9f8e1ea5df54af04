"""Many callers at once, each with a connection that it keeps, who notice whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

GET = b"GET /pay HTTP/1.1\r\nHost: shop.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Crowd:
    """Callers with a kept-alive connection each, who ask again and again, and connect anew when told to close."""

    def __init__(self, port: int, callers: int, pause: float) -> None:
        self.ends: Counter[str] = Counter()
        self.answered = 0
        self._port = port
        self._pause = pause
        self._over = asyncio.Event()
        self._callers = [asyncio.create_task(self._call()) for _ in range(callers)]

    async def _call(self) -> None:
        while not self._over.is_set():
            try:
                await self._ask_over_one_connection()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.ends[type(error).__name__] += 1

    async def _ask_over_one_connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            told_to_close = False
            while not told_to_close and not self._over.is_set():
                writer.write(GET)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(2) if head.startswith(b"HTTP/1.1 200") else await reader.read()
                self.answered += 1
                told_to_close = b"connection: close" in head.lower()
                self.ends["answered" if body == b"ok" else body.decode()] += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), 0 if told_to_close else self._pause)
        finally:
            writer.close()

    async def leaves(self) -> None:
        self._over.set()
        await asyncio.gather(*self._callers)

    async def asked(self, times: int) -> None:
        """Until so many requests were answered."""
        while self.answered < times:  # noqa: ASYNC110 - any of them
            await asyncio.sleep(0.01)

    @property
    def harm(self) -> int:
        """Requests that failed, and connections that were reset or refused."""
        return sum(self.ends.values()) - self.ends["answered"]
