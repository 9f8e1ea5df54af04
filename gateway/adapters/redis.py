"""Counters, and what may be used once, that many gateways share on Redis 6.2 or later, or Valkey.

A call is a script: one atomic step. The clock that counts is the server's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib.resources import files

from gateway.adapters.memory import MemoryShared, decision
from gateway.adapters.redis_node import Access, Node
from gateway.adapters.redis_nodes import Call, Nodes, Script
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.redis_topology import Topology
from gateway.ports import Clock, Decision, Entropy, Hit, Keys, Telemetry
from gateway.pure.gcra import Room

_USE = """
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then return 0 end
end
for _, key in ipairs(KEYS) do
  redis.call('SET', key, '', 'NX', 'PX', ARGV[1])
end
return 1
"""


def open_redis(
    topology: Topology,
    access: Access,
    *,
    clock: Clock,
    entropy: Entropy,
    keys: Keys,
    telemetry: Telemetry,
    timeout: float = 0.25,
    connections: int = 32,
) -> tuple[RedisShared, RedisSad]:
    """Both ports, on one pool of `connections` to each server; connects when first asked.

    `timeout`: seconds a call may take in all, connecting included.
    """
    make = functools.partial(Node, access=access, connections=connections)
    nodes = Nodes(topology, make, timeout, telemetry)
    return RedisShared(nodes, MemoryShared(clock)), RedisSad(nodes, clock, keys, entropy, telemetry)


class RedisShared:
    """Implements `ports.Shared`; its `local` counters are those of this process."""

    def __init__(self, nodes: Nodes, local: MemoryShared) -> None:
        self._nodes = nodes
        self._local = local
        self._hit = Script(files("gateway.adapters").joinpath("lua/hit.lua").read_text("utf-8"))
        self._use = Script(_USE)

    @property
    def local(self) -> MemoryShared:
        return self._local

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        arguments: list[str | int | bytes] = []
        for hit in hits:
            arguments += (hit.strategy, *hit.limit, int(hit.enforced))
        numbers = iter(await self._nodes.ask("shared", Call(self._hit, [hit.key for hit in hits], arguments)))
        return [
            decision(allowed == 1, Room(remaining, reset_after, retry_after))
            for allowed, remaining, reset_after, retry_after in zip(numbers, numbers, numbers, numbers, strict=True)
        ]

    async def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        answer: int = await self._nodes.ask("shared", Call(self._use, keys, (max(1, math.ceil(seconds * 1000)),)))
        return answer == 1

    async def close(self) -> None:
        """Waits for what is under way, then closes the connections, those of `RedisSad` too."""
        await self._nodes.close()
