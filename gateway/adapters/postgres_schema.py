"""The schema on PostgreSQL: which migrations a database has seen, and applying those it has not.

Each is one transaction together with its own record, under the lock of one row: of several who migrate at the same time
one does, and the others find it done.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import asyncpg

from gateway.adapters.migrations import Migration, migrations

_RECORDS = """CREATE TABLE IF NOT EXISTS migrations (
    number integer NOT NULL PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
_JUST_MADE = (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.DuplicateTableError)
"""What IF NOT EXISTS says of what somebody else makes at the same moment."""
_LOCK_ROW = "INSERT INTO migrations (number, name, checksum) VALUES (0, 'lock', '') ON CONFLICT DO NOTHING"
_LOCK = "SELECT 1 FROM migrations WHERE number = 0 FOR UPDATE"
_APPLIED = "SELECT number, name, checksum FROM migrations WHERE number > 0 ORDER BY number"
_RECORD = "INSERT INTO migrations (number, name, checksum) VALUES ($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database has seen, against what this version knows. `altered`: applied from another script than ours;
    `newer`: numbers that this version does not know.
    """

    applied: tuple[Migration, ...]
    missing: tuple[Migration, ...]
    altered: tuple[Migration, ...]
    newer: tuple[int, ...]

    def complaint(self) -> str:
        """Why a gateway of this version must not use it, and what to do; empty if it may."""
        if self.altered:
            names = ", ".join(f"{found.number:04}_{found.name}" for found in self.altered)
            return f"migrations that were applied are not those of this version: {names}"
        if self.missing:
            return f"{len(self.missing)} migrations are missing: run `pangate migrate`"
        return ""


async def read_schema(connection: asyncpg.Connection) -> Schema:
    """What a database has seen. One migration more than are known is that of a version to come, and no hindrance."""
    known = {found.number: found for found in migrations("postgres")}
    exists = await connection.fetchval("SELECT to_regclass('migrations')")
    rows = await connection.fetch(_APPLIED) if exists is not None else []
    applied = tuple(known[row["number"]] for row in rows if row["number"] in known)
    sums = {row["number"]: row["checksum"] for row in rows}
    return Schema(
        applied=applied,
        missing=tuple(found for number, found in known.items() if number not in sums),
        altered=tuple(found for found in applied if sums[found.number] != found.checksum),
        newer=tuple(number for number in sums if number not in known),
    )


async def migrate(connection: asyncpg.Connection) -> tuple[Migration, ...]:
    """Apply what is missing; what was applied. Raises ValueError if the database is not one to go on with."""
    with contextlib.suppress(*_JUST_MADE):
        await connection.execute(_RECORDS)
    await connection.execute(_LOCK_ROW)
    applied: list[Migration] = []
    for migration in (await read_schema(connection)).missing:
        async with connection.transaction():
            await connection.execute(_LOCK)
            schema = await read_schema(connection)
            if schema.altered:
                raise ValueError(schema.complaint())
            if migration in schema.missing:
                await connection.execute(migration.script)
                await connection.execute(_RECORD, migration.number, migration.name, migration.checksum)
                applied.append(migration)
    return tuple(applied)
