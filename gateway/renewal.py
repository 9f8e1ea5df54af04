"""The TLS files of the listeners, looked at twice a second: a new certificate takes over without a reload.

A pair whose parts do not belong together, as when certificate and key are replaced one after the other, changes
nothing; the listener goes on with what it has until the files are right.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import BaseModel

from gateway.config.load import contents, files_of
from gateway.config.settings import Listener as ListenerSettings
from gateway.contexts import listener_context
from gateway.ports import Telemetry
from gateway.pure.metrics import Metric
from gateway.server.listener import Listener
from gateway.server.tls import not_after

LOOK_SECONDS: Final = 0.5

_Marks: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Fresh:
    """A context, the `digest` of the files it was made from, and when its certificate ends (Unix time)."""

    digest: bytes
    context: ssl.SSLContext
    not_after: float


class Renewal:
    """What each listener's TLS was made from, and what follows when that changes on the disk."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._installed: dict[str, bytes] = {}
        self._concluded: dict[str, _Marks] = {}
        self._suspect: dict[str, _Marks] = {}

    def fresh(self, settings: Mapping[str, ListenerSettings]) -> dict[str, Fresh]:
        """For each listener whose files are not those that it runs with. Raises ValueError, OSError."""
        made = {}
        for name, listener in settings.items():
            digest = contents(listener.tls)
            if listener.tls is not None and self._installed.get(name) != digest:
                count = functools.partial(self._telemetry.count, Metric.HANDSHAKE_FAILURES, name)
                context = listener_context(listener.tls, count)
                made[name] = Fresh(digest, context, not_after(Path(listener.tls.certificate)))
        return made

    def installed(self, name: str, fresh: Fresh) -> None:
        """The listener uses it from now on."""
        self._installed[name] = fresh.digest
        self._telemetry.set(Metric.CERTIFICATE_NOT_AFTER, fresh.not_after, name)
        self._telemetry.count(Metric.CERTIFICATE_RENEWALS, name, "applied")

    def install(self, listeners: Mapping[str, Listener], fresh: Mapping[str, Fresh]) -> None:
        for name, each in fresh.items():
            listeners[name].renew(each.context)
            self.installed(name, each)

    async def look(self, settings: Mapping[str, ListenerSettings], listeners: Mapping[str, Listener]) -> None:
        """Install what has changed since the last look. Wrong is what is so at two looks running: in between, somebody
        may have been replacing the second file of a pair.
        """
        for name, listener in settings.items():
            marks = _marks(listener.tls)
            if marks == self._concluded.get(name):
                continue
            try:
                fresh = await asyncio.to_thread(self.fresh, {name: listener})
            except (ValueError, OSError) as error:
                if marks == self._suspect.get(name):
                    self._concluded[name] = marks
                    self._telemetry.count(Metric.CERTIFICATE_RENEWALS, name, "rejected")
                    self._telemetry.log("certificate_rejected", level="error", listener=name, error=str(error))
                self._suspect[name] = marks
                continue
            self._concluded[name] = marks
            self.install(listeners, fresh)
            if fresh:
                self._telemetry.log("certificate_renewed", listener=name)


def _marks(tls: BaseModel | None) -> _Marks:
    """What differs once a file, or the link to it, was replaced or written to."""
    return tuple(_mark(path) for path in files_of(tls))


def _mark(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
