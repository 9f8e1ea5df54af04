"""What gateways share, as the configuration describes it: made by `run`, and for `check` made and thrown away."""

from __future__ import annotations

from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.redis import open_redis
from gateway.config.shared import Shared as SharedSettings
from gateway.ports import Clock, Entropy, Keys, SadVault, Shared, Telemetry
from gateway.reaching import RedisServers


def make_shared(
    settings: SharedSettings,
    servers: RedisServers,
    *,
    clock: Clock,
    entropy: Entropy,
    keys: Keys,
    telemetry: Telemetry,
) -> tuple[Shared, SadVault]:
    """Counters and security codes. Nothing connects before it is used. Raises ConfigError, with all of it."""
    if settings.in_memory:
        return MemoryShared(clock), MemorySad(clock)
    topology, access = servers.reach("shared", ("shared",), settings)
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
