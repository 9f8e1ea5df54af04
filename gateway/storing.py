"""The store as the configuration describes it: opened by `run`, and by the commands that look after a database."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from gateway.adapters.postgres import PostgresStore, open_postgres
from gateway.adapters.postgres_connections import Address
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.config.settings import ConfigFile
from gateway.config.store import Store
from gateway.ports import Clock, Telemetry
from gateway.pure.bind import Tcp, parse_bind

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def open_store(
    settings: ConfigFile, read_secret: Callable[[str], bytes], clock: Clock, telemetry: Telemetry, number: int = 0
) -> SqliteStore | PostgresStore:
    """Raises ValueError with a sentence for the operator when it cannot be used. `number` as `node_name`."""
    store, chain = settings.store, gateway_name(settings, number)
    if store.place is None:
        return open_sqlite(store.path, clock=clock, telemetry=telemetry, chain=chain)
    address = address_of(store, read_secret)
    return await open_postgres(
        address, node=node_name(settings, number), clock=clock, telemetry=telemetry, lease=store.lease, chain=chain
    )


def address_of(store: Store, read_secret: Callable[[str], bytes]) -> Address:
    """Where PostgreSQL is, and how to get in. Raises ValueError, OSError or `ssl.SSLError` for what cannot be read."""
    assert store.place is not None
    return Address(
        host=store.place.host,
        port=store.place.port,
        database=store.place.database,
        user=store.username,
        password=read_secret(store.password).decode() if store.password else None,
        tls=_tls(Path(store.ca)) if store.ca else None,
        most=store.connections,
    )


def _tls(ca: Path) -> ssl.SSLContext:
    """Version 1.2 or later, the server's name checked against `ca`. No ALPN: PostgreSQL has a name of its own there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    return context


def gateway_name(settings: ConfigFile, number: int = 0, boot: str = "") -> str:
    """A gateway is called as where it listens first, and by its number among the processes that listen there: that is
    one process of one host, the same when it comes back.
    """
    bind = str(next(iter(settings.listeners.values())).bind)
    among = f" {number}" if number else ""
    return f"{socket.gethostname()}{boot} {bind}{among}"


def node_name(settings: ConfigFile, number: int = 0) -> str:
    """What a gateway is called among those that share a database. Hosts are told apart by their boot as well, for two
    that are called the same would take each other for dead for ever.
    """
    place = parse_bind(str(next(iter(settings.listeners.values())).bind))
    life = f" {os.getpid()}" if isinstance(place, Tcp) and place.port == 0 else ""
    return gateway_name(settings, number, _boot()) + life


def _boot() -> str:
    """Which boot of which machine this is, where the kernel tells."""
    try:
        return f"@{_BOOT_ID.read_text().strip()}"
    except OSError:
        return ""
