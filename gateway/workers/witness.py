"""Says in the audit chain when this process began and ended, and in the log where all chains end.

The log leaves the machine; the database may be put back to an earlier day by whoever holds it, with heads and all. The
heads in the log are what shows that (`pangate audit verify --against`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from gateway.operations import ListChains, RecordAudit
from gateway.ports import Clock, Keys, Store, Telemetry, Unavailable
from gateway.pure.audit import GATEWAY, End, Entry, Event, Place


class Witness:
    """One per process; `run` is for the one that leads."""

    def __init__(self, store: Store, keys: Keys, clock: Clock, telemetry: Telemetry) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._telemetry = telemetry
        self._told: dict[Place, End] = {}

    async def began(self, digest: str) -> None:
        """This process records from now on, under the configuration of this digest. Raises `Unavailable`."""
        await self._record("started", f"configuration {digest}")

    async def ended(self) -> None:
        """Nothing more is recorded by this process. A store that is away does not hear of it."""
        with contextlib.suppress(Unavailable):
            await self._record("stopped", "")

    async def _record(self, event: Event, purpose: str) -> None:
        entry = Entry(event, round(self._clock.now() * 1_000_000), purpose=purpose)
        await self._store.commit([RecordAudit(GATEWAY, self._keys.mac(GATEWAY, "audit"), (entry,))])

    async def run(self, interval: float = 300.0, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Log the head of each chain that went on, every `interval` seconds until cancelled."""
        while True:
            with contextlib.suppress(Unavailable):
                await self.tell()
            await sleep(interval)

    async def tell(self) -> None:
        """Log the heads that were not logged yet. Raises `Unavailable`."""
        listing = ListChains(None)
        for ends in (await self._store.commit([listing]))[listing].chains:
            place, head = ends.place, ends.head
            if self._told.get(place) != head:
                self._told[place] = head
                self._telemetry.log(
                    "audit_head", tenant=place.tenant, chain=place.chain, sequence=head.sequence, mac=head.mac.hex()
                )
