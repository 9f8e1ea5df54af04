"""What gateways share, as the configuration describes it: made by `run`, and for `check` made and thrown away."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.redis import open_redis
from gateway.adapters.redis_node import Access, Address
from gateway.adapters.redis_topology import Cluster, One, Sentinels, Topology
from gateway.config.base import ClientTls
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.load import Config
from gateway.config.shared import Sentinel, Shared, is_secure
from gateway.contexts import client_context_of
from gateway.ports import Clock, Entropy, Keys, SadVault, Telemetry
from gateway.ports import Shared as SharedPort

_PORT = 6379
_SENTINEL_PORT = 26379


def make_shared(
    config: Config,
    read_secret: Callable[[str], bytes],
    *,
    clock: Clock,
    entropy: Entropy,
    keys: Keys,
    telemetry: Telemetry,
) -> tuple[SharedPort, SadVault]:
    """Counters and security codes. Nothing connects before it is used. Raises ConfigError, with all of it."""
    settings = config.settings.shared
    if settings.in_memory:
        return MemoryShared(clock), MemorySad(clock)
    maker = _Maker(config, read_secret)
    topology = maker.topology(settings)
    access = maker.access(("shared",), settings, settings.tls is not None or _secure(settings), settings.database)
    if maker.complaints:
        raise ConfigError(maker.complaints)
    return open_redis(
        topology,
        access,
        clock=clock,
        entropy=entropy,
        keys=keys,
        telemetry=telemetry,
        timeout=settings.timeout,
        connections=settings.connections,
    )


class _Maker:
    """Collects what is wrong on the way."""

    def __init__(self, config: Config, read_secret: Callable[[str], bytes]) -> None:
        self.complaints: list[Complaint] = []
        self._config = config
        self._read_secret = read_secret

    def topology(self, settings: Shared) -> Topology:
        if settings.sentinel is not None:
            sentinel = settings.sentinel
            access = self.access(("shared", "sentinel"), sentinel, is_secure(sentinel.servers))
            return Sentinels(_addresses(sentinel.servers, _SENTINEL_PORT), sentinel.master, access)
        addresses = _addresses(settings.servers or [], _PORT)
        return One(addresses[0]) if settings.cluster is None else Cluster(addresses)

    def access(self, place: tuple[str, ...], settings: Shared | Sentinel, secure: bool, database: int = 0) -> Access:
        return Access(
            settings.username,
            self._password((*place, "password"), settings.password),
            self._context((*place, "tls"), settings.tls) if secure else None,
            database,
        )

    def _password(self, place: tuple[str, ...], reference: str | None) -> str | None:
        if reference is not None:
            try:
                with self._config.blaming(*place):
                    return self._read_secret(reference).decode()
            except ConfigError as error:
                self.complaints += error.complaints
        return None

    def _context(self, place: tuple[str, ...], tls: ClientTls | None) -> ssl.SSLContext | None:
        try:
            with self._config.blaming(*place):
                return client_context_of(tls, ())
        except ConfigError as error:
            self.complaints += error.complaints
        return None


def _secure(settings: Shared) -> bool:
    return settings.servers is not None and is_secure(settings.servers)


def _addresses(urls: Sequence[str], port: int) -> list[Address]:
    parts = [urlsplit(url) for url in urls]
    return [Address(part.hostname or "", part.port or port) for part in parts]
