"""Keeps a gateway among the living, where several share a store, and finds what the others leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.ports import Clock, Telemetry, Unavailable

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
        """Live on for the length of a lease; False: others took this gateway for dead."""
        ...

    async def rejoin(self) -> None:
        """Live anew."""
        ...

    async def take_over(self) -> TakenOver:
        """Put in doubt what nobody holds any more."""
        ...


class LeaseKeeper:
    """One loop. `held` is by our own clock, and runs out before the lease does by the store's."""

    def __init__(
        self,
        store: SharedStore,
        clock: Clock,
        telemetry: Telemetry,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._sleep = sleep
        self._until = clock.monotonic() + store.lease

    @property
    def held(self) -> bool:
        """Nobody can have taken this gateway for dead yet."""
        return self._clock.monotonic() < self._until

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(self._store.lease / ROUNDS_PER_LEASE)
            await self.step()

    async def step(self) -> None:
        """Renew the lease, or begin a new life; then look for what others left. A store that is away is asked again."""
        began = self._clock.monotonic()
        try:
            if not await self._store.renew():
                self._telemetry.log("lease_lost", level="error")
                began = self._clock.monotonic()
                await self._store.rejoin()
            self._until = began + self._store.lease
            found = await self._store.take_over()
        except Unavailable:
            self._telemetry.log("lease_not_renewed", level="warning", held=self.held)
            return
        if found.nodes or found.keys or found.calls:
            nodes = list(found.nodes)
            self._telemetry.log("taken_over", level="warning", nodes=nodes, keys=found.keys, calls=found.calls)
