"""The upstreams of the configuration that runs: made from settings, kept as long as these stay, looked after."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.adapters.upstream import HttpUpstream, Limits, Timeouts
from gateway.adapters.upstream_cluster import Care, Endpoint, HttpCluster, Resilience
from gateway.adapters.upstream_signing import SigningCluster, SigningKey, read_signing_key
from gateway.config.load import Config, contents
from gateway.config.upstreams import Upstream, UpstreamSign, UpstreamTls
from gateway.contexts import Renewed, upstream_context
from gateway.ports import Clock, Cluster, Entropy, ReadSecret, Telemetry
from gateway.pure.breaker import BreakerSettings
from gateway.pure.health import HealthSettings
from gateway.pure.retries import RetrySettings

_RESERVED_CONNECTIONS = 24
"""To each endpoint, for workers: as many as all of them use at once."""


def signing_key(sign: UpstreamSign, read_secret: ReadSecret) -> SigningKey:
    """Raises ValueError."""
    return read_signing_key(read_secret(sign.key), sign.id, sign.algorithm, sign.tag)


@dataclass(frozen=True, slots=True)
class _Made:
    """A cluster and what it was made from: the same settings and files mean the same connections."""

    made_from: tuple[Upstream, bytes]
    cluster: HttpCluster


class Upstreams:
    """One cluster for each name. What a reload leaves as it was keeps its connections, breakers and health."""

    def __init__(self, clock: Clock, entropy: Entropy, telemetry: Telemetry, read_secret: ReadSecret) -> None:
        self._clock = clock
        self._entropy = entropy
        self._read_secret = read_secret
        self._telemetry = telemetry
        self._running: dict[str, _Made] = {}
        self._planned: dict[str, _Made] = {}
        self._care: dict[str, asyncio.Task[None]] = {}

    def plan(self, config: Config) -> Mapping[str, Cluster]:
        """What `config` names: those there are, or new ones. Nothing is opened. Raises ValueError, OSError."""
        self._planned = {}
        for name, settings in config.settings.upstreams.items():
            made_from = (settings, contents(settings.tls))
            known = self._running.get(name)
            kept = known is not None and known.made_from == made_from
            self._planned[name] = known if known and kept else _Made(made_from, self._cluster(name, settings))
        return {name: self._vouching(made.made_from[0], made.cluster) for name, made in self._planned.items()}

    def _vouching(self, settings: Upstream, cluster: HttpCluster) -> Cluster:
        """The upstream, by requests that are signed if it is to have that."""
        if settings.sign is None:
            return cluster
        scheme, key = settings.url.partition(":")[0], signing_key(settings.sign, self._read_secret)
        return SigningCluster(cluster, scheme, key, self._clock, self._entropy, settings.sign.max_body)

    async def adopt(self) -> None:
        """What was planned last runs from now on; what does not any more is drained."""
        before, self._running = self._running, self._planned
        for name, made in before.items():
            if self._running.get(name) is not made:
                await self._leave(name)
                made.cluster.drain()
        for name, made in self._running.items():
            made.cluster.tell()
            if made.cluster.needs_care and name not in self._care:
                self._care[name] = asyncio.create_task(made.cluster.care())

    @property
    def tls(self) -> Mapping[str, UpstreamTls]:
        """Of the upstreams that run, what names files."""
        settings = {name: made.made_from[0].tls for name, made in self._running.items()}
        return {name: tls for name, tls in settings.items() if tls is not None}

    def fresh(self, name: str) -> Renewed | None:
        """What follows from the files of an upstream that runs; None if it was made from them.

        Raises ValueError, OSError.
        """
        settings, digest = self._running[name].made_from
        found = contents(settings.tls)
        return None if found == digest else Renewed(found, upstream_context(settings.tls))

    def renew(self, name: str, renewed: Renewed) -> None:
        """Use that for connections from now on; its breakers and its health stay what they are."""
        made = self._running[name]
        made.cluster.renew(renewed.context)
        self._running[name] = _Made((made.made_from[0], renewed.digest), made.cluster)

    async def close(self) -> None:
        """Break off what is under way and wait until every connection is gone."""
        for name in tuple(self._care):
            await self._leave(name)
        await asyncio.gather(*(made.cluster.close() for made in self._running.values()))

    async def _leave(self, name: str) -> None:
        task = self._care.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # --- from settings

    def _cluster(self, name: str, settings: Upstream) -> HttpCluster:
        endpoints = [self._endpoint(name, settings, place, weight) for place, weight in _places(settings)]
        names = any(not _is_ip(endpoint.host) for endpoint in endpoints)
        return HttpCluster(
            name,
            endpoints,
            clock=self._clock,
            telemetry=self._telemetry,
            chance=random.random,
            resilience=_resilience(settings, settings.dns_refresh_rate if names else None),
        )

    def _endpoint(self, name: str, settings: Upstream, place: tuple[str, int] | None, weight: int) -> Endpoint:
        tls = upstream_context(settings.tls) if settings.url.startswith("https:") else None

        def pool(connections: int, timeouts: Timeouts) -> HttpUpstream:
            limits = Limits(max_connections=connections, max_waiting=settings.bulkhead.max_pending)
            return HttpUpstream(
                name, settings.url, clock=self._clock, tls=tls, timeouts=timeouts, limits=limits, address=place
            )

        timeouts, most = _timeouts(settings), settings.bulkhead.max_concurrent_calls
        active = settings.health.active
        return Endpoint(
            front=pool(most, timeouts),
            reserve=pool(min(most, _RESERVED_CONNECTIONS), timeouts),
            probe=pool(1, _brief(active.timeout)) if active is not None else None,
            weight=weight,
        )


def _places(settings: Upstream) -> list[tuple[tuple[str, int] | None, int]]:
    """Where it is reached (None: where its url says), and by which weight."""
    return [(endpoint.place, endpoint.weight) for endpoint in settings.endpoints] or [(None, 1)]


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _timeouts(settings: Upstream) -> Timeouts:
    times = settings.timeouts
    return Timeouts(
        pending=settings.bulkhead.max_wait_duration,
        connect=times.connect,
        first_byte=times.first_byte,
        idle=times.idle,
        total=times.total,
        reuse_within=settings.reuse_within,
    )


def _brief(seconds: float) -> Timeouts:
    """Of a health check: a part of the time is all of it."""
    return Timeouts(pending=seconds, connect=seconds, first_byte=seconds, idle=seconds, total=seconds)


def _resilience(settings: Upstream, dns_refresh: float | None) -> Resilience:
    breaker, retries = settings.breaker, settings.retries
    passive, active = settings.health.passive, settings.health.active
    window = {"sliding_window_size": int(breaker.sliding_window_size)}
    statuses = {"failure_statuses": frozenset(breaker.failure_statuses)}
    thresholds = active.model_dump(include={"unhealthy_threshold", "healthy_threshold"}) if active else {}
    return Resilience(
        breaker=BreakerSettings(**{**breaker.model_dump(), **window, **statuses}),
        retries=RetrySettings(**retries.model_dump()),
        health=HealthSettings(**passive.model_dump(), **thresholds),
        care=Care(dns_refresh, active.path, active.interval) if active else Care(dns_refresh),
    )
