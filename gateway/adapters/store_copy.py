"""A store of SQLite into one of PostgreSQL, row by row, each compared when it is there.

What is there already is compared as well and not written again: so a copy that was broken off goes on when it is asked
for once more, and one that is whole is only looked over.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final

import apsw
import asyncpg

BATCH: Final = 500
_TABLES: Final = {
    "vault_keys": "tenant purpose version",
    "vault_rewraps": "tenant",
    "tokens": "tenant token",
    "reveals": "tenant exchange position",
    "audit": "tenant chain sequence",
    "audit_ends": "tenant chain mark",
    "keys": "tenant scope",
    "deliveries": "tenant id",
    "payments": "tenant id",
    "payment_aliases": "tenant upstream alias",
    "reservations": "tenant owner",
    "facts": "tenant id",
    "calls": "tenant owner",
    "outbox": "tenant id",
}
"""By what their rows are known."""
_FACTS: Final = uuid.UUID("6f2d6c5c-0d5b-4c0e-9d5e-5a1f7b0f2c11")
"""The name space of facts, which have a number alone in SQLite."""
_MADE: Final = {"keys": "holder", "calls": "holder"}
"""What PostgreSQL has besides: nobody holds what is copied."""
_TYPES: Final = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped"""
_ALIVE: Final = "SELECT count(*) FROM nodes WHERE leased_until > clock_timestamp()"

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """Of one table: rows that are the same in both now, and how many of them were written by this run."""

    table: str
    rows: int
    written: int


async def copy_store(db: apsw.Connection, connection: asyncpg.Connection) -> AsyncIterator[Copied]:
    """Table by table, a transaction for each tenant's batch of rows.

    Nobody else may write to either. Raises ValueError when a gateway uses the target, or a row of it is another.
    """
    if await connection.fetchval(_ALIVE):
        raise ValueError("a gateway uses the database: stop it, or wait until its lease has run out")
    for table, key in _TABLES.items():
        copier = _Copier(db, connection, table, key.split())
        await copier.prepare()
        yield await copier.copy()


class _Copier:
    def __init__(self, db: apsw.Connection, connection: asyncpg.Connection, table: str, key: Sequence[str]) -> None:
        self._db = db
        self._connection = connection
        self._table = table
        self._key = key
        self._columns = [str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")]
        self._made = [_MADE[table]] if table in _MADE else []
        if table == "facts":
            self._made = ["id", "position"]

    async def prepare(self) -> None:
        """The statements, by the types of the target."""
        types: dict[str, str] = dict(map(tuple, await self._connection.fetch(_TYPES, self._table)))
        columns = [*self._columns, *self._made]
        arrays = ", ".join(f"${n}::{types[column]}[]" for n, column in enumerate(columns, 1))
        keys = ", ".join(f"${n}::{types[column]}[]" for n, column in enumerate(self._key, 1))
        self._insert = f"""INSERT INTO {self._table} ({", ".join(columns)})
            SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING RETURNING 1"""
        self._look = f"""SELECT {", ".join(columns)} FROM {self._table}
            JOIN unnest({keys}) AS wanted ({", ".join(self._key)}) USING ({", ".join(self._key)})"""
        self._at = [columns.index(name) for name in self._key]

    async def copy(self) -> Copied:
        rows = written = 0
        for batch in self._batches():
            async with self._connection.transaction():
                new = await self._connection.fetch(self._insert, *map(list, zip(*batch, strict=True)))
                there = await self._there(batch)
            different = [row for row in batch if there.get(self._key_of(row)) != row]
            if different:
                named = ", ".join(
                    f"{name} {value!r}" for name, value in zip(self._key, self._key_of(different[0]), strict=True)
                )
                raise ValueError(f"{self._table}: another row is there already, or none: {named}")
            rows, written = rows + len(batch), written + len(new)
        return Copied(self._table, rows, written)

    def _batches(self) -> Iterator[list[Row]]:
        """In the order of tenants, of one tenant each."""
        order = "rowid" if self._table == "facts" else ", ".join(self._key)
        found = self._db.execute(
            f"SELECT {'rowid, ' if self._table == 'facts' else ''}{', '.join(self._columns)} FROM {self._table} "
            f"ORDER BY tenant, {order}"
        )
        rows = (self._made_whole(row) for row in found)
        for _, of_tenant in groupby(rows, itemgetter(0)):
            while batch := list(islice(of_tenant, BATCH)):
                yield batch

    def _made_whole(self, row: Row) -> Row:
        if self._table == "facts":
            number, *columns = row
            return (*columns, uuid.uuid5(_FACTS, str(number)), number)
        return (*row, *("" for _ in self._made))

    async def _there(self, batch: Sequence[Row]) -> dict[Row, Row]:
        keys = [self._key_of(row) for row in batch]
        found = await self._connection.fetch(self._look, *map(list, zip(*keys, strict=True)))
        return {self._key_of(tuple(row)): tuple(row) for row in found}

    def _key_of(self, row: Row) -> Row:
        return tuple(row[n] for n in self._at)
