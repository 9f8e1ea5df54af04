"""What the handlers of all operations share. Times are stored as integers, microseconds of Unix time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import apsw

from gateway.operations import Operation, Row, Rows

Handlers: TypeAlias = Mapping[type[Operation[Any]], Callable[[apsw.Connection, Any, Rows], Row]]
"""A handler runs inside a unit, on the store's thread; what a refused or raising unit wrote is undone by the caller."""

DONE: Final = Row()
REFUSED: Final = Row(refused=True)


def micros(seconds: float) -> int:
    """A time as it is stored."""
    return round(seconds * 1_000_000)


def changed(db: apsw.Connection) -> Row:
    """Done if the last statement found its row, else refused."""
    return DONE if db.changes() else REFUSED
