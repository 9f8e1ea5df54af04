"""What connections leave behind is collected and given back, and an operator hears if locks were lost by that."""

from __future__ import annotations

import weakref

from gateway.workers.ebbing import Ebbing
from tests.conftest import Recorder


class Cycle:
    """Something that counting references does not free."""

    def __init__(self) -> None:
        self.itself = self


class Machine:
    """So many connections, and what a system would say."""

    def __init__(self, wrong: str = "") -> None:
        self.connections, self.given, self.wrong = 0, 0, wrong
        self.telemetry = Recorder()
        self.ebbing = Ebbing(lambda: self.connections, self.give_back, self.telemetry)

    def give_back(self) -> str:
        self.given += 1
        return self.wrong

    async def look(self, *connections: int) -> None:
        for self.connections in connections:
            await self.ebbing.step()


async def test_what_a_crowd_left_is_collected_and_given_back_once() -> None:
    machine = Machine()
    left = weakref.ref(Cycle())
    await machine.look(5000, 5000)
    assert machine.given == 0
    await machine.look(0, 0, 0, 0)
    assert machine.given == 1
    assert left() is None


async def test_an_operator_hears_that_memory_could_not_be_locked_again() -> None:
    machine = Machine("Cannot allocate memory")
    await machine.look(5000, 0, 0)
    assert machine.telemetry.lines == [
        {"event": "memory_not_locked", "level": "warning", "reason": "Cannot allocate memory"}
    ]
