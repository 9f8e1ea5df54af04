"""Rolling restarts of four workers under callers who keep their connections and never stop asking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.crowd import ANSWER, Crowd
from tests.e2e.workers_world import Street, roll
from tests.faults.programs import PRODUCT
from tests.postgres import running_postgres
from tests.upstreams import answering, scripted

WORKERS = 4
CALLERS = 500
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Rolled:
    """`harm`: requests that failed, and connections that were reset or refused."""

    restarts: int
    requests: int
    harm: int


def attack(folder: Path, restarts: int, program: Sequence[str] = PRODUCT) -> Rolled:
    """So many restarts, each of all workers; none begins before the one before it is over."""
    make_dev_certificates(folder / "certs")
    with running_postgres() as server:
        street = Street.laid_out(folder, folder / "certs" / "services-ca.pem", server.migrated(), program)
        return asyncio.run(_attack(street, restarts))


async def _attack(street: Street, restarts: int) -> Rolled:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, WORKERS) as gateway:
        crowd = Crowd(gateway.ports["edge"], CALLERS, PAUSE_SECONDS)
        await crowd.asked(CALLERS)
        await roll(gateway, restarts)
        await crowd.leaves()
    return Rolled(restarts, crowd.answered, crowd.harm)
