"""The composition root: the one file that knows all the others, and wires them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.adapters.clock import SystemClock
from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keyrings import Keyrings
from gateway.adapters.keys import read_secret
from gateway.adapters.postgres import PostgresStore
from gateway.adapters.process_memory import give_back, look
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.check import recheck
from gateway.config.build import Config, build
from gateway.config.complaints import ConfigError
from gateway.config.inert import NoKeys
from gateway.keeping import open_keys
from gateway.listening import make_listener
from gateway.ports import Keys, Ports, Telemetry, Unavailable
from gateway.publishing import make_publishers
from gateway.pure.metrics import Metric
from gateway.reaching import RedisServers
from gateway.renewal import LOOK_SECONDS, Fresh, Renewal
from gateway.rules.tokenize import Settings as TokenizeSettings
from gateway.server.actions import Action
from gateway.server.admin_audit import audit_actions
from gateway.server.admin_events import event_actions
from gateway.server.admin_payments import payment_actions
from gateway.server.admin_vault import vault_actions
from gateway.server.inbox import InboxReceiver
from gateway.server.listener import Listener
from gateway.server.proxy import Proxy, Running
from gateway.sharing import make_shared
from gateway.snapshot import Snapshot
from gateway.storing import open_store
from gateway.upstreams import Upstreams
from gateway.workers.backlog import Backlog
from gateway.workers.deliveries import DeliveryForwarder
from gateway.workers.ebbing import Ebbing
from gateway.workers.lease import LeaseKeeper
from gateway.workers.opening import run_opening
from gateway.workers.relay import Announcing, Relay
from gateway.workers.resolver import Resolver
from gateway.workers.retention import Purge, all_purges, old_audit, run_retention
from gateway.workers.rewrap import Rewrapper
from gateway.workers.vault_keys import VaultKeys
from gateway.workers.witness import Witness

_DEAD_DRAIN = 1.0
"""Seconds: those who wait for an answer hear at once that nobody knows."""
_READ_SECRET = functools.partial(read_secret, base=Path())


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration of which everything is built; it only has to be taken."""

    config: Config
    snapshot: Snapshot
    fresh: Mapping[str, Fresh]


class _Loop(Protocol):
    """A worker that ends what it began before it stops."""

    async def run(self) -> None: ...
    async def stop(self) -> None: ...


class Gateway:
    """One process: adapters that live as long as it does, and the configuration that runs right now.

    As one of several workers it has a `seat`, from whose socket of each listener it accepts, and a `number` that no
    other that lives has. `buried` is called when others took it for dead: nothing of it may be written any more.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        telemetry: PrometheusTelemetry,
        buried: Callable[[], None],
        seat: int = 0,
        number: int = 0,
    ) -> None:
        self._path = path
        self._buried = buried
        self._dead = False
        self.config = config
        self._seat = seat
        self._number = number
        self._reloading = asyncio.Lock()
        self._clock = SystemClock()
        self.telemetry = telemetry
        self._key_sets = JwkSets(self._clock, self.telemetry)
        self._renewal = Renewal(self.telemetry)
        self._upstreams = Upstreams(self._clock, os.urandom, self.telemetry, _READ_SECRET)
        self._redis = RedisServers(config, _READ_SECRET)
        self._prepared: _Prepared | None = None
        self._listeners: dict[str, Listener] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._leading: list[asyncio.Task[None]] = []
        self._store: Announcing
        self._lease: LeaseKeeper | None = None
        self._witness: Witness | None = None
        self._backlog: Backlog | None = None
        self._keyrings: Keyrings | None = None
        self._ports: Ports
        self._running: Running
        self._loops: Sequence[_Loop] = ()
        self.actions: Sequence[Action] = ()
        """What an operator may ask of it, once it is open."""
        self._open = contextlib.AsyncExitStack()

    # --- life

    async def open(self, sockets: Mapping[str, Sequence[socket.socket]], *, leading: bool = True) -> None:
        """Adapters, then configuration, then listeners: nothing is let in that could not be served.

        `sockets` are bound, one for each worker, by listener; `leading` as `lead`.
        Raises ConfigError, ValueError, OSError, Unavailable.
        """
        config = self.config
        for one in (one for group in sockets.values() for one in group):
            self._open.callback(one.close)
        self._ports = await self._make_ports(config)
        assert self._backlog is not None
        await self._require_volatile(config)
        upstreams = self._upstreams.plan(config)
        self._running = Running(build(config, self._ports, upstreams, _READ_SECRET))
        await self._upstreams.adopt()
        fresh = self._renewal.fresh(config.settings.listeners)
        forwarder = DeliveryForwarder(self._ports, lambda: self._running.snapshot.inboxes)
        resolver = Resolver(self._ports, lambda: self._running.snapshot.recorded)
        self._loops = [forwarder, resolver, *self._make_relay(config)]
        store, keys = self._ports.store, self._ports.keys
        auditing = audit_actions(store, keys, lambda: self.config.settings.only_tenant)
        self.actions = [*payment_actions(resolver), *event_actions(store, self._clock), *auditing]
        if self._keyrings is not None:
            rewrapper = Rewrapper(store, self._keyrings, self._clock, self.telemetry)
            vault = VaultKeys(store, self._keyrings, self._clock, self.telemetry, rewrapper.wake)
            self._loops = [*self._loops, rewrapper]
            self.actions = [*self.actions, *vault_actions(vault)]
        lease = () if self._lease is None else (self._lease.run(),)
        ebbing = Ebbing(self._connections, give_back, self.telemetry)
        works = (self._look_at_certificates(), self._backlog.run(), ebbing.run(), *lease)
        self._tasks = [asyncio.create_task(work) for work in works]
        proxy = Proxy(self._ports, self._running, InboxReceiver(self._ports, forwarder.wake))
        for name, settings in config.settings.listeners.items():
            listener = make_listener(name, settings, proxy, self._ports)
            tls = fresh.get(name)
            listener.open(sockets[name], None if tls is None else tls.context, [self._seat])
            if tls is not None:
                self._renewal.installed(name, tls)
            self._listeners[name] = listener
        self._applied(config)
        if config.settings.keys is not None:
            self._witness = Witness(store, keys, self._clock, self.telemetry)
            await self._witness.began(config.digest)
        if leading:
            self.lead()
        memory = look()
        self.telemetry.log(
            "started",
            digest=config.digest,
            pid=os.getpid(),
            routes=len(config.settings.routes),
            core_dumps="on" if memory.dumps else "off",
            memory="locked" if memory.locked else "not locked",
        )

    def lead(self) -> None:
        """Begin with what one process does for all: it forwards, finds out, publishes and forgets."""
        events = self.config.settings.events
        purges: dict[str, Purge] = all_purges(events.keep, unsent=not events.publish)
        witness = () if self._witness is None else (self._witness.run(),)
        if witness:
            purges["audit"] = old_audit(self.config.settings.audit.keep, self._ports.keys)
        retention = run_retention(self._ports.store, self._clock, self.telemetry, purges)
        opening = run_opening(self._ports, lambda: self._running.snapshot.inboxes)
        loops = (*(loop.run() for loop in self._loops), retention, opening, *witness)
        self._leading = [asyncio.create_task(work) for work in loops]

    async def follow(self) -> None:
        """End that for good. On return nothing of it is under way, unless it took longer than `drain`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(loop.stop() for loop in self._loops)), self.config.settings.drain)
        await _end(self._leading)

    def accept(self, numbers: Sequence[int]) -> None:
        """Accept from these sockets of each listener, and from no others."""
        for listener in self._listeners.values():
            listener.accept(numbers)

    def retire(self) -> None:
        """Go on accepting, but end each connection after its next answer."""
        self.telemetry.log("draining")
        for listener in self._listeners.values():
            listener.retire()

    async def close(self, grace: float = 0.0) -> None:
        """No new connections, then the exchanges in flight, then the loops, then the adapters.

        A connection on which nothing is asked is kept for `grace` seconds.
        """
        seconds = _DEAD_DRAIN if self._dead else self.config.settings.drain
        left = await asyncio.gather(*(listener.drain(seconds, grace) for listener in self._listeners.values()))
        await self.follow()
        await _end(self._tasks)
        if self._backlog is not None:
            await self._backlog.step()
        if self._witness is not None:
            await self._witness.ended()
        await self._upstreams.close()
        await self._open.aclose()
        await self._key_sets.close()
        self.telemetry.log("stopped", cut_off=sum(left))

    def _connections(self) -> int:
        return sum(listener.connections for listener in self._listeners.values())

    def _taken_for_dead(self) -> None:
        self._dead = True
        self._buried()

    # --- configuration

    async def reload(self) -> Sequence[str]:
        """Read, check and build everything anew, then swap one reference. The complaints, if it was not applied."""
        async with self._reloading:
            complaints = await self.prepare()
            if not complaints:
                await self.apply()
            return complaints

    @property
    def digest(self) -> str:
        """Of the configuration that is prepared, or else of the one that runs."""
        return (self._prepared or self).config.digest

    async def prepare(self) -> Sequence[str]:
        """Read, check and build everything anew, and take nothing of it yet. The complaints, if it cannot be taken."""
        try:
            config = await asyncio.to_thread(recheck, self._path, self.config.settings)
            await self._require_volatile(config)
            upstreams = self._upstreams.plan(config)
            snapshot = build(config, self._ports, upstreams, _READ_SECRET)
            self._prepared = _Prepared(config, snapshot, self._renewal.fresh(config.settings.listeners))
        except (ConfigError, ValueError, OSError, Unavailable) as error:
            self._prepared = None
            return rejected(error, self.telemetry, self.config.digest)
        return []

    async def apply(self) -> None:
        """Take what was prepared."""
        prepared, self._prepared = self._prepared, None
        assert prepared is not None
        self._running.snapshot = prepared.snapshot
        await self._upstreams.adopt()
        self._renewal.install(self._listeners, prepared.fresh)
        self._applied(prepared.config)
        self.telemetry.count(Metric.CONFIG_RELOADS, "applied")
        self.telemetry.log("reloaded", digest=prepared.config.digest)
        del prepared
        gc.collect()  # a configuration is full of cycles, and requests make the collector run seldom

    def _applied(self, config: Config) -> None:
        self.telemetry.set(Metric.CONFIG_INFO, 0, self.config.digest)
        self.config = config
        self.telemetry.set(Metric.CONFIG_INFO, 1, config.digest)
        self.telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 1)

    # --- adapters

    async def _make_ports(self, config: Config) -> Ports:
        settings = config.settings
        opened = await open_store(settings, _READ_SECRET, self._clock, self.telemetry, self._number)
        if isinstance(opened, PostgresStore):
            self._lease = LeaseKeeper(opened, self._clock.boottime, self.telemetry, self._taken_for_dead)
            await self._lease.step()
        store = self._store = Announcing(opened)
        self._open.push_async_callback(store.close)
        self._backlog = Backlog(store, self.telemetry)
        self._keyrings = await open_keys(config, _READ_SECRET, store, clock=self._clock, telemetry=self.telemetry)
        keys: Keys = self._keyrings or NoKeys()
        if self._keyrings is not None:
            self._open.push_async_callback(self._keyrings.close)
        shared, sad = make_shared(
            settings.shared, self._redis, clock=self._clock, entropy=os.urandom, keys=keys, telemetry=self.telemetry
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
            backlog=self._backlog,
        )

    def _make_relay(self, config: Config) -> list[Relay]:
        """One, or none where nothing is to be published. Raises ConfigError."""
        publishers = make_publishers(config, self._redis, _READ_SECRET, self._clock.now, self.telemetry)
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
                await self._renewal.look(self.config.settings.listeners, self._listeners)
                await self._renewal.look_at_servers("upstream", self._upstreams)
                await self._renewal.look_at_servers("redis", self._redis)

    # --- outside

    async def roll(self) -> Sequence[str]:
        """There are no workers to replace: all that can be done is to reload."""
        return await self.reload()

    def scrape(self) -> tuple[bytes, str]:
        """The metrics of this process, and their media type."""
        return self.telemetry.render()

    async def checks(self) -> Mapping[str, bool]:
        """What must work for requests to be served, by name."""
        try:
            await self._ports.store.commit([])
        except Unavailable:
            return {"store": False}
        return {"store": True}


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def rejected(error: Exception, telemetry: Telemetry, running: str) -> list[str]:
    """Count and tell that a configuration is not taken; `running` is the digest of the one that goes on."""
    complaints = [str(c) for c in error.complaints] if isinstance(error, ConfigError) else [str(error)]
    telemetry.count(Metric.CONFIG_RELOADS, "rejected")
    telemetry.set(Metric.CONFIG_LAST_RELOAD_SUCCESSFUL, 0)
    telemetry.log("reload_rejected", level="error", complaints=complaints, running=running)
    return complaints
