"""Files that are replaced while the gateway runs: lists of what was revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from gateway.ports import Clock, Soon, Telemetry, Unavailable
from gateway.pure.metrics import Metric

LOOK_SECONDS: Final = 0.5
STALE_FOR: Final = 3600.0
FILE_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")
_Stamp = tuple[int, ...]


class WatchedFile(Generic[T]):
    """Implements `ports.Watched`. Looks when it is asked, not by itself; who finds a new file waits for it."""

    def __init__(self, path: Path, what: str, read: Callable[[bytes], T], clock: Clock, telemetry: Telemetry) -> None:
        self._path = path
        self._what = what
        self._read = read
        self._clock = clock
        self._telemetry = telemetry
        self._stamp = _stamp(path)
        self._refused: _Stamp | None = None
        self._reading = False
        self._value = self._load()
        self._sound_at = clock.monotonic()
        self._look_at = self._sound_at + LOOK_SECONDS

    def current(self) -> Soon[T]:
        """As the port says."""
        now = self._clock.monotonic()
        return self._value if now < self._look_at else self._look(now)

    def _look(self, now: float) -> Soon[T]:
        self._look_at = now + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            self._sound_at, self._refused = now, None
        elif stamp == self._refused:
            self._count("rejected")
        elif not self._reading:
            return self._replace(stamp)
        return self._served(now)

    async def _replace(self, stamp: _Stamp) -> T:
        self._reading = True
        try:
            self._value = await asyncio.to_thread(self._load)
        except ValueError as error:
            self._refused = stamp
            self._count("rejected")
            self._telemetry.log("file_rejected", level="error", file=self._what, error=str(error))
        else:
            self._stamp, self._refused, self._sound_at = stamp, None, self._clock.monotonic()
            self._count("applied")
            self._telemetry.log("file_applied", file=self._what)
        finally:
            self._reading = False
        return self._served(self._clock.monotonic())

    def _served(self, now: float) -> T:
        if now - self._sound_at > STALE_FOR:
            raise Unavailable(self._what)
        return self._value

    def _load(self) -> T:
        try:
            with self._path.open("rb") as file:
                raw = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{self._path} cannot be read: {error.strerror}") from None
        if len(raw) > FILE_BYTES:
            raise ValueError(f"{self._path} has more than {FILE_BYTES} bytes")
        try:
            return self._read(raw)
        except ValueError as error:
            raise ValueError(f"{self._path} {error}") from None

    def _count(self, result: str) -> None:
        self._telemetry.count(Metric.FILE_RELOADS, self._what, result)


class WatchedFiles:
    """Implements `ports.Files`."""

    def __init__(self, clock: Clock, telemetry: Telemetry) -> None:
        self._clock = clock
        self._telemetry = telemetry

    def watch(self, path: str, what: str, read: Callable[[bytes], T]) -> WatchedFile[T]:
        """As the port says."""
        return WatchedFile(Path(path), what, read, self._clock, self._telemetry)


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written or replaced; empty if there is none to be seen."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
