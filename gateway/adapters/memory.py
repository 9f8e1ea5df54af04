"""Counters and security codes of one process. Bounded; nothing runs in the background: the past is swept in passing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gateway.ports import Clock, Decision, Hit, Unavailable
from gateway.pure import velocity
from gateway.pure.gcra import SECOND, Room, State, decide
from gateway.pure.velocity import Tallied, Tally

COUNTERS_MAX = 100_000
"""Limits that are not whole at one time, in one process; about 30 MiB."""
USES_MAX = 250_000
"""First uses remembered at one time, in one process; about 80 MiB."""
MEMBERS_MAX = 500_000
"""Remembered in all windows of one process together; about 150 MiB."""
CODES_BYTES = 256 * 1024**2
"""For security codes, in one process: an hour of 165 codes a second that nobody reveals."""
CODE_BYTES = 450
"""What one takes, with all that is kept about it."""
_SWEPT_AT_ONCE = 16
_LEFT_ALONE = SECOND
"""A limit that is whole again is swept only after this time: a busy caller's would come back at once."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Expiring(Generic[K, V]):
    """A bounded dict of values that end at a time. `drop` sees each value that ended or was taken out."""

    def __init__(self, most: int, drop: Callable[[V], None]) -> None:
        self._most = most
        self._drop = drop
        self._entries: dict[K, tuple[float, V]] = {}
        self._ends: list[tuple[float, K]] = []
        """A heap with at least one element per entry, never later than the entry's true end."""

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K, now: float) -> V | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > now else None

    def put(self, key: K, value: V, ends: float) -> None:
        """The caller made room, and drops the value that this one replaces."""
        if key not in self._entries:
            heapq.heappush(self._ends, (ends, key))
        self._entries[key] = (ends, value)

    def remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._drop(entry[1])
        if len(self._ends) > 2 * len(self._entries) + _SWEPT_AT_ONCE:
            self._ends = [(ends, key) for key, (ends, _) in self._entries.items()]
            heapq.heapify(self._ends)

    def sweep(self, now: float) -> None:
        """Drop some of what ended: more than one entry can add, so that the past does not pile up."""
        if self._ends and self._ends[0][0] <= now:
            for _ in range(_SWEPT_AT_ONCE):
                self._sweep_one(now)

    def make_room(self, new: int, now: float) -> bool:
        """Whether `new` more entries fit, after dropping what ended."""
        while len(self._entries) + new > self._most:
            if not self._sweep_one(now):
                return False
        return True

    def _sweep_one(self, now: float) -> bool:
        if not self._ends or self._ends[0][0] > now:
            return False
        _, key = heapq.heappop(self._ends)
        entry = self._entries.get(key)
        if entry is not None and entry[0] > now:
            heapq.heappush(self._ends, (entry[0], key))
        elif entry is not None:
            del self._entries[key]
            self._drop(entry[1])
        return True


class MemoryShared:
    """Counters and first uses of this process alone.

    When `most` limits are in use at once, requests that would need one more get `Unavailable`: to forget a live
    counter instead would let whoever fills the table reset the limits of everybody. First uses have a table of their
    own, by the same rule: what is forgotten before its time could be used again.
    """

    def __init__(self, clock: Clock, most: int = COUNTERS_MAX, uses: int = USES_MAX) -> None:
        self._clock = clock
        self._states: _Expiring[str, State] = _Expiring(most, lambda _: None)
        self._uses: _Expiring[str, float] = _Expiring(uses, lambda _: None)
        self._windows: _Expiring[str, velocity.State] = _Expiring(most, self._forget)
        self._members = 0

    @property
    def local(self) -> MemoryShared:
        return self

    def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        states = self._states
        now = round(self._clock.monotonic() * SECOND)
        rulings = decide(hits, [states.get(hit.key, now) or () for hit in hits], now)
        new = [hit.key for hit, ruling in zip(hits, rulings, strict=True) if ruling.state and hit.key not in states]
        if new:
            states.sweep(now - _LEFT_ALONE)
            if not states.make_room(len(new), now):
                raise Unavailable("shared")
        for hit, ruling in zip(hits, rulings, strict=True):
            if ruling.state is not None:
                states.put(hit.key, ruling.state, now + ruling.room.reset_after)
        return [decision(ruling.allowed, ruling.room) for ruling in rulings]

    def tally(self, tallies: Sequence[Tally]) -> Sequence[Tallied]:
        windows = self._windows
        now = round(self._clock.monotonic() * SECOND)
        windows.sweep(now)
        new = sum(tally.key not in windows for tally in tallies)
        if self._members + len(tallies) > MEMBERS_MAX or not windows.make_room(new, now):
            raise Unavailable("shared")
        rulings = velocity.decide(tallies, [windows.get(tally.key, now) or () for tally in tallies], now)
        for tally, ruling in zip(tallies, rulings, strict=True):
            self._keep(tally, ruling.state)
        return [Tallied(ruling.allowed, ruling.retry_after / SECOND) for ruling in rulings]

    def take_back(self, tallies: Sequence[Tally]) -> None:
        now = round(self._clock.monotonic() * SECOND)
        for tally in tallies:
            self._keep(tally, velocity.without(self._windows.get(tally.key, now) or (), tally.member))

    def _keep(self, tally: Tally, state: velocity.State) -> None:
        self._windows.remove(tally.key)
        if state:
            self._members += len(state)
            self._windows.put(tally.key, state, state[-1].time + tally.period)

    def _forget(self, state: velocity.State) -> None:
        self._members -= len(state)

    def first_use(self, keys: Sequence[str], seconds: float) -> bool:
        uses = self._uses
        now = self._clock.monotonic()
        uses.sweep(now)
        if any(uses.get(key, now) is not None for key in keys):
            return False
        if not uses.make_room(sum(key not in uses for key in keys), now):
            raise Unavailable("shared")
        for key in keys:
            uses.put(key, now, now + seconds)
        return True

    async def close(self) -> None:
        """Nothing to close."""


def decision(allowed: bool, room: Room) -> Decision:
    """The port's record of a ruling."""
    return Decision(allowed, room.remaining, room.reset_after / SECOND, room.retry_after / SECOND)


@dataclass(slots=True)
class _Code:
    value: bytearray = field(repr=False)
    holder: str | None = None

    def wipe(self) -> None:
        self.value[:] = bytes(len(self.value))


class MemorySad:
    """Security codes of this process alone.

    A code that ended is never handed out; its bytes are overwritten when it is erased, or by the next calls after its
    time. Copies that were handed out are the caller's to forget.
    """

    def __init__(self, clock: Clock, room: int = CODES_BYTES) -> None:
        """`room` in bytes."""
        self._clock = clock
        self._codes: _Expiring[tuple[str, str], _Code] = _Expiring(room // CODE_BYTES, _Code.wipe)

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        now = self._now()
        self._codes.remove((tenant, token))
        if not self._codes.make_room(1, now):
            raise Unavailable("sad")
        self._codes.put((tenant, token), _Code(bytearray(value)), now + seconds)

    async def lease(self, tenant: str, token: str, exchange: str) -> bytes | None:
        code = self._codes.get((tenant, token), self._now())
        if code is None or code.holder not in (None, exchange):
            return None
        code.holder = exchange
        return bytes(code.value)

    async def give_back(self, tenant: str, token: str, exchange: str) -> None:
        code = self._codes.get((tenant, token), self._now())
        if code is not None and code.holder == exchange:
            code.holder = None

    async def erase(self, tenant: str, token: str, exchange: str) -> None:
        code = self._codes.get((tenant, token), self._now())
        if code is not None and code.holder == exchange:
            self._codes.remove((tenant, token))

    def _now(self) -> float:
        now = self._clock.monotonic()
        self._codes.sweep(now)
        return now
