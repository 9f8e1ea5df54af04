"""A worker as its supervisor sees it: a process, a channel to it, and what it last said it had counted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.pure.series import Series
from gateway.supervising.channel import Channel, Failed, Gone

START_SECONDS = 60.0
"""For a worker to serve, from its start."""
HUNG_SECONDS = 30.0
"""A worker that answers nothing for so long is killed."""


class WorkerProcess:
    """One process that takes a seat, a number below that of the workers; `number` is its own as long as it lives."""

    def __init__(
        self, seat: int, number: int, process: asyncio.subprocess.Process, sockets: Mapping[str, Sequence[int]]
    ) -> None:
        self.seat = seat
        self.number = number
        self.pid = process.pid
        self.digest = ""
        """Of the configuration that it runs."""
        self.begun = False
        self.series = Series()
        self.families: list[Any] = []
        self._process = process
        self._sockets = sockets
        self._channel: Channel
        self.ended: asyncio.Task[int]
        """Its exit code, after all that it said was heard."""

    @classmethod
    async def spawn(cls, seat: int, number: int, sockets: Mapping[str, Sequence[socket.socket]]) -> WorkerProcess:
        """The same command as this process, as a worker, with these sockets. Raises OSError."""
        ours, theirs = socket.socketpair()
        numbers = {name: [one.fileno() for one in group] for name, group in sockets.items()}
        inherited = {theirs.fileno(), *(number for group in numbers.values() for number in group)}
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                "--channel",
                str(theirs.fileno()),
                pass_fds=sorted(inherited),
                start_new_session=True,
            )
        worker = cls(seat, number, process, numbers)
        worker._channel = await Channel.over(ours, {"counted": worker._counted})
        worker.ended = asyncio.ensure_future(worker._end())
        return worker

    async def begin(self, digest: str) -> Mapping[str, Any]:
        """Let it serve the configuration of this digest: what an operator can ask of it, or why it does not."""
        self.digest = digest
        about = {"seat": self.seat, "number": self.number, "digest": digest, "sockets": self._sockets}
        try:
            said: Mapping[str, Any] = await self.ask("begin", about, START_SECONDS)
        except (Gone, Failed, TimeoutError) as error:
            self.kill()
            return {"error": f"it did not begin ({type(error).__name__})"}
        self.begun = "error" not in said
        return said

    async def ask(self, what: str, about: Any = None, seconds: float | None = None) -> Any:
        """As `Channel.ask`."""
        return await self._channel.ask(what, about, seconds)

    def tell(self, what: str, about: Any = None) -> None:
        """As `Channel.tell`."""
        self._channel.tell(what, about)

    async def count(self, seconds: float) -> None:
        """Let it say what it has counted; what it said last stands if it does not. Raises TimeoutError."""
        with contextlib.suppress(Gone, Failed):
            await self._counted(await self.ask("count", None, seconds))

    def kill(self) -> None:
        """Now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def _counted(self, report: Any) -> None:
        self.series = Series.load(report["series"])
        self.families = report["process"]

    async def _end(self) -> int:
        listening = asyncio.ensure_future(self._channel.run())
        code = await self._process.wait()
        await listening
        await self._channel.heard()
        await self._channel.close()
        return code
