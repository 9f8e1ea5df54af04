"""The composition root: the one file that knows all the others, and wires them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gateway.adapters.clock import SystemClock
from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import FileKeys, read_secret
from gateway.adapters.postgres import PostgresStore
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.check import check
from gateway.config.base import file_of
from gateway.config.build import Config, build
from gateway.config.complaints import Complaint, ConfigError
from gateway.config.inert import NoKeys
from gateway.config.settings import ConfigFile
from gateway.config.settings import Listener as ListenerSettings
from gateway.ports import Keys, Ports, Unavailable
from gateway.publishing import make_publishers
from gateway.pure.head_syntax import syntax
from gateway.pure.metrics import Metric
from gateway.pure.request_reader import HeadLimits
from gateway.renewal import LOOK_SECONDS, Renewal
from gateway.rules.tokenize import Settings as TokenizeSettings
from gateway.server.admin import Admin
from gateway.server.admin_events import event_routes
from gateway.server.admin_payments import payment_routes
from gateway.server.edge import Limits as EdgeLimits
from gateway.server.inbox import InboxReceiver
from gateway.server.listener import Listener
from gateway.server.proxy import Proxy, Running
from gateway.server.sockets import bound, deafen
from gateway.sharing import make_shared
from gateway.storing import open_store
from gateway.upstreams import Upstreams
from gateway.workers.deliveries import DeliveryForwarder
from gateway.workers.lease import LeaseKeeper
from gateway.workers.opening import run_opening
from gateway.workers.relay import Announcing, Relay
from gateway.workers.resolver import Resolver
from gateway.workers.retention import all_purges, run_retention

_READ_SECRET = functools.partial(read_secret, base=Path())


def run(path: Path) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Raises ConfigError when the configuration cannot run."""
    config = check(path)
    try:
        import uvloop  # noqa: PLC0415 - an accelerator that some platforms lack
    except ImportError:
        return asyncio.run(_serve(path, config))
    return uvloop.run(_serve(path, config))


async def _serve(path: Path, config: Config) -> int:
    gateway = Gateway(path, config)
    try:
        await gateway.open()
    except (OSError, ValueError, Unavailable) as error:
        gateway.telemetry.log("start_failed", level="error", error=str(error))
        await gateway.close()
        sys.stderr.write(f"pangate: {error}\n")
        return 1
    _calm_collector()
    await gateway.stopped()
    await gateway.close()
    return 0


def _calm_collector() -> None:
    """What was loaded stays: the cycle collector need not look at it again, nor at every short-lived request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


class _Loop(Protocol):
    """A worker that ends what it began before it stops."""

    async def run(self) -> None: ...
    async def stop(self) -> None: ...


class Gateway:
    """One process: adapters that live as long as it does, and the configuration that runs right now."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._config = config
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._clock = SystemClock()
        self.telemetry = PrometheusTelemetry(self._clock, sys.stdout.buffer, config.settings.logging.level)
        self._key_sets = JwkSets(self._clock, self.telemetry)
        self._renewal = Renewal(self.telemetry)
        self._sockets: dict[str, socket.socket] = {}
        self._upstreams = Upstreams(self._clock, os.urandom, self.telemetry, _READ_SECRET)
        self._listeners: dict[str, Listener] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._store: Announcing
        self._lease: LeaseKeeper | None = None
        self._ports: Ports
        self._running: Running
        self._loops: Sequence[_Loop] = ()
        self._admin: Admin | None = None
        self._open = contextlib.AsyncExitStack()

    # --- life

    async def open(self) -> None:
        """Adapters, then configuration, then workers, then sockets: nothing is let in that could not be served.

        Raises ConfigError, ValueError, OSError, Unavailable.
        """
        config = self._config
        self.telemetry.start()
        self._ports = await self._make_ports(config)
        await self._require_volatile(config)
        upstreams = self._upstreams.plan(config)
        self._running = Running(build(config, self._ports, upstreams, _READ_SECRET))
        await self._upstreams.adopt()
        fresh = self._renewal.fresh(config.settings.listeners)
        forwarder = DeliveryForwarder(self._ports, lambda: self._running.snapshot.inboxes)
        resolver = Resolver(self._ports, lambda: self._running.snapshot.recorded)
        self._loops = [forwarder, resolver, *self._make_relay(config)]
        events = config.settings.events
        purges = all_purges(events.keep, unsent=not events.publish)
        retention = run_retention(self._ports.store, self._clock, self.telemetry, purges)
        opening = run_opening(self._ports, lambda: self._running.snapshot.inboxes)
        loops = [*(loop.run() for loop in self._loops), retention, opening, self._look_at_certificates()]
        if self._lease is not None:
            loops.append(self._lease.run())
        self._workers = [asyncio.create_task(work) for work in loops]
        proxy = Proxy(self._ports, self._running, InboxReceiver(self._ports, forwarder.wake))
        for name, settings in config.settings.listeners.items():
            listener = Listener(name, proxy, self._ports, _limits(settings), identity=settings.identity)
            tls = fresh.get(name)
            self._sockets[name] = bound(str(settings.bind))
            await listener.open([self._sockets[name]], None if tls is None else tls.context)
            if tls is not None:
                self._renewal.installed(name, tls)
            self._listeners[name] = listener
        if config.settings.admin is not None:
            routes = [*payment_routes(resolver), *event_routes(self._ports.store, self._clock)]
            self._admin = Admin(checks=self._checks, scrape=self.telemetry.render, reload=self.reload, routes=routes)
            await self._admin.open(str(config.settings.admin.bind))
        self._applied(config)
        self._listen_to_signals()
        self.telemetry.log("started", digest=config.digest, pid=os.getpid(), routes=len(config.settings.routes))

    async def stopped(self) -> None:
        """Until SIGTERM or SIGINT."""
        await self._stop.wait()

    async def close(self) -> None:
        """Not ready any more, then no new connections, then the exchanges in flight, then the adapters."""
        if self._admin is not None:
            self._admin.retire()
        self.telemetry.log("draining")
        seconds = self._config.settings.drain
        for listener in self._listeners.values():
            listener.retire()
        await asyncio.sleep(self._config.settings.drain_delay)
        await deafen(self._sockets.values())
        left = await asyncio.gather(*(listener.drain(seconds) for listener in self._listeners.values()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(loop.stop() for loop in self._loops)), seconds)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._upstreams.close()
        await self._open.aclose()
        await self._key_sets.close()
        if self._admin is not None:
            await self._admin.close()
        self.telemetry.log("stopped", cut_off=sum(left))
        self.telemetry.close()

    # --- configuration

    async def reload(self) -> Sequence[str]:
        """Read, check and build everything anew, then swap one reference. The complaints, if it was not applied."""
        async with self._reloading, _swept():
            try:
                config = await asyncio.to_thread(self._read)
                await self._require_volatile(config)
                upstreams = self._upstreams.plan(config)
                snapshot = build(config, self._ports, upstreams, _READ_SECRET)
                fresh = self._renewal.fresh(config.settings.listeners)
            except (ConfigError, ValueError, OSError, Unavailable) as error:
                complaints = [str(c) for c in error.complaints] if isinstance(error, ConfigError) else [str(error)]
                self.telemetry.count(Metric.CONFIG_RELOADS, "rejected")
                self.telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 0)
                self.telemetry.log("reload_rejected", level="error", complaints=complaints, running=self._config.digest)
                return complaints
            self._running.snapshot = snapshot
            await self._upstreams.adopt()
            self._renewal.install(self._listeners, fresh)
            self._applied(config)
            self.telemetry.count(Metric.CONFIG_RELOADS, "applied")
            self.telemetry.log("reloaded", digest=config.digest)
            return []

    def _read(self) -> Config:
        config = check(self._path)
        complaints = list(_needs_restart(self._config.settings, config))
        if complaints:
            raise ConfigError(complaints)
        return config

    def _applied(self, config: Config) -> None:
        self.telemetry.set(Metric.CONFIG_INFO, 0, self._config.digest)
        self._config = config
        self.telemetry.set(Metric.CONFIG_INFO, 1, config.digest)
        self.telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 1)

    # --- adapters

    async def _make_ports(self, config: Config) -> Ports:
        settings = config.settings
        keys: Keys = FileKeys(Path(file_of(settings.keys.key))) if settings.keys is not None else NoKeys()
        opened = await open_store(settings, _READ_SECRET, self._clock, self.telemetry)
        if isinstance(opened, PostgresStore):
            self._lease = LeaseKeeper(opened, self._clock.boottime, self.telemetry)
            await self._lease.step()
        store = self._store = Announcing(opened)
        self._open.push_async_callback(store.close)
        shared, sad = make_shared(
            config, _READ_SECRET, clock=self._clock, entropy=os.urandom, keys=keys, telemetry=self.telemetry
        )
        self._open.push_async_callback(shared.close)
        files = WatchedFiles(self._clock, self.telemetry)
        return Ports(
            clock=self._clock,
            entropy=os.urandom,
            store=store,
            shared=shared,
            sad=sad,
            keys=keys,
            key_sets=self._key_sets,
            telemetry=self.telemetry,
            files=files,
            read_secret=_READ_SECRET,
            lease=self._lease,
        )

    def _make_relay(self, config: Config) -> list[Relay]:
        """One, or none where nothing is to be published. Raises ConfigError."""
        publishers = make_publishers(config, _READ_SECRET, self._clock.now)
        for publisher in publishers:
            self._open.push_async_callback(publisher.close)
        if not publishers:
            return []
        relay = Relay(self._ports, publishers, attempts=config.settings.events.attempts)
        self._store.wake = relay.wake
        return [relay]

    async def _require_volatile(self, config: Config) -> None:
        """Security codes may only be held by a Redis that writes to no disk. Raises ValueError.

        One that is away gets no code before it was asked.
        """
        rules = [rule for policy in config.policies.values() for rule in policy.rules]
        codes = any(isinstance(rule, TokenizeSettings) and rule.holds_codes for rule in rules)
        if codes and isinstance(self._ports.sad, RedisSad):
            try:
                await self._ports.sad.require_volatile()
            except Unavailable:
                self.telemetry.log("sad_unseen", level="warning")

    async def _look_at_certificates(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with self._reloading:
                await self._renewal.look(self._config.settings.listeners, self._listeners)

    # --- outside

    async def _checks(self) -> Mapping[str, bool]:
        try:
            await self._ports.store.commit([])
        except Unavailable:
            return {"store": False}
        return {"store": True}

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)

    def _reload_soon(self) -> None:
        task = asyncio.create_task(self._reload_quietly())
        self._workers.append(task)
        task.add_done_callback(self._workers.remove)

    async def _reload_quietly(self) -> None:
        await self.reload()


@contextlib.asynccontextmanager
async def _swept() -> AsyncIterator[None]:
    """Collect what is left of a configuration: it is full of cycles, and requests make the collector run seldom."""
    yield
    gc.collect()


def _limits(settings: ListenerSettings) -> EdgeLimits:
    limits = settings.limits
    return EdgeLimits(
        head=HeadLimits(total=limits.max_header_bytes, syntax=syntax(frozenset(settings.tolerate))),
        connections=limits.max_connections,
        connections_per_address=limits.max_connections_per_address,
        failed_credentials_per_address=limits.max_failed_credentials_per_address,
        handshake=limits.handshake_timeout,
        header=limits.header_timeout,
        idle=limits.idle_timeout,
        body=limits.max_body,
        body_time=limits.body_timeout,
        write_stall=limits.write_timeout,
    )


def _needs_restart(running: ConfigFile, config: Config) -> Iterator[Complaint]:
    """Settings that a reload cannot change, because sockets or files were opened by them."""
    for part in ("admin", "store", "shared", "keys", "events", "logging"):
        if getattr(running, part) != getattr(config.settings, part):
            yield config.source.at((part,), f"{part}: a change needs a restart")
    for name in running.listeners.keys() | config.settings.listeners.keys():
        before, after = running.listeners.get(name), config.settings.listeners.get(name)
        if before is None or after is None or _socket_of(before) != _socket_of(after):
            text = f"listeners.{name}: a change other than of TLS files needs a restart"
            yield config.source.at(("listeners", name), text)


def _socket_of(listener: ListenerSettings) -> tuple[object, ...]:
    """Whether certificates are asked for is part of it: connections that exist would not be asked again."""
    asked = listener.tls and listener.tls.client_certificate
    return listener.bind, listener.identity, listener.limits, listener.tolerate, asked
