"""Migrations: each is applied once, by one, and a gateway uses no database that is not as it knows it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import adapters
from gateway.adapters.migrations import migrations
from gateway.adapters.postgres_connections import Address
from gateway.adapters.postgres_schema import migrate, read_schema
from tests.conftest import HandClock, Recorder
from tests.postgres import connect, database, open_store


@pytest.fixture
async def address(postgres_address: Address) -> AsyncIterator[Address]:
    async with database(postgres_address, "migrated") as address:
        yield address


async def test_what_is_missing_is_applied_once(address: Address) -> None:
    connection = await connect(address)
    assert (await read_schema(connection)).missing == migrations("postgres")
    assert await migrate(connection) == migrations("postgres")
    assert await migrate(connection) == ()
    schema = await read_schema(connection)
    assert (schema.applied, schema.missing, schema.complaint()) == (migrations("postgres"), (), "")
    await connection.close()


async def test_of_several_who_migrate_at_once_each_script_is_applied_by_one(address: Address) -> None:
    connections = [await connect(address) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(connection) for connection in connections))
    by_whom = sorted(itertools.chain(*applied), key=lambda migration: migration.number)
    assert tuple(by_whom) == migrations("postgres")
    for connection in connections:
        await connection.close()


async def test_a_gateway_uses_no_database_that_was_not_migrated(
    address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    with pytest.raises(ValueError, match="run `pangate migrate`"):
        await open_store(address, clock, telemetry)


async def test_a_script_that_was_changed_after_it_was_applied_is_told(
    address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    connection = await connect(address)
    await migrate(connection)
    await connection.execute("UPDATE migrations SET checksum = 'other' WHERE number = 1")
    with pytest.raises(ValueError, match="not those of this version: 0001_store"):
        await open_store(address, clock, telemetry)
    await connection.close()


async def test_a_migration_of_a_version_to_come_is_no_hindrance(
    address: Address, clock: HandClock, telemetry: Recorder
) -> None:
    connection = await connect(address)
    await migrate(connection)
    await connection.execute("INSERT INTO migrations (number, name, checksum) VALUES (9999, 'later', 'x')")
    assert (await read_schema(connection)).newer == (9999,)
    await connection.close()
    await (await open_store(address, clock, telemetry)).close()


LACKING = re.compile(
    r"pg_(?:try_)?advisory|pg_notify|\bLISTEN\b|\bNOTIFY\b|\bnextval\b|\b(?:big|small)?serial\b|\bSEQUENCE\b"
    r"|AS IDENTITY|\bLOCK TABLE\b|\bTEMP(?:ORARY)? TABLE\b"
)


def test_no_statement_needs_what_distributed_postgresqls_lack() -> None:
    """Such as Citus, CockroachDB and YugabyteDB, behind poolers that share connections."""
    (folder,) = adapters.__path__
    texts = [*Path(folder).glob("*.py"), *Path(folder).glob("migrations/postgres/*.sql")]
    assert len(texts) > 30
    assert [(text.name, found[0]) for text in texts for found in LACKING.finditer(text.read_text("utf-8"))] == []
