"""What a PostgreSQL says of itself, asked over a session such as a gateway has."""

from __future__ import annotations

from typing import Final

from gateway.adapters.postgres_connections import Connection
from gateway.adapters.postgres_schema import read_schema
from gateway.pure.findings import Finding, judge_clocks, judge_postgres, judge_room

_SETTINGS: Final = """SELECT name, setting FROM pg_settings WHERE name IN ('server_version_num', 'fsync',
    'full_page_writes', 'synchronous_commit', 'transaction_read_only', 'server_encoding', 'data_checksums',
    'synchronous_standby_names', 'max_connections', 'superuser_reserved_connections')"""
_NODES: Final = """SELECT node, epoch, extract(epoch FROM leased_until - clock_timestamp())::float8 AS left
    FROM nodes WHERE leased_until > '-infinity' ORDER BY node"""


async def examine(connection: Connection, connections: int, now: float) -> list[Finding]:
    """`connections` are those of one gateway, `now` is Unix time."""
    settings: dict[str, str] = dict(map(tuple, await connection.fetch(_SETTINGS)))
    theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    schema = await read_schema(connection)
    complaint = schema.complaint()
    applied = f"{len(schema.applied) + len(schema.newer)} applied"
    findings = [
        *judge_postgres(settings),
        judge_room(int(settings["max_connections"]), int(settings["superuser_reserved_connections"]), connections),
        judge_clocks(theirs - now),
        Finding("migrations", applied, complaint or "the schema is that of this version", good=not complaint),
    ]
    if not schema.missing:
        for node in await connection.fetch(_NODES):
            told = "alive" if node["left"] > 0 else "its lease has run out: what it holds is about to be in doubt"
            findings.append(Finding("node", f"{node['node']} (epoch {node['epoch']})", told))
    return findings
