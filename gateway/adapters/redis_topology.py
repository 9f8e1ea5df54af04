"""Which server holds which keys: one server, the master that sentinels name, or the masters of a cluster.

Redis Cluster parts all keys among 16,384 slots; where there is one server, it holds them all.
"""

# ruff: noqa: ARG002 - the arguments are the protocol's

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from gateway.adapters.redis_node import Access, Address, Node

SLOTS = 16_384


class Span(NamedTuple):
    """The slots from `first` to `last` are held by this server."""

    first: int
    last: int
    holder: Address


Reach = Callable[[Address], Node]


class Topology(Protocol):
    """Knows who can be asked where the keys are."""

    fixed: bool
    """It never changes, so that nobody need look again."""

    async def find(self, known: Sequence[Node], reach: Reach, seconds: float) -> Sequence[Span]:
        """`known` are the servers of the last answer; `seconds` for each question. Raises RedisError, OSError."""
        ...

    async def close(self) -> None: ...


class One:
    """A single server, by whatever name it has."""

    fixed = True

    def __init__(self, address: Address) -> None:
        self._spans = [Span(0, SLOTS - 1, address)]

    async def find(self, known: Sequence[Node], reach: Reach, seconds: float) -> Sequence[Span]:
        return self._spans

    async def close(self) -> None:
        """Nothing to close."""


class Sentinels:
    """The master of this name. All sentinels are asked: one that missed a failover still names the old master."""

    fixed = False

    def __init__(self, addresses: Iterable[Address], master: str, access: Access) -> None:
        """`access` is that of the sentinels."""
        self._sentinels = [Node(address, access, connections=1) for address in addresses]
        self._question = ("SENTINEL", "MASTER", master)

    async def find(self, known: Sequence[Node], reach: Reach, seconds: float) -> Sequence[Span]:
        until = asyncio.get_running_loop().time() + seconds
        asked = (sentinel.ask([self._question], until) for sentinel in self._sentinels)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [_fields(answer[0]) for answer in answers if isinstance(answer, list) and isinstance(answer[0], list)]
        if not told:
            raise NotConnected(f"no sentinel of {len(answers)} names a master{_first_error(answers)}")
        newest = max(told, key=lambda fields: int(fields["config-epoch"]))
        return [Span(0, SLOTS - 1, Address(newest["ip"], int(newest["port"])))]

    async def close(self) -> None:
        await asyncio.gather(*(sentinel.close() for sentinel in self._sentinels))


class Cluster:
    """The masters of a Redis Cluster; `seeds` are some of its servers. Each time another of them is asked first."""

    fixed = False

    def __init__(self, seeds: Iterable[Address]) -> None:
        self._seeds = list(seeds)
        self._turns = itertools.count()

    async def find(self, known: Sequence[Node], reach: Reach, seconds: float) -> Sequence[Span]:
        spans: Sequence[Span] = ()
        error: Exception | None = None
        for node in self._candidates(known, reach):
            until = asyncio.get_running_loop().time() + seconds
            try:
                info, slots = await node.ask([("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")], until)
            except (RedisError, OSError) as failed:
                error = failed
                continue
            if isinstance(slots, list) and slots:
                spans = [_span(entry, node.address.host) for entry in slots]
            else:
                error = slots if isinstance(slots, Exception) else NotConnected("a cluster without slots")
            if isinstance(info, bytes) and b"cluster_state:ok" in info:
                break
        if not spans:
            raise error or NotConnected("no server of the cluster is known")
        return spans

    def _candidates(self, known: Sequence[Node], reach: Reach) -> Iterable[Node]:
        well = [node for node in known if not node.suspect]
        turn = next(self._turns) % len(well) if well else 0
        yield from (*well[turn:], *well[:turn])
        yield from (reach(seed) for seed in self._seeds)

    async def close(self) -> None:
        """Nothing of its own to close."""


def _fields(flat: list[bytes]) -> dict[str, str]:
    texts = [item.decode("latin-1") for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _span(entry: list[Any], asked: str) -> Span:
    """An item of CLUSTER SLOTS; a server that does not know its name is where it was asked."""
    first, last, master = entry[:3]
    return Span(first, last, Address((master[0] or b"").decode("latin-1") or asked, master[1]))


def _first_error(answers: Sequence[object]) -> str:
    flat = (answer[0] if isinstance(answer, list) else answer for answer in answers)
    return next((f": {error}" for error in flat if isinstance(error, Exception) and str(error)), "")
