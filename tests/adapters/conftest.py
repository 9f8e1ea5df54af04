"""The stores that one suite holds to the same promises. A new store is one more parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.sqlite import open_sqlite
from gateway.ports import Store
from tests.conftest import HandClock, Recorder


@pytest.fixture(params=["sqlite in memory", "sqlite in a file"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock, telemetry: Recorder
) -> AsyncIterator[Store]:
    path = ":memory:" if request.param == "sqlite in memory" else str(tmp_path / "var" / "pangate.db")
    store = open_sqlite(path, clock=clock, telemetry=telemetry)
    yield store
    await store.close()
