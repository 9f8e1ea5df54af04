"""Questions and answers between a supervisor and a worker: JSON over a connected socket, its length before it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

Answer = Callable[[Any], Awaitable[Any]]

_LENGTH = struct.Struct(">I")


class Gone(Exception):  # noqa: N818 - says the state
    """The other end is no longer there."""


class Failed(Exception):  # noqa: N818
    """The other end could not answer; the name of what was raised there."""


class Channel:
    """One end. Each may ask the other at any time; `answers` says what this one can be asked."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Mapping[str, Answer]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answers = answers
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._gone = False
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, one: socket.socket, answers: Mapping[str, Answer]) -> Channel:
        """A channel whose other end has the other socket of a pair."""
        return cls(*await asyncio.open_connection(sock=one), answers)

    async def ask(self, what: str, about: Any = None, seconds: float | None = None) -> Any:
        """The answer. Raises `Gone`, `Failed`, and TimeoutError if it takes longer than `seconds`."""
        if self._gone:
            raise Gone
        self._last += 1
        number = self._last
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send([number, what, about])
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._asked[number]

    def tell(self, what: str, about: Any = None) -> None:
        """The same, without waiting for an answer."""
        if not self._gone:
            self._send([0, what, about])

    async def run(self) -> None:
        """Take what comes, in its order, until the other end is gone."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                self._take(*orjson.loads(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._gone = True
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Gone())

    async def heard(self) -> None:
        """Until all that was told is taken in."""
        while self._answering:
            await asyncio.wait(self._answering)

    async def close(self) -> None:
        """Let the other end take what was sent, and go."""
        self._gone = True
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: list[Any]) -> None:
        data = orjson.dumps(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)

    def _take(self, number: int, what: str | None, about: Any) -> None:
        if what is None:
            answer = self._asked.get(number)
            if answer is not None and not answer.done():
                self._settle(answer, *about)
            return
        task = asyncio.get_running_loop().create_task(self._answer(number, what, about))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    @staticmethod
    def _settle(answer: asyncio.Future[Any], result: Any, failure: str) -> None:
        if failure:
            answer.set_exception(Failed(failure))
        else:
            answer.set_result(result)

    async def _answer(self, number: int, what: str, about: Any) -> None:
        result, failure = None, ""
        try:
            result = await self._answers[what](about)
        except Exception as error:  # noqa: BLE001 - the other end is told, and decides
            failure = type(error).__name__
        if number and not self._gone:
            self._send([number, None, (result, failure)])
