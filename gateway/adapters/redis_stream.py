"""Where events go: a stream of Redis 6.2 or later, or Valkey.

An event is sent at least once. One that was sent and not confirmed in time is sent again, and the lost one may still
arrive afterwards: receivers go by `id` and `sequence`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from gateway.adapters.redis_node import Access, Node
from gateway.adapters.redis_nodes import Call, Nodes
from gateway.adapters.redis_topology import Topology
from gateway.operations import OutboxEvent
from gateway.ports import Telemetry, Told
from gateway.pure.relaying import TAKEN, Receipt, Taking

STREAM_BATCH: Final = 400
"""Events that one round trip to Redis carries at the most."""


def open_stream(
    name: str,
    topology: Topology,
    access: Access,
    stream: str,
    *,
    max_length: int | None,
    timeout: float,
    telemetry: Telemetry,
) -> RedisStream:
    """`timeout`: seconds for a round trip, connecting included. Connects, once to each server, when first asked."""
    make = functools.partial(Node, access=access, connections=1)
    return RedisStream(name, Nodes(topology, make, timeout, telemetry), stream, max_length)


class RedisStream:
    """Implements `ports.Publisher`: each event an entry of one stream, many to a round trip, on one connection.

    An entry has the fields `id`, `type`, `subject`, `sequence`, `tenant` and `event`, the whole CloudEvent as JSON.
    Nothing that a server answers is the fault of an event, so none is ever parked for it.
    """

    concurrency = STREAM_BATCH

    def __init__(self, name: str, nodes: Nodes, stream: str, max_length: int | None) -> None:
        self.name = name
        self._nodes = nodes
        self._stream = stream
        limit = () if max_length is None else (b"MAXLEN", b"~", b"%d" % max_length)
        self._head = ("XADD", stream.encode(), *limit, b"*")

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        calls = [Call(self._stream, (*self._head, *_entry(event))) for event in events]
        await self._nodes.ask_all(calls)
        for event, call in zip(events, calls, strict=True):
            told(event, Receipt(Taking.AWAY, type(call.answer).__name__) if call.failed else TAKEN)

    async def close(self) -> None:
        await self._nodes.close()


def _entry(event: OutboxEvent) -> tuple[bytes, ...]:
    """As bytes: whatever else it is, the client library looks at longer than at all the rest of an event."""
    return (
        b"id", event.id.encode(), b"type", event.type.encode(), b"subject", event.aggregateid.encode(),
        b"sequence", b"%d" % event.sequence, b"tenant", event.tenant.encode(), b"event", event.payload,
    )  # fmt: skip
