"""The steps of many units on PostgreSQL: those that ask the same are one statement, and all are one transaction.

    unit 1   claim k1 ---- put token ----------- record call
    unit 2   claim k2 ---- put token - look ---- record call
    unit 3   ask k3
    sent     1 claim, 1 ask, 1 put, 1 look, 1 record, whether three units or three hundred are under way

No unit of a transaction touches what another touches (`postgres_touches`), so that it comes to the same as one after
the other. A unit that refuses or raises when it has written something is undone with the whole transaction, and the
others are run again without it: what it found was true, for it has seen nothing of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.adapters import sql_audit
from gateway.adapters.postgres_connections import Connection
from gateway.adapters.postgres_touches import HOLD_PAYMENTS, visited
from gateway.adapters.sql_operations import steps
from gateway.adapters.sql_statements import Statement, Step, Steps, Values
from gateway.adapters.store_queue import Waiting, recorded, unavailable
from gateway.operations import Rows

_ORDERED = 5
"""So many values say what a statement is about, at the most: all gateways take rows in the same order."""


class Run:
    """A unit under way: the step that it asks for, None at its end."""

    __slots__ = ("_steps", "step", "waiting", "wrote")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.wrote = False
        waiting.error = None
        waiting.rows = Rows(waiting.unit)
        self._steps: Steps[None] = steps(waiting.unit, waiting.rows)
        self.step: Step | None = None
        self.go_on(None)

    def go_on(self, result: Any) -> None:
        """Take the result of the last step and ask for the next."""
        try:
            self.step = self._steps.send(result)
        except StopIteration:
            self.step = None
        except Exception as error:  # noqa: BLE001 - of a callable: its caller's alone
            self.step, self.waiting.error = None, error
        except BaseException as error:  # noqa: BLE001 - not even an exit ends the store that all wait for
            self.step, self.waiting.error = None, unavailable(error)

    @property
    def undone(self) -> bool:
        """It has come to nothing, and what it wrote must not stay."""
        return self.wrote and (self.waiting.error is not None or self.waiting.rows.refused is not None)


async def run_units(connection: Connection, units: Sequence[Waiting], chain: str) -> tuple[bool, list[Waiting]]:
    """Run units of one tenant, in one transaction; whether it wrote, and the units that have to wait for the next.

    What they recorded is linked to the `chain` that this gateway writes of the audit.

    Each unit has its rows or its error then, and nothing is left of those that refused or failed.
    """
    left = list(units)
    while True:
        await connection.begin()
        now, later = await _apart(connection, left)
        runs = [Run(waiting) for waiting in now]
        await _step_together(connection, runs)
        if not any(run.undone for run in runs):
            told = recorded(run.waiting for run in runs)
            if told:
                await _run_steps(connection, sql_audit.write(chain, told))
            await connection.commit()
            return bool(told) or any(run.wrote for run in runs), later
        await connection.execute("ROLLBACK")
        left = [run.waiting for run in runs if not run.undone] + later


async def _apart(connection: Connection, units: Sequence[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """Hold all payments that the units visit; of those that visit the same, all but the first wait."""
    asked = [(n, values) for n, waiting in enumerate(units) for values in visited(waiting.unit)]
    if not asked:
        return list(units), []
    found = await ask(connection, HOLD_PAYMENTS, [values for _, values in asked])
    of_unit: dict[int, set[str]] = {}
    for (n, _), payments in zip(asked, found, strict=True):
        of_unit.setdefault(n, set()).update(payment for (payment,) in payments)
    now, later, taken = list[Waiting](), list[Waiting](), set[str]()
    for n, waiting in enumerate(units):
        payments = of_unit.get(n, set())
        (now if taken.isdisjoint(payments) else later).append(waiting)
        taken |= payments
    return now, later


async def _step_together(connection: Connection, runs: Iterable[Run]) -> None:
    going = [run for run in runs if run.step is not None]
    while going:
        asking: dict[Statement, list[tuple[Run, Values | list[Values]]]] = {}
        for run in going:
            assert run.step is not None
            statement, values = run.step
            asking.setdefault(statement, []).append((run, values))
        for statement, asked in asking.items():
            await _step(connection, statement, asked)
        going = [run for run in going if run.step is not None]


async def _step(connection: Connection, statement: Statement, asked: list[tuple[Run, Values | list[Values]]]) -> None:
    """One statement for all who ask for it, in the order of what it is about."""
    lists = [(run, values if isinstance(values, list) else [values]) for run, values in asked]
    flat = [(run, n, values) for run, listed in lists for n, values in enumerate(listed)]
    flat.sort(key=lambda each: [(value is not None, value) for value in each[2][:_ORDERED]])
    answers = await ask(connection, statement, [values for _, _, values in flat])
    of_run: dict[Run, list[Any]] = {run: [None] * len(listed) for run, listed in lists}
    for (run, n, _), answer in zip(flat, answers, strict=True):
        of_run[run][n] = answer
    for run, values in asked:
        results = of_run[run]
        run.wrote = run.wrote or (statement.writes and any(results))
        run.go_on(results if isinstance(values, list) else results[0])


async def _run_steps(connection: Connection, asked: Steps[None]) -> None:
    """Run steps one after the other, to the end."""
    result: Any = None
    try:
        while True:
            statement, values = asked.send(result)
            answers = await ask(connection, statement, values if isinstance(values, list) else [values])
            result = answers if isinstance(values, list) else answers[0]
    except StopIteration:
        return


async def run_alone(connection: Connection, waiting: Waiting) -> bool:
    """Run a unit that looks after all tenants, in a transaction for each that it comes to; whether it wrote.

    Such a unit refuses nothing, and if it ends halfway it will be asked again for the rest.
    """
    run = Run(waiting)
    of: str | None = None
    if run.step is None:
        await connection.execute("SELECT 1")
    while run.step is not None:
        statement, values = run.step
        listed = values if isinstance(values, list) else [values]
        tenant = listed[0][0] if statement.of_tenant and listed else None
        if tenant != of:
            if of is not None:
                await connection.commit()
            if tenant is not None:
                await connection.begin()
            of = tenant
        await _step(connection, statement, [(run, values)])
    if of is not None:
        await connection.commit()
    return run.wrote


async def ask(connection: Connection, statement: Statement, values: Sequence[Values]) -> list[Any]:
    """What came of a statement for each of these values."""
    if not values:
        return []
    rows = await connection.fetch(statement.postgres, *map(list, zip(*values, strict=True)))
    if statement.reads:
        found: list[list[Values]] = [[] for _ in values]
        for n, *columns in rows:
            found[n - 1].append(tuple(columns))
        return found
    if statement.certain:
        return [1] * len(values)
    counts = [0] * len(values)
    for (n,) in rows:
        counts[n - 1] += 1
    return counts
