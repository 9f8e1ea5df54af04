"""Keeps a gateway among the living, where several share a store, and finds what the others leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.ports import Telemetry, Unavailable
from gateway.pure.leases import Lease

ROUNDS_PER_LEASE: Final = 3
"""A lease is renewed that often before it would run out."""


class TakenOver(Protocol):
    """Nodes that are dead, and how many keys and calls are in doubt for it."""

    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def keys(self) -> int: ...
    @property
    def calls(self) -> int: ...


class SharedStore(Protocol):
    """A store that several gateways write to. Each method raises `Unavailable`."""

    @property
    def lease(self) -> float:
        """Seconds."""
        ...

    async def renew(self) -> bool:
        """Live on for the length of a lease; False: others took this gateway for dead, for good."""
        ...

    async def take_over(self, *, expire: bool) -> TakenOver:
        """Put in doubt what nobody holds any more; with `expire`, those are dead whose lease has run out."""
        ...


class LeaseKeeper:
    """One loop; implements `ports.Lease`. `clock` goes on while the machine sleeps.

    `ended` is called when others took this gateway for dead: what it had in flight is theirs, and it can write nothing
    any more. It has to begin a new life, and nothing of the old one must reach into that.
    """

    def __init__(
        self,
        store: SharedStore,
        clock: Callable[[], float],
        telemetry: Telemetry,
        ended: Callable[[], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._ended = ended
        self._sleep = sleep
        self._lease = Lease(store.lease)

    def holds(self) -> bool:
        """Nobody can have taken this gateway for dead yet."""
        return self._lease.holds(self._clock())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await self._sleep(self._store.lease / ROUNDS_PER_LEASE)

    async def step(self) -> None:
        """Renew the lease, then look for what others left. A store that is away is asked again."""
        try:
            if not await self._renewed():
                return
            found = await self._store.take_over(expire=self._lease.may_take_over(self._clock()))
        except Unavailable:
            self._telemetry.log("lease_not_renewed", level="warning", holds=self.holds())
            return
        if found.nodes or found.keys or found.calls:
            nodes = list(found.nodes)
            self._telemetry.log("taken_over", level="warning", nodes=nodes, keys=found.keys, calls=found.calls)

    async def _renewed(self) -> bool:
        asked_at = self._clock()
        if await self._store.renew():
            self._lease.renewed(asked_at)
            return True
        self._lease.lost()
        self._telemetry.log("lease_lost", level="error")
        self._ended()
        return False
