"""Power fails at any write or sync of the store: what was answered is there, and a unit is there whole or not at all.

One store is written to by many at once, through check-points and resets of its log. At random writes the disk is asked
what could be left of it, several times; each of those disks is opened as the next boot would, and counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.operations import Candidate, ClaimKey, FinishKey, Operation, PutDelivery, PutToken, Row
from tests.faults.disk import Disk
from tests.faults.machine import EPOCH, Clock, Mute
from tests.faults.simulation import ScheduledWriter, Simulation

CLIENTS = 8
BODY_BYTES = (200, 20_000, 150_000)
"""Of the deliveries: large ones fill the log, so that it is copied into the file and begun again."""
WRITES_BETWEEN_MOMENTS = 120
MOMENTS_AT_A_TIME = 80
"""Of one run, at most: a store that grows takes longer to be looked through."""
IMAGES = 3
"""Disks that are drawn at each moment."""
_TENANT = "faults"


@dataclass(frozen=True, slots=True)
class Tally:
    """`copying` moments fell into a check-point. `lost` units were answered, `torn` ones are there in part; `damaged`
    disks do not open, or fail their check.
    """

    moments: int = 0
    copying: int = 0
    images: int = 0
    units: int = 0
    lost: int = 0
    torn: int = 0
    damaged: int = 0

    def __add__(self, other: Tally) -> Tally:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Tally(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def harm(self) -> int:
        return self.lost + self.torn + self.damaged


class Outage:
    """A store under load, and what the clients were answered so far."""

    def __init__(self, seed: int, moments: int, path: Path, spoil: Callable[[SqliteStore], object]) -> None:
        self._loop = Simulation(seed)  # type: ignore[abstract]
        self._path = path
        self._spoil = spoil
        self._left = moments
        self._names = (f"{id(self)}-{n}" for n in itertools.count())
        self._disk = Disk(next(self._names))
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self.tally = Tally()

    def run(self) -> Tally:
        try:
            self._loop.run(self._live())
        finally:
            self._disk.remove()
        return self.tally + Tally(units=len(self._begun) + len(self._finished))

    async def _live(self) -> None:
        self._set_fuse()
        store = self._open(self._disk)
        self._spoil(store)
        self._look()
        self._loop.after_step = self._look
        numbers = itertools.count()
        clients = [self._loop.create_task(self._client(store, numbers)) for _ in range(CLIENTS)]
        for client in clients:
            await client
        self._loop.after_step = lambda: None
        await store.close()

    async def _client(self, store: SqliteStore, numbers: Iterator[int]) -> None:
        rng = self._loop.rng
        while self._left > 0:
            number = next(numbers)
            await store.commit(_begin(number, rng.randbytes(rng.choice(BODY_BYTES))))
            self._begun.add(number)
            await asyncio.sleep(rng.random() * 0.01)
            await store.commit(_finish(number))
            self._finished.add(number)

    def _open(self, disk: Disk) -> SqliteStore:
        writer = ScheduledWriter(self._loop, 0.002)
        return open_sqlite(str(self._path), clock=Clock(self._loop), telemetry=Mute(), vfs=disk.name, writer=writer)

    def _set_fuse(self) -> None:
        self._disk.fuse(1 + int(self._loop.rng.random() * WRITES_BETWEEN_MOMENTS))

    def _look(self) -> None:
        """If the fuse has gone: nobody was answered since, so that what was answered by now has to be there."""
        if self._left <= 0 or not self._disk.blown:
            return
        for _ in range(IMAGES):
            image = Disk(next(self._names), self._disk.after_power_loss(self._loop.rng))
            try:
                self.tally += self._count(image)
            finally:
                image.remove()
        copying = bool(self._disk.after_kill()[str(self._path)].unsynced)
        self.tally += Tally(moments=1, copying=copying)
        self._left -= 1
        self._set_fuse()

    def _count(self, image: Disk) -> Tally:
        try:
            db = self._open(image)._db
            if db.pragma("integrity_check") != "ok":
                return Tally(images=1, damaged=1)
            keys = {int(scope): state for scope, state in db.execute("SELECT scope, state FROM keys")}
            tokens = {int(token) for (token,) in db.execute("SELECT token FROM tokens")}
            deliveries = {int(number) for (number,) in db.execute("SELECT id FROM deliveries")}
            db.close()
        except (ValueError, apsw.Error):
            return Tally(images=1, damaged=1)
        whole = keys.keys() & tokens & deliveries
        torn = (keys.keys() | tokens | deliveries) - whole
        done = {number for number, state in keys.items() if state == "done"}
        lost = len(self._begun - whole) + len(self._finished - done)
        return Tally(images=1, lost=lost, torn=len(torn))


def _begin(number: int, body: bytes) -> Sequence[Operation[Row]]:
    name = f"{number}"
    return (
        ClaimKey(_TENANT, name.encode(), b"fingerprint", name, EPOCH),
        PutToken(_TENANT, "pan", "opaque", None, lambda _: Candidate(name, b"sealed"), EPOCH),
        PutDelivery(_TENANT, name, "hooks", "standard", name, b"digest", body, EPOCH),
    )


def _finish(number: int) -> Sequence[Operation[Row]]:
    name = f"{number}"
    return (FinishKey(_TENANT, name.encode(), name, lambda _: b"201", EPOCH, EPOCH + 1),)


def attack(seed: int, moments: int) -> Tally:
    """The promise: whatever the tally holds, its `harm` is 0."""
    return _attack(seed, moments, lambda store: None)


def control(seed: int, moments: int, synchronous: str) -> Tally:
    """The same with a store that does not wait for the disk, as OFF and (in the log) NORMAL do not."""
    return _attack(seed, moments, lambda store: store._db.pragma("synchronous", synchronous))


def _attack(seed: int, moments: int, spoil: Callable[[SqliteStore], object]) -> Tally:
    with tempfile.TemporaryDirectory(prefix="pangate-power-") as folder:
        return Outage(seed, moments, Path(folder, "power.db"), spoil).run()
