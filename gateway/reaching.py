"""Redis servers as the configuration describes them: which they are, and how they are entered.

Made by `run`, and for `check` made and thrown away. What they are entered by follows the files that it was read from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.adapters.redis_node import Access, Address, Tls
from gateway.adapters.redis_topology import Cluster, One, Sentinels, Topology
from gateway.config.base import ClientTls
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.load import Config, contents
from gateway.config.reader import Path
from gateway.config.redis import Redis, Sentinel
from gateway.contexts import Renewed, client_context_of

_PORT = 6379
_SENTINEL_PORT = 26379


@dataclass(slots=True)
class _Entrance:
    """TLS that is in use, and the digest of the files that it was made from."""

    settings: ClientTls
    digest: bytes
    tls: Tls


class RedisServers:
    """All deployments that a configuration names. Nothing connects before it is used."""

    def __init__(self, config: Config, read_secret: Callable[[str], bytes]) -> None:
        self._config = config
        self._read_secret = read_secret
        self._entrances: dict[str, _Entrance] = {}

    def reach(self, name: str, place: Path, settings: Redis) -> tuple[Topology, Access]:
        """`name` is what metrics and logs call it, `place` where it stands. Raises ConfigError, with all of it."""
        complaints: list[Complaint] = []
        topology: Topology
        if settings.sentinel is not None:
            sentinel = settings.sentinel
            asked = self._access(f"{name}.sentinel", (*place, "sentinel"), sentinel, 0, complaints)
            topology = Sentinels(_addresses(sentinel.servers, _SENTINEL_PORT), sentinel.master, asked)
        else:
            addresses = _addresses(settings.servers or [], _PORT)
            topology = One(addresses[0]) if settings.cluster is None else Cluster(addresses)
        access = self._access(name, place, settings, settings.database, complaints)
        if complaints:
            raise ConfigError(complaints)
        return topology, access

    def _access(
        self, name: str, place: Path, settings: Redis | Sentinel, database: int, complaints: list[Complaint]
    ) -> Access:
        password = tls = None
        try:
            with self._config.blaming(*place, "password"):
                password = None if settings.password is None else self._read_secret(settings.password).decode()
        except ConfigError as error:
            complaints += error.complaints
        try:
            with self._config.blaming(*place, "tls"):
                tls = self._entered(name, settings.tls) if settings.secure else None
        except ConfigError as error:
            complaints += error.complaints
        return Access(settings.username, password, tls, database)

    def _entered(self, name: str, settings: ClientTls | None) -> Tls:
        digest = contents(settings)
        tls = Tls(client_context_of(settings, ()))
        if settings is not None:
            self._entrances[name] = _Entrance(settings, digest, tls)
        return tls

    # --- new files while it runs

    @property
    def tls(self) -> Mapping[str, ClientTls]:
        """What names files, by the name of what is entered by them."""
        return {name: entrance.settings for name, entrance in self._entrances.items()}

    def fresh(self, name: str) -> Renewed | None:
        """What follows from the files; None if what is in use was made from them. Raises ValueError, OSError."""
        entrance = self._entrances[name]
        digest = contents(entrance.settings)
        return None if digest == entrance.digest else Renewed(digest, client_context_of(entrance.settings, ()))

    def renew(self, name: str, renewed: Renewed) -> None:
        """Use that from now on: no round trip begins on a connection that was made by another."""
        entrance = self._entrances[name]
        entrance.digest, entrance.tls.context = renewed.digest, renewed.context


def _addresses(urls: Sequence[str], port: int) -> list[Address]:
    parts = [urlsplit(url) for url in urls]
    return [Address(part.hostname or "", part.port or port) for part in parts]
