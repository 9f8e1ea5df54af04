"""Whether servers keep what they are given in memory alone: their settings, and those of their replicas.

Statistics can prove that a server persists, but never that it will not, so it is asked for its settings. A replica is
sent a snapshot; unless both sides are told to do that without a disk, it lies in a file for a while (redis.conf,
`repl-diskless-sync` and `repl-diskless-load`). A person who orders BGSAVE is beyond any check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError, ResponseError

from gateway.adapters.redis_node import Address, Node

_SETTINGS = ("save", "appendonly", "repl-diskless-sync", "repl-diskless-load")
_SECONDS = 1.0
"""For one server."""


async def require_volatile(masters: Sequence[Node], make: Callable[[Address], Node]) -> frozenset[str]:
    """The run ids of the masters: of each process another one. `make` connects to a replica.

    Raises ValueError with a sentence for the operator; RedisError, OSError.
    """
    told = await asyncio.gather(*(_told(master) for master in masters))
    for master, (settings, info) in zip(masters, told, strict=True):
        replicas = list(_replicas(info))
        _require(str(master.address), settings, {"repl-diskless-sync": ("yes",)} if replicas else {})
        await asyncio.gather(*(_require_replica(replica, make) for replica in replicas))
    return frozenset(info["run_id"] for _, info in told)


async def _require_replica(address: Address, make: Callable[[Address], Node]) -> None:
    node = make(address)
    try:
        settings, _ = await _told(node)
    except (RedisError, OSError) as error:
        raise ValueError(
            f"shared: security codes may only be held by a Redis that persists nothing; its replica {address} cannot be"
            f" asked ({type(error).__name__}), though it must be reachable from here with the same user and password"
        ) from error
    finally:
        await node.close()
    _require(str(address), settings, {"repl-diskless-load": ("on-empty-db", "swapdb", "flush-before-load")})


async def _told(node: Node) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """The settings that matter, and what the server tells of itself and its replicas."""
    if node.lost:
        raise NotConnected("the server is lost")
    questions = [*(("CONFIG", "GET", name) for name in _SETTINGS), ("INFO", "server"), ("INFO", "replication")]
    *settings, server, replication = await node.ask(questions, asyncio.get_running_loop().time() + _SECONDS)
    if any(isinstance(answer, ResponseError) for answer in (*settings, server, replication)):
        raise ValueError(
            f"shared: security codes may only be held by a Redis that persists nothing, and {node.address} does not let"
            " Pangate see that; permit the commands CONFIG GET and INFO to its user"
        )
    return _pairs(settings), {**server, **replication}


def _pairs(replies: Iterable[list[bytes]]) -> dict[str, str]:
    """A setting that this version does not know has an empty reply."""
    return {reply[0].decode(): reply[1].decode("latin-1") for reply in replies if reply}


def _replicas(info: Mapping[str, Any]) -> Iterable[Address]:
    """Of items such as `slave0`, which redis-py has parsed."""
    for name, fields in info.items():
        if name.removeprefix("slave").isdigit():
            yield Address(fields["ip"], int(fields["port"]))


def _require(server: str, settings: Mapping[str, str], further: Mapping[str, Sequence[str]]) -> None:
    if settings.get("save") != "" or settings.get("appendonly") != "no":
        raise ValueError(
            f"shared: the Redis at {server} writes to its disk, where security codes must never be;"
            ' start it with --save "" --appendonly no, or take the class cvc out of the policies'
        )
    for name, values in further.items():
        if settings.get(name) not in values:
            raise ValueError(
                f"shared: the Redis at {server} writes snapshots for its replicas to a disk, where security codes must"
                f" never be; start it with --{name} {values[0]}"
            )
