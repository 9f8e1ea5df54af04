"""The steps of a unit on SQLite: each is run on the spot."""

from __future__ import annotations

from typing import Any

import apsw

from gateway.adapters.sql_operations import steps
from gateway.adapters.sql_statements import Statement, Steps, Values
from gateway.operations import Operation, Row, Rows


def run_unit(db: apsw.Connection, unit: tuple[Operation[Row], ...], rows: Rows) -> None:
    """Run the operations in order, up to the first that refuses."""
    run_steps(db, steps(unit, rows))


def run_steps(db: apsw.Connection, asked: Steps[None]) -> None:
    """Run each step on the spot, to the end."""
    result: Any = None
    try:
        while True:
            statement, values = asked.send(result)
            if isinstance(values, tuple):
                result = _run(db, statement, values)
            else:
                result = [_run(db, statement, each) for each in values]
    except StopIteration:
        return


def _run(db: apsw.Connection, statement: Statement, values: Values) -> Any:
    if not statement.sqlite:
        return []
    cursor = db.execute(statement.sqlite, values)
    return cursor.fetchall() if statement.reads else db.changes()
