"""What a gateway does to stay among the living."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.ports import Unavailable
from gateway.pure.leases import SURE
from gateway.workers.lease import LeaseKeeper
from tests.conftest import HandClock, Recorder


@dataclass
class Found:
    nodes: tuple[str, ...] = ()
    keys: int = 0
    calls: int = 0


@dataclass
class Leases:
    """A store as far as leases go, with a clock that time passes on while it is asked."""

    clock: HandClock
    lease: float = 15.0
    alive: bool = True
    away: bool = False
    takes: float = 0.0
    ended: int = 0
    found: Found = field(default_factory=Found)
    expired: list[bool] = field(default_factory=list)

    async def renew(self) -> bool:
        self.clock.advance(self.takes)
        if self.away:
            raise Unavailable("store")
        return self.alive

    def end(self) -> None:
        self.ended += 1

    async def take_over(self, *, expire: bool) -> Found:
        self.expired.append(expire)
        return self.found


@pytest.fixture
def leases(clock: HandClock) -> Leases:
    return Leases(clock)


@pytest.fixture
def keeper(leases: Leases, clock: HandClock, telemetry: Recorder) -> LeaseKeeper:
    return LeaseKeeper(leases, clock.monotonic, telemetry, leases.end)


async def test_a_lease_counts_from_before_it_was_asked_for(
    leases: Leases, keeper: LeaseKeeper, clock: HandClock
) -> None:
    leases.takes = 4.0
    await keeper.step()
    clock.advance(15 * SURE - 4.1)
    assert keeper.holds()
    clock.advance(0.1)
    assert not keeper.holds()


async def test_a_store_that_is_away_costs_the_lease_in_the_end_and_no_sooner(
    leases: Leases, keeper: LeaseKeeper, clock: HandClock, telemetry: Recorder
) -> None:
    await keeper.step()
    leases.away = True
    clock.advance(15 * SURE - 0.1)
    await keeper.step()
    assert keeper.holds()
    clock.advance(0.1)
    await keeper.step()
    assert not keeper.holds()
    assert [line["holds"] for line in telemetry.lines] == [True, False]
    leases.away = False
    await keeper.step()
    assert keeper.holds()


async def test_a_gateway_that_was_taken_for_dead_is_ended_and_buries_nobody(
    leases: Leases, keeper: LeaseKeeper, telemetry: Recorder
) -> None:
    await keeper.step()
    leases.alive = False
    await keeper.step()
    assert (leases.ended, keeper.holds(), leases.expired) == (1, False, [False])
    assert [line["event"] for line in telemetry.lines] == ["lease_lost"]


async def test_what_others_left_is_told(leases: Leases, keeper: LeaseKeeper, telemetry: Recorder) -> None:
    await keeper.step()
    assert telemetry.lines == []
    leases.found = Found(("b/1",), keys=2, calls=1)
    await keeper.step()
    (line,) = telemetry.lines
    assert (line["event"], line["nodes"], line["keys"], line["calls"]) == ("taken_over", ["b/1"], 2, 1)


async def test_a_lease_is_renewed_three_times_before_it_runs_out_and_others_are_buried_late(
    leases: Leases, clock: HandClock, telemetry: Recorder
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)
        if len(slept) == 6:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await LeaseKeeper(leases, clock.monotonic, telemetry, leases.end, sleep).run()
    assert slept == [5.0] * 6
    assert leases.expired == [False] * 5 + [True]
