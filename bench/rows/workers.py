"""`workers`: what a request costs when two workers serve, beside what it costs one process alone.

All do the work of `known` (mutual TLS and an access token). Two workers and their supervisor are on one core, as the
one process is; loader, backend and PostgreSQL on the other. What is compared is CPU, of all processes together, not how
much gets through. Judged is what a second worker is for: each of the two has as many connections as the one had.
`workers_shared` divides the one's connections between them, half for each, which costs more and has no goal.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Mapping

from bench.loader import Target
from bench.report import Row, at_most
from bench.rounds import Samples, Variant, median, play, ratio
from bench.stage import CONFIG, Proxy, Stage, post, right
from tests.postgres import running_postgres

IDS = ("workers",)
CONNECTIONS = 32
"""Of the one process, and of each worker where the row is judged."""
REQUESTS = 16_000
MOST = 1.1
_CONFIG = CONFIG.parent / "workers" / "config.yaml"
_READY_SECONDS = 60.0


async def measure(stage: Stage, rounds: int) -> list[Row]:
    with running_postgres() as server, stage.nested() as gateways:
        store = await asyncio.to_thread(server.migrated)
        one, two = (_started(gateways, workers, store) for workers in (1, 2))
        request = post("/known", f"Authorization: Bearer {stage.token()}\r\n")

        def variant(name: str, proxy: Proxy, connections: int) -> Variant:
            return Variant(name, proxy, Target(proxy.port, stage.context, request, right), connections, REQUESTS)

        variants = [
            variant("workers_1", one, CONNECTIONS),
            variant("workers_2", two, 2 * CONNECTIONS),
            variant("workers_shared", two, CONNECTIONS),
        ]
        return rows(play(variants, rounds))


def rows(found: Mapping[str, Samples]) -> list[Row]:
    """The ratio is judged; the costs stand below it."""
    return [
        at_most("workers", ratio(found, "workers_2", "workers_1"), MOST, "times", "two workers, CPU/request of one"),
        Row(
            "workers_shared", ratio(found, "workers_shared", "workers_1"), "times", note="the one's connections divided"
        ),
        *(Row(f"{name}_cost", median(found, name), "us CPU/request") for name in found),
    ]


def _started(gateways: Stage, workers: int, store: str) -> Proxy:
    proxy = gateways.pangate(_CONFIG, f"workers_{workers}", BENCH_WORKERS=str(workers), BENCH_POSTGRES=store)
    _await_workers(proxy, workers)
    return proxy


def _await_workers(proxy: Proxy, workers: int) -> None:
    """Until all serve: starting one costs more than many requests. Raises RuntimeError."""
    deadline = time.monotonic() + _READY_SECONDS
    while workers > 1 and _serving(proxy.admin) < workers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{proxy.name}: not all workers serve")
        time.sleep(0.1)


def _serving(admin: int) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
            found = re.search(rb"^pangate_workers ([0-9.]+)$", answer.read(), re.MULTILINE)
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0
