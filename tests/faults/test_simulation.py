"""The simulation is fair, repeats itself exactly, and finds what is broken; the product lives through it."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import subprocess
import sys

import pytest

from gateway.adapters.writer import Chore, Work
from tests.faults.simulate import CONTROLS, PLANS, live_on, replay
from tests.faults.simulation import Process, ScheduledWriter, Simulation, SimulationError

CRASHES = 300
CONTROL_CRASHES_MAX = 500


@pytest.fixture
def loop() -> Simulation:
    return Simulation(7)  # type: ignore[abstract]


# --- the loop --------------------------------------------------------------------------------------------------------


def test_time_passes_only_when_nobody_has_anything_to_do(loop: Simulation) -> None:
    async def main() -> float:
        await asyncio.sleep(0)
        assert loop.time() == 0
        await asyncio.sleep(3600)
        return loop.time()

    assert loop.run(main()) == 3600


def test_what_is_ready_together_comes_in_any_order_and_in_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> str:
        said: list[str] = []

        async def say(word: str) -> None:
            said.append(word)

        async def main() -> None:
            await asyncio.gather(*map(say, "abc"))

        Simulation(seed).run(main())  # type: ignore[abstract]
        return "".join(said)

    orders = [order(seed) for seed in range(60)]
    assert len(set(orders)) == 6
    assert orders == [order(seed) for seed in range(60)]


def test_what_is_killed_does_nothing_any_more_not_even_a_finally(loop: Simulation) -> None:
    said: list[str] = []

    async def victim() -> None:
        try:
            said.append("begins")
            await asyncio.sleep(1)
            said.append("goes on")
        finally:
            said.append(f"ends at {loop.time()}")

    async def main() -> list[str]:
        process = Process(loop)
        process.start(victim())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(10)
        return list(said)

    assert loop.run(main()) == ["begins"]
    assert said == ["begins", "ends at 10.5"], "its tasks unwind when all is over"


def test_what_is_on_its_way_outlives_who_sent_it(loop: Simulation) -> None:
    arrived: list[float] = []

    async def sender() -> None:
        loop.outside(1, lambda: arrived.append(loop.time()))

    async def main() -> None:
        process = Process(loop)
        await process.start(sender())
        process.kill()
        await asyncio.sleep(2)

    loop.run(main())
    assert arrived == [1]


def test_who_waits_for_nothing_is_told(loop: Simulation) -> None:
    async def main() -> None:
        await loop.create_future()

    with pytest.raises(SimulationError, match="everybody waits"):
        loop.run(main())


def test_a_step_that_raises_ends_it(loop: Simulation) -> None:
    async def main() -> None:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        loop.run(main())


def test_the_writer_does_its_work_in_order_and_its_chores_at_the_end(loop: Simulation) -> None:
    done: list[str] = []

    def work(name: str, chore: str = "") -> Work:
        def do() -> Chore | None:
            done.append(name)
            return functools.partial(done.append, chore) if chore else None

        return do

    async def main() -> None:
        writer = ScheduledWriter(loop, 1)
        for piece in (work("a"), work("b", "a chore that comes too late"), work("c", "a chore")):
            writer.put(piece)
        await asyncio.sleep(10)
        writer.put(None)
        await writer.join()

    loop.run(main())
    assert done == ["a", "b", "c", "a chore"]


# --- the lives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_no_key_is_executed_twice_and_no_answer_is_lost_whenever_the_gateway_dies(plan: str, seed: int) -> None:
    lived = live_on(PLANS[plan], seed, CRASHES)
    assert lived.red is None, replay(plan, lived.red or 0)
    assert lived.crashes >= CRASHES
    assert min(lived.effects, lived.tokens) > CRASHES / 4, "money moves between the crashes"


@pytest.mark.parametrize("control", CONTROLS)
def test_what_is_broken_on_purpose_is_caught(control: str, seed: int) -> None:
    assert live_on(CONTROLS[control], seed, CONTROL_CRASHES_MAX).harm > 0


@pytest.mark.parametrize("plan", ["query", "events"])
def test_a_seed_is_a_life_whatever_the_hashes_are(plan: str) -> None:
    def digest(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.faults.simulate", "--plan", plan, "--seed", "11", "--trace"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first, other = digest("0"), digest("4711")
    assert "effect" in first
    assert "kill" in first
    assert other == first


@pytest.fixture
def seed() -> int:
    """Of the first life of this run; a red one names its own."""
    return random.getrandbits(32)
