"""Every kind of operation of a store that speaks SQL, in one table, and what runs a unit of them.

What an operation means in SQL stands in one file for each area. No column holds card data in clear.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters import (
    sql_audit,
    sql_calls,
    sql_deliveries,
    sql_keys,
    sql_outbox,
    sql_payments,
    sql_rewrap,
    sql_vault,
    sql_vault_keys,
)
from gateway.adapters.sql_statements import Handlers, Steps
from gateway.operations import (
    ClaimKey,
    DoubtCall,
    DoubtKey,
    EndCall,
    FinishKey,
    KnowTokens,
    Operation,
    PutToken,
    RecordAudit,
    RecordCall,
    ReleaseKey,
    ResendCall,
    Row,
    Rows,
)

HANDLERS: Final[Handlers] = {
    **sql_vault.HANDLERS,
    **sql_audit.HANDLERS,
    **sql_vault_keys.HANDLERS,
    **sql_rewrap.HANDLERS,
    **sql_keys.HANDLERS,
    **sql_deliveries.HANDLERS,
    **sql_payments.HANDLERS,
    **sql_calls.HANDLERS,
    **sql_outbox.HANDLERS,
}

WRITES_LAST: Final[frozenset[type[Operation[Any]]]] = frozenset(
    {
        PutToken,
        KnowTokens,
        RecordAudit,
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
nor raise. A statement is atomic."""


def undoes_itself(unit: tuple[Operation[Row], ...]) -> bool:
    """Whether a unit that refuses or raises has written nothing even without a savepoint to return to."""
    return len(unit) == 1 and type(unit[0]) in WRITES_LAST


def steps(unit: tuple[Operation[Row], ...], rows: Rows) -> Steps[None]:
    """The operations in order, up to the first that refuses."""
    for position, operation in enumerate(unit):
        row = yield from HANDLERS[type(operation)](operation, rows)
        rows.answered.append(row)
        if row.refused:
            rows.refused = position
            return
