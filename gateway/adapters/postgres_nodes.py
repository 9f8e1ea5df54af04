"""Which gateways live: each holds a lease by the database's clock, and what one leaves behind falls to the others.

    holder   NODE/EPOCH, in every row that is in flight: whose it is, and in which of its lives

A node that starts again under its name begins a new epoch, so what it held before is nobody's at once; of one that does
not come back it is nobody's when the lease has run out. What is nobody's becomes unknown, never free: somebody has to
find out how far it came. A node that was taken for dead and is not writes nothing more: every transaction begins by
holding the row of its epoch (`alive`), and who ends that epoch waits for those that are under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import asyncpg

from gateway.adapters.sql_statements import micros

_HOLD = "SELECT 1 FROM nodes WHERE node = $1 FOR UPDATE"
_JOIN = """INSERT INTO nodes (node, epoch, leased_until)
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint, clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (node)
    DO UPDATE SET epoch = greatest(nodes.epoch + 1, excluded.epoch), leased_until = excluded.leased_until
    RETURNING epoch"""
_RENEW = """UPDATE nodes SET leased_until = clock_timestamp() + make_interval(secs => $3)
    WHERE node = $1 AND epoch = $2 AND leased_until > '-infinity' RETURNING 1"""
_EXPIRE = """WITH dead AS (
        SELECT node FROM nodes
        WHERE leased_until < clock_timestamp() AND leased_until > '-infinity' AND node <> $1 FOR UPDATE)
    UPDATE nodes SET leased_until = '-infinity' FROM dead WHERE nodes.node = dead.node
    RETURNING nodes.node || '/' || epoch"""
_FORGET = "DELETE FROM nodes WHERE leased_until = '-infinity'"
_LEAVE = "UPDATE nodes SET leased_until = '-infinity' WHERE node = $1 AND epoch = $2"
_NOBODYS = "holder NOT IN (SELECT node || '/' || epoch FROM nodes WHERE leased_until > '-infinity')"
_LOST_KEYS = f"SELECT tenant, scope FROM keys WHERE state = 'in_flight' AND {_NOBODYS}"  # noqa: S608 - a constant
_LOST_CALLS = f"SELECT tenant, owner FROM calls WHERE state = 'in_flight' AND {_NOBODYS}"  # noqa: S608 - a constant
_DOUBT_KEYS = f"""UPDATE keys SET state = 'unknown', settled_at = $3
    WHERE tenant = $1 AND scope = ANY($2::bytea[]) AND state = 'in_flight' AND {_NOBODYS}"""  # noqa: S608
_DOUBT_CALLS = f"""UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, $3),
    next_at = CASE WHEN in_doubt = 'manual' THEN NULL ELSE $3 END
    WHERE tenant = $1 AND owner = ANY($2::text[]) AND state = 'in_flight' AND {_NOBODYS}"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Nodes whose lease has run out since somebody last looked, and how much in flight is unknown now."""

    nodes: tuple[str, ...]
    keys: int
    calls: int


@dataclass(frozen=True, slots=True)
class Node:
    """One life of one gateway."""

    name: str
    epoch: int

    @property
    def holder(self) -> str:
        return f"{self.name}/{self.epoch}"

    @property
    def alive(self) -> str:
        """A query for the row of this life, which keeps it from being ended; renewing it is not kept off."""
        name = self.name.replace("'", "''")
        return (
            f"SELECT 1 FROM nodes WHERE node = '{name}' AND epoch = {self.epoch}"  # noqa: S608 - quoted
            " AND leased_until > '-infinity' FOR KEY SHARE"
        )


async def join(connection: asyncpg.Connection, name: str, seconds: float) -> Node:
    """Begin a life under this name; another one under it is over."""
    async with connection.transaction():
        await connection.execute(_HOLD, name)
        return Node(name, await connection.fetchval(_JOIN, name, seconds))


async def renew(connection: asyncpg.Connection, node: Node, seconds: float) -> bool:
    """False: this life is over, and what it held is somebody else's to find out about."""
    return bool(await connection.fetchval(_RENEW, node.name, node.epoch, seconds))


async def leave(connection: asyncpg.Connection, node: Node) -> None:
    """End this life now, so that nobody waits for its lease."""
    await connection.execute(_LEAVE, node.name, node.epoch)


async def take_over(connection: asyncpg.Connection, node: Node, now: float, *, expire: bool) -> TakenOver:
    """Make unknown what nobody holds any more, tenant by tenant; `now` is Unix time in seconds.

    With `expire`, others whose lease has run out are dead from now on; nobody says so of himself. The rows of the dead
    are deleted: an epoch begins at the database's time, so no later life under that name can be taken for theirs.
    """
    expired = await connection.fetch(_EXPIRE, node.name) if expire else []
    keys = await _doubt(connection, await connection.fetch(_LOST_KEYS), _DOUBT_KEYS, now)
    calls = await _doubt(connection, await connection.fetch(_LOST_CALLS), _DOUBT_CALLS, now)
    await connection.execute(_FORGET)
    return TakenOver(tuple(row[0] for row in expired), keys, calls)


async def _doubt(connection: asyncpg.Connection, lost: list[Any], statement: str, now: float) -> int:
    count = 0
    for tenant, rows in groupby(sorted(map(tuple, lost)), itemgetter(0)):
        told = await connection.execute(statement, tenant, [row[1] for row in rows], micros(now))
        count += int(told.rsplit(" ", 1)[-1])
    return count
