"""`pangate check`: everything that starting would do, but open a socket, a database or a connection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gateway.adapters.clock import SystemClock
from gateway.adapters.files import WatchedFiles
from gateway.adapters.http_parser import require_c_parser
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import KEY_BYTES, DerivedKeys, read_secret
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.config.build import build
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.inert import NoKeys, NoStore, NoTelemetry, NoUpstream
from gateway.config.load import Config, load
from gateway.config.settings import ConfigFile, Tls
from gateway.config.settings import Listener as ListenerSettings
from gateway.config.upstreams import UpstreamSign, UpstreamTls
from gateway.contexts import listener_context, upstream_context
from gateway.keeping import make_service
from gateway.ports import Keys, Ports
from gateway.publishing import make_publishers
from gateway.reaching import RedisServers
from gateway.sharing import make_shared
from gateway.storing import address_of
from gateway.upstreams import signing_key

_READ_SECRET = functools.partial(read_secret, base=Path())


def check(path: Path) -> Config:
    """The configuration at `path`, if it can run. Raises ConfigError with all complaints."""
    config = load(path)
    complaints: list[Complaint] = []
    steps: list[Callable[[Config], None]] = [_parser, *_tls_of(config), _store, _shared, _publishers, _build]
    for step in steps:
        try:
            step(config)
        except ConfigError as error:
            complaints += error.complaints
    if complaints:
        raise ConfigError(complaints)
    return config


def recheck(path: Path, running: ConfigFile) -> Config:
    """The configuration at `path`, if it can replace the one that runs. Raises ConfigError with all complaints."""
    config = check(path)
    complaints = list(_needs_restart(running, config))
    if complaints:
        raise ConfigError(complaints)
    return config


def _parser(config: Config) -> None:
    with config.blaming():
        require_c_parser()


def _tls_of(config: Config) -> Iterator[Callable[[Config], None]]:
    for name, listener in config.settings.listeners.items():
        if listener.tls is not None:
            yield functools.partial(_read_listener_tls, name=name, tls=listener.tls)
    for name, upstream in config.settings.upstreams.items():
        if upstream.tls is not None:
            yield functools.partial(_read_upstream_tls, name=name, tls=upstream.tls)
        if upstream.sign is not None:
            yield functools.partial(_read_signing_key, name=name, sign=upstream.sign)


def _read_listener_tls(config: Config, name: str, tls: Tls) -> None:
    with config.blaming("listeners", name, "tls"):
        listener_context(tls)


def _read_signing_key(config: Config, name: str, sign: UpstreamSign) -> None:
    with config.blaming("upstreams", name, "sign"):
        signing_key(sign, _READ_SECRET)


def _read_upstream_tls(config: Config, name: str, tls: UpstreamTls) -> None:
    with config.blaming("upstreams", name, "tls"):
        upstream_context(tls)


def _store(config: Config) -> None:
    if config.settings.store.place is not None:
        with config.blaming("store"):
            address_of(config.settings.store, _READ_SECRET)


def _shared(config: Config) -> None:
    servers, clock = RedisServers(config, _READ_SECRET), SystemClock()
    make_shared(config.settings.shared, servers, clock=clock, entropy=bytes, keys=NoKeys(), telemetry=NoTelemetry())


def _publishers(config: Config) -> None:
    make_publishers(config, RedisServers(config, _READ_SECRET), _READ_SECRET, SystemClock().now, NoTelemetry())


def _build(config: Config) -> None:
    build(config, idle_ports(config), idle_upstreams(config), _READ_SECRET)


def idle_upstreams(config: Config) -> Mapping[str, NoUpstream]:
    """One for each that is configured, and nothing behind it."""
    return {name: NoUpstream(name) for name in config.settings.upstreams}


def idle_ports(config: Config) -> Ports:
    """What rules are provisioned with where no request is served: files are read, nothing else is opened.

    Raises ConfigError.
    """
    clock, telemetry = SystemClock(), NoTelemetry()
    service = make_service(config, _READ_SECRET, telemetry)
    keys: Keys = NoKeys() if service is None else DerivedKeys(service.inherited or bytes(KEY_BYTES))
    return Ports(
        clock=clock,
        entropy=bytes,
        store=NoStore(),
        shared=MemoryShared(clock),
        sad=MemorySad(clock),
        keys=keys,
        key_sets=JwkSets(clock, telemetry),
        telemetry=telemetry,
        files=WatchedFiles(clock, telemetry),
        read_secret=_READ_SECRET,
    )


def _needs_restart(running: ConfigFile, config: Config) -> Iterator[Complaint]:
    """Settings that a reload cannot change, because sockets or files were opened by them."""
    for part in ("workers", "admin", "store", "shared", "keys", "audit", "events", "lock_memory", "logging"):
        if getattr(running, part) != getattr(config.settings, part):
            yield config.source.at((part,), f"{part}: a change needs a restart")
    for reader in running.services.keys() & config.settings.services.keys():
        if running.services[reader].reads != config.settings.services[reader].reads:
            yield config.source.at(("services", reader, "reads"), f"services.{reader}.reads: a change needs a restart")
    for name in running.listeners.keys() | config.settings.listeners.keys():
        before, after = running.listeners.get(name), config.settings.listeners.get(name)
        if before is None or after is None or _socket_of(before) != _socket_of(after):
            text = f"listeners.{name}: a change other than of TLS files needs a restart"
            yield config.source.at(("listeners", name), text)


def _socket_of(listener: ListenerSettings) -> tuple[object, ...]:
    """Whether certificates are asked for is part of it: connections that exist would not be asked again."""
    asked = listener.tls and listener.tls.client_certificate
    return listener.bind, listener.identity, listener.limits, listener.proxy_protocol, asked
