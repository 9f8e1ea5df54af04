"""The stores that one suite holds to the same promises. A new store is one more parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.sqlite import open_sqlite
from gateway.ports import Store
from tests.conftest import HandClock, Recorder
from tests.postgres import empty, open_store, postgres_address, postgres_server

__all__ = ["postgres_address", "postgres_server"]


@pytest.fixture(params=["sqlite in memory", "sqlite in a file", "postgres"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> AsyncIterator[Store]:
    store: Store
    if request.param == "postgres":
        address = request.getfixturevalue("postgres_address")
        store = await open_store(address, clock, telemetry)
        yield store
        await store.close()
        await empty(address)
        return
    path = ":memory:" if request.param == "sqlite in memory" else str(tmp_path / "var" / "pangate.db")
    store = open_sqlite(path, clock=clock, telemetry=telemetry)
    yield store
    await store.close()
