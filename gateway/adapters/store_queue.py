"""What stores share that gather units into commits: a unit and who waits for it, and the bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from gateway.operations import Operation, RecordAudit, Row, Rows
from gateway.ports import CommitInDoubt, Unavailable

BATCH_UNITS_MAX = 256
"""Units that share one commit."""
GATHERING_TURNS_MAX = 8
"""Turns of the event loop that a batch waits at the most for more units."""
QUEUE_UNITS_MAX = 10_000
"""Units that may wait; one more is refused at once."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A unit, who waits for it, and in the end its rows or its error."""

    unit: tuple[Operation[Row], ...]
    rows: Rows
    future: asyncio.Future[Rows]
    error: Exception | None = None

    @property
    def result(self) -> str:
        if self.error is not None:
            return "failed"
        return "committed" if self.rows.refused is None else "refused"

    def answer(self) -> None:
        """Wake who waits."""
        if self.future.done():  # cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.rows)


def recorded(units: Iterable[Waiting]) -> list[RecordAudit]:
    """What the audit chain has to get in the commit of these units: nothing of one that came to nothing."""
    records = [waiting.rows.recorded for waiting in units if waiting.rows.recorded and waiting.result == "committed"]
    return list(chain.from_iterable(records)) if records else []


def unavailable(cause: BaseException, *, committing: bool = False) -> Unavailable:
    """The store could not be asked, and why."""
    error = CommitInDoubt("store") if committing else Unavailable("store")
    error.__cause__ = cause
    return error
