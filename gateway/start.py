"""What `pangate run` runs: one process alone, a supervisor with its workers, or one of these."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.adapters import process_memory
from gateway.adapters.clock import SystemClock
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.app import Gateway
from gateway.check import check
from gateway.config.build import Config
from gateway.config.complaints import ConfigError
from gateway.ports import Soon, Unavailable
from gateway.server.actions import Action
from gateway.server.admin import Admin
from gateway.server.sockets import bound_group, deafen
from gateway.supervising.supervisor import Supervisor
from gateway.supervising.worker import work

T = TypeVar("T")
Sockets = Mapping[str, Sequence[socket.socket]]


class Serving(Protocol):
    """A gateway that answers at sockets: in this process (`Gateway`), or in others (`Supervisor`)."""

    config: Config
    actions: Sequence[Action]

    async def open(self, sockets: Sockets) -> None: ...
    async def checks(self) -> Mapping[str, bool]: ...
    def scrape(self) -> Soon[tuple[bytes, str]]: ...
    async def reload(self) -> Sequence[str]: ...
    async def roll(self) -> Sequence[str]: ...
    def retire(self) -> None: ...
    async def close(self) -> None: ...


def run(path: Path, channel: int | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises ConfigError when the configuration cannot run.

    `channel` is the file descriptor over which a supervisor speaks to this process, its worker.
    """
    process_memory.forbid_dumps()
    config: Config | None = check(path)
    assert config is not None
    lock_memory(config)
    if channel is not None:
        return _run(work(path, config, channel, calm_collector))
    code = 0
    while config is not None:
        code, config = _run(serve(path, config))
    return code


def lock_memory(config: Config) -> None:
    """As the configuration says. Raises ConfigError where it requires what cannot be."""
    wanted = config.settings.lock_memory
    why_not = "" if wanted == "off" else process_memory.lock()
    if why_not and wanted == "required":
        raise ConfigError([config.source.at(("lock_memory",), f"lock_memory: cannot be done here: {why_not}")])


def _run(main: Coroutine[Any, Any, T]) -> T:
    try:
        import uvloop  # noqa: PLC0415 - an accelerator that some platforms lack
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def serve(path: Path, config: Config) -> tuple[int, Config | None]:
    """Until SIGTERM or SIGINT; SIGHUP reloads, SIGUSR2 reloads and replaces the workers. The exit code.

    Or until other gateways took this one for dead; then the second is what to begin anew with.
    """
    alone = config.settings.workers == 1
    who = {} if alone else {"worker": "supervisor"}
    telemetry = PrometheusTelemetry(SystemClock(), sys.stdout.buffer, config.settings.logging.level, **who)
    telemetry.start()
    told, admin = _Told(), None
    serving: Serving = Gateway(path, config, telemetry, told.bury) if alone else Supervisor(path, config, telemetry)
    try:
        sockets = {
            name: bound_group(listener.bind, config.settings.workers)
            for name, listener in config.settings.listeners.items()
        }
        await serving.open(sockets)
        told.obey(serving)
        if config.settings.admin is not None:
            admin = Admin(checks=serving.checks, scrape=serving.scrape, reload=serving.reload, actions=serving.actions)
            await admin.open(config.settings.admin.bind)
    except (OSError, ValueError, Unavailable) as error:
        telemetry.log("start_failed", level="error", error=str(error))
        await serving.close()
        telemetry.close()
        sys.stderr.write(f"pangate: {error}\n")
        return 1, None
    calm_collector()
    await told.over.wait()
    told.no_more()
    if admin is not None:
        admin.retire()
    serving.retire()
    await asyncio.sleep(0 if told.dead else serving.config.settings.drain_delay)
    await deafen(one for group in sockets.values() for one in group)
    await serving.close()
    if admin is not None:
        await admin.close()
    telemetry.close()
    return 0, serving.config if told.dead and not told.to_end else None


def calm_collector() -> None:
    """What was loaded stays: the cycle collector need not look at it again, nor at every short-lived request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


class _Told:
    """What signals say, from now on."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.dead = self.to_end = False
        self._under_way: set[asyncio.Future[Sequence[str]]] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._end)

    def _end(self) -> None:
        self.to_end = True
        self.over.set()

    def bury(self) -> None:
        """Others took this process for dead."""
        self.dead = True
        self.over.set()

    def obey(self, serving: Serving) -> None:
        """What is open can be reloaded, too."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._begin, serving.reload)
        loop.add_signal_handler(signal.SIGUSR2, self._begin, serving.roll)

    def _begin(self, act: Callable[[], Coroutine[Any, Any, Sequence[str]]]) -> None:
        task = asyncio.ensure_future(act())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def no_more(self) -> None:
        """Nothing is begun any more, and what is under way ends."""
        for task in self._under_way:
            task.cancel()
