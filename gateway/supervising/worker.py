"""A worker: a gateway that does what its supervisor says, and ends when there is none any more."""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.adapters.clock import SystemClock
from gateway.adapters.exposition import dump_families, process_families
from gateway.adapters.lines import WholeLines
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.app import Gateway
from gateway.config.build import Config
from gateway.config.complaints import ConfigError
from gateway.ports import Unavailable
from gateway.server.actions import Action
from gateway.supervising.channel import Answer, Channel

_CHANGED = "the files have changed since the other workers read them: reload"


async def work(path: Path, config: Config, channel: int, begun: Callable[[], None]) -> int:
    """Until the supervisor says so, or is gone; the exit code. `begun` is called when requests are served."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return await Worker(path, config, begun).run(socket.socket(fileno=channel))


class Worker:
    """Answers the supervisor."""

    def __init__(self, path: Path, config: Config, begun: Callable[[], None]) -> None:
        self._path = path
        self._config = config
        self._begun = begun
        self._over: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._gateway: Gateway
        self._open = False
        self._actions: Mapping[tuple[str, str], Action] = {}

    async def run(self, one: socket.socket) -> int:
        """The exit code."""
        answers: Mapping[str, Answer] = {
            "begin": self._begin,
            "lead": self._lead,
            "follow": self._follow,
            "accept": self._accept,
            "prepare": self._prepare,
            "apply": self._apply,
            "checks": self._checks,
            "count": self._count,
            "act": self._act,
            "retire": self._retire,
            "leave": self._leave,
        }
        channel = await Channel.over(one, answers)
        listening = asyncio.ensure_future(channel.run())
        listening.add_done_callback(lambda _: self._leave_within(0.0))
        grace = await self._over
        if self._open:
            await self._gateway.close(grace)
            channel.tell("counted", await self._count(None))
            self._gateway.telemetry.close()
        await channel.close()
        listening.cancel()
        return 0 if self._open else 1

    async def _begin(self, about: Any) -> dict[str, Any]:
        """Serve; what an operator can ask for, or why it cannot be."""
        level = self._config.settings.logging.level
        telemetry = PrometheusTelemetry(SystemClock(), WholeLines(sys.stdout.fileno()), level, worker=about["seat"] + 1)
        telemetry.start()
        leave = functools.partial(self._leave_within, 0.0)
        gateway = Gateway(self._path, self._config, telemetry, leave, about["seat"], about["number"])
        try:
            if self._config.digest != about["digest"]:
                raise ValueError(_CHANGED)
            await gateway.open(_inherited(about["sockets"]), leading=False)
        except (ConfigError, OSError, ValueError, Unavailable) as error:
            telemetry.log("start_failed", level="error", error=str(error))
            await gateway.close()
            telemetry.close()
            self._leave_within(0.0)
            return {"error": str(error)}
        self._gateway, self._open = gateway, True
        self._actions = {(action.method, action.path): action for action in gateway.actions}
        self._begun()
        return {"actions": list(self._actions)}

    async def _lead(self, _: None) -> None:
        self._gateway.lead()

    async def _follow(self, _: None) -> None:
        await self._gateway.follow()

    async def _accept(self, seats: Sequence[int]) -> None:
        self._gateway.accept(seats)

    async def _prepare(self, _: None) -> dict[str, Any]:
        return {"complaints": list(await self._gateway.prepare()), "digest": self._gateway.digest}

    async def _apply(self, _: None) -> None:
        await self._gateway.apply()

    async def _checks(self, _: None) -> Mapping[str, bool]:
        return await self._gateway.checks()

    async def _count(self, _: None) -> dict[str, Any]:
        series = self._gateway.telemetry.counted()
        return {"series": series.dump(), "process": dump_families(process_families())}

    async def _act(self, about: Any) -> tuple[int, Mapping[str, object]]:
        action = self._actions[about["method"], about["path"]]
        return await action.perform(about["query"], about["body"].encode())

    async def _retire(self, _: None) -> None:
        self._gateway.retire()

    async def _leave(self, grace: float) -> None:
        self._leave_within(grace)

    def _leave_within(self, grace: float) -> None:
        if not self._over.done():
            self._over.set_result(grace)


def _inherited(numbers: Mapping[str, Sequence[int]]) -> dict[str, list[socket.socket]]:
    """The sockets of these file descriptors: one object for each, also where a listener has one queue for all."""
    known = {number: socket.socket(fileno=number) for group in numbers.values() for number in set(group)}
    return {name: [known[number] for number in group] for name, group in numbers.items()}
