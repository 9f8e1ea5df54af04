"""`growth_time`: does the gateway hold more memory after a million requests than after the first?

The resident set after all requests on `durable`, each of which writes a vault row, over that after a tenth of them. The
vault holds half a million rows from the start, so that the page cache of SQLite is as full after that tenth as it will
ever be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.loader import Load
from bench.processes import resident_bytes
from bench.report import Row, at_most
from bench.stage import Size, Stage
from bench.vault import fill

IDS = ("growth_time",)
REQUESTS: Final[Mapping[Size, int]] = {"quick": 2_000, "usual": 1_000_000}
HELD: Final[Mapping[Size, int]] = {"quick": 5_000, "usual": 500_000}
"""Rows in the vault when time begins."""
SETTLED = 0.1
MOST = 5.0
"""Percent."""
CONNECTIONS = 16
_MIB = 1 << 20


async def measure(stage: Stage, rounds: int) -> list[Row]:  # noqa: ARG001 - time passes once
    vault = stage.folder / "used.db"
    with stage.nested() as first:
        first.pangate(store=vault)
    fill(vault, HELD[stage.size])
    proxy = stage.pangate(store=vault)
    requests = REQUESTS[stage.size]
    settled = int(requests * SETTLED)
    load = Load(stage.target(proxy, "/durable", policed=True))
    try:
        load.connect(CONNECTIONS)
        load.run(settled)
        before = resident_bytes(proxy.pids)
        load.run(requests - settled)
        return rows(before, resident_bytes(proxy.pids), requests)
    finally:
        load.close()


def rows(before: int, after: int, requests: int) -> list[Row]:
    """Resident bytes after a tenth of the requests, and after all."""
    note = f"{requests:,} requests; {before / _MIB:.1f} MiB after a tenth of them, {after / _MIB:.1f} MiB at the end"
    return [at_most("growth_time", (after - before) / before * 100, MOST, "% of memory", note)]
