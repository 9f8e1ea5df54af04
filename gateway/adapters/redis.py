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
from gateway.adapters.redis_nodes import Nodes, Run, Script
from gateway.adapters.redis_sad import RedisSad
from gateway.adapters.redis_topology import Topology
from gateway.ports import Clock, Decision, Entropy, Hit, Keys, Telemetry
from gateway.pure.gcra import SECOND, Room
from gateway.pure.metrics import Metric
from gateway.pure.velocity import MEMBERS_MAX, Tallied, Tally

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
    nodes = Nodes(topology, make, timeout, telemetry, functools.partial(telemetry.set, Metric.SHARED_LOST))
    return RedisShared(nodes, MemoryShared(clock)), RedisSad(nodes, clock, keys, entropy, telemetry)


_TAKE_BACK = """
for i, key in ipairs(KEYS) do
  local kept = {}
  for member, entry in string.gmatch(redis.call('GET', key) or '', '(%S+)( %d+ %d+)') do
    if member ~= ARGV[i] then kept[#kept + 1] = member .. entry end
  end
  if #kept > 0 then
    redis.call('SET', key, table.concat(kept, ' '), 'KEEPTTL')
  else
    redis.call('DEL', key)
  end
end
return 1
"""


class RedisShared:
    """Implements `ports.Shared`; its `local` counters are those of this process."""

    def __init__(self, nodes: Nodes, local: MemoryShared) -> None:
        self._nodes = nodes
        self._local = local
        self._hit = Script(files("gateway.adapters").joinpath("lua/hit.lua").read_text("utf-8"))
        self._tally = Script(files("gateway.adapters").joinpath("lua/tally.lua").read_text("utf-8"))
        self._take_back = Script(_TAKE_BACK)
        self._use = Script(_USE)

    @property
    def local(self) -> MemoryShared:
        return self._local

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        arguments: list[str | int | bytes] = []
        for hit in hits:
            arguments += (hit.strategy, *hit.limit, int(hit.enforced))
        numbers = iter(await self._nodes.ask("shared", Run(self._hit, [hit.key for hit in hits], arguments)))
        return [
            decision(allowed == 1, Room(remaining, reset_after, retry_after))
            for allowed, remaining, reset_after, retry_after in zip(numbers, numbers, numbers, numbers, strict=True)
        ]

    async def tally(self, tallies: Sequence[Tally]) -> Sequence[Tallied]:
        arguments: list[str | int | bytes] = [MEMBERS_MAX]
        for tally in tallies:
            arguments += (tally.member, tally.weight, tally.most, tally.period, int(tally.enforced))
        numbers = iter(await self._nodes.ask("shared", Run(self._tally, [tally.key for tally in tallies], arguments)))
        return [Tallied(allowed == 1, wait / SECOND) for allowed, wait in zip(numbers, numbers, strict=True)]

    async def take_back(self, tallies: Sequence[Tally]) -> None:
        members = [tally.member for tally in tallies]
        await self._nodes.ask("shared", Run(self._take_back, [tally.key for tally in tallies], members))

    async def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        answer: int = await self._nodes.ask("shared", Run(self._use, keys, (max(1, math.ceil(seconds * 1000)),)))
        return answer == 1

    async def close(self) -> None:
        """Waits for what is under way, then closes the connections, those of `RedisSad` too."""
        await self._nodes.close()
