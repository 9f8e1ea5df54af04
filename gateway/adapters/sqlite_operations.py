"""Every kind of operation of the store on SQLite, in one table: the schema, and what runs a unit of them.

What an operation means in SQL stands in one file for each area. No column holds card data in clear.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from gateway.adapters import (
    sqlite_calls,
    sqlite_deliveries,
    sqlite_keys,
    sqlite_outbox,
    sqlite_payments,
    sqlite_vault,
)
from gateway.adapters.sqlite_tools import Handlers
from gateway.operations import (
    ClaimKey,
    DoubtCall,
    DoubtKey,
    EndCall,
    FinishKey,
    KnowTokens,
    Operation,
    PutToken,
    RecordCall,
    ReleaseKey,
    ResendCall,
    Row,
    Rows,
    SettleReveal,
)

MIGRATIONS: Final = (
    sqlite_vault.SCHEMA + sqlite_keys.SCHEMA + sqlite_deliveries.SCHEMA,
    sqlite_payments.SCHEMA + sqlite_calls.SCHEMA + sqlite_outbox.SCHEMA,
)
"""Scripts in the order in which they are applied; the schema's version is how many have been."""

ON_OPENING: Final = (sqlite_keys.ON_OPENING, sqlite_calls.ON_OPENING, sqlite_outbox.ON_OPENING)
"""What becomes of what a previous process left under way; `:now` in microseconds of Unix time."""

HANDLERS: Final[Handlers] = {
    **sqlite_vault.HANDLERS,
    **sqlite_keys.HANDLERS,
    **sqlite_deliveries.HANDLERS,
    **sqlite_payments.HANDLERS,
    **sqlite_calls.HANDLERS,
    **sqlite_outbox.HANDLERS,
}

WRITES_LAST: Final[frozenset[type[Operation[Any]]]] = frozenset(
    {
        PutToken,
        KnowTokens,
        SettleReveal,
        ClaimKey,
        FinishKey,
        ReleaseKey,
        DoubtKey,
        RecordCall,
        EndCall,
        DoubtCall,
        ResendCall,
    }
)
"""The kinds of a request's operations whose handlers change rows with one statement at most, and then neither refuse
nor raise. A statement of SQLite is atomic."""


def undoes_itself(unit: tuple[Operation[Row], ...]) -> bool:
    """Whether a unit that refuses or raises has written nothing even without a savepoint to return to."""
    return len(unit) == 1 and type(unit[0]) in WRITES_LAST


def run_unit(db: apsw.Connection, unit: tuple[Operation[Row], ...], rows: Rows) -> None:
    """Run the operations in order, up to the first that refuses."""
    for position, operation in enumerate(unit):
        row = HANDLERS[type(operation)](db, operation, rows)
        rows.answered.append(row)
        if row.refused:
            rows.refused = position
            return
