"""The TLS files of listeners, upstreams and Redis servers, looked at twice a second: a new certificate takes over
without a reload.

A pair whose parts do not belong together, as when certificate and key are replaced one after the other, changes
nothing; what runs goes on with what it has until the files are right.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from gateway.config.base import ClientTls
from gateway.config.load import contents, files_of
from gateway.config.settings import Listener as ListenerSettings
from gateway.contexts import Renewed, listener_context
from gateway.ports import Telemetry
from gateway.pure.metrics import Metric
from gateway.server.listener import Listener
from gateway.server.tls import not_after

LOOK_SECONDS: Final = 0.5

_PLACES: Final = {"listener": "", "upstream": "upstreams.", "redis": ""}
"""What stands before the names of each kind where all of them are told apart."""

_Marks: TypeAlias = tuple[tuple[int, ...], ...]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Fresh:
    """A context, the `digest` of the files it was made from, and when its certificate ends (Unix time)."""

    digest: bytes
    context: ssl.SSLContext
    not_after: float


class Servers(Protocol):
    """Those that connections are made to by TLS, by name."""

    @property
    def tls(self) -> Mapping[str, ClientTls]:
        """What names files."""
        ...

    def fresh(self, name: str) -> Renewed | None:
        """What follows from the files; None if what is in use was made from them. Raises ValueError, OSError."""
        ...

    def renew(self, name: str, renewed: Renewed) -> None:
        """Use that from now on."""
        ...


class Renewal:
    """What TLS was made from, and what follows when that changes on the disk."""

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
        """Install what of the listeners' files has changed since the last look."""
        for name, listener in settings.items():
            fresh = await self._changed("listener", name, listener.tls, functools.partial(self.fresh, {name: listener}))
            if fresh:
                self.install(listeners, fresh)
                self._telemetry.log("certificate_renewed", listener=name)

    async def look_at_servers(self, kind: str, servers: Servers) -> None:
        """The same for authorities and client certificates toward servers, and for what connections to them trust."""
        for name, tls in servers.tls.items():
            renewed = await self._changed(kind, name, tls, functools.partial(servers.fresh, name))
            if renewed is not None:
                servers.renew(name, renewed)
                self._telemetry.count(Metric.CERTIFICATE_RENEWALS, _PLACES[kind] + name, "applied")
                self._telemetry.log("certificate_renewed", **{kind: name})

    async def _changed(self, kind: str, name: str, tls: BaseModel | None, make: Callable[[], Made]) -> Made | None:
        """What `make` makes of files that have changed since the last look; None if they have not, or are wrong.

        Wrong is what is so at two looks running: in between, somebody may be replacing the second file of a pair.
        """
        place = _PLACES[kind] + name
        marks = _marks(tls)
        if marks == self._concluded.get(place):
            return None
        try:
            made = await asyncio.to_thread(make)
        except (ValueError, OSError) as error:
            if marks == self._suspect.get(place):
                self._concluded[place] = marks
                self._telemetry.count(Metric.CERTIFICATE_RENEWALS, place, "rejected")
                self._telemetry.log("certificate_rejected", level="error", error=str(error), **{kind: name})
            self._suspect[place] = marks
            return None
        self._concluded[place] = marks
        return made


def _marks(tls: BaseModel | None) -> _Marks:
    """What differs once a file, or the link to it, was replaced or written to."""
    return tuple(_mark(path) for path in files_of(tls))


def _mark(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
