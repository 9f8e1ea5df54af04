"""Calls in SQL: a row from before a request is sent until its outcome is known."""

from __future__ import annotations

from typing import Any, Final

import apsw

from gateway.adapters.sqlite_tools import DONE, Handlers, changed, micros
from gateway.operations import (
    Call,
    DoubtCall,
    DoubtLostCalls,
    DueCalls,
    DueCallsRow,
    EndCall,
    ListCalls,
    RecordCall,
    ResendCall,
    Row,
    Rows,
    UnknownCall,
    UnknownCallsRow,
)

SCHEMA: Final = """
CREATE TABLE calls (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, route TEXT NOT NULL, upstream TEXT NOT NULL,
    in_doubt TEXT NOT NULL CHECK (in_doubt IN ('replay', 'query', 'manual')),
    state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown')), attempt INTEGER NOT NULL,
    sent_at INTEGER NOT NULL, doubted_at INTEGER, next_at INTEGER, key_scope BLOB, sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, owner)
) STRICT;
CREATE INDEX calls_unknown ON calls (next_at, doubted_at) WHERE state = 'unknown';
"""
ON_OPENING: Final = """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, :now),
    next_at = iif(in_doubt = 'manual', NULL, :now) WHERE state = 'in_flight'"""
"""For a store that is opened: whoever sent these is gone, and their answers with them."""

_RECORD = """INSERT INTO calls (tenant, owner, route, upstream, in_doubt, state, attempt, sent_at, key_scope, sealed)
    VALUES (?, ?, ?, ?, ?, 'in_flight', 1, ?, ?, ?)"""
_END = "DELETE FROM calls WHERE tenant = ? AND owner = ?"
_DOUBT = """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, ?), next_at = ?
    WHERE tenant = ? AND owner = ?"""
_DOUBT_LOST = """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, ?1),
    next_at = iif(in_doubt = 'manual', NULL, ?1) WHERE state = 'in_flight' AND sent_at < ?2"""
_RESEND = """UPDATE calls SET state = 'in_flight', attempt = attempt + 1, sent_at = ?, next_at = NULL
    WHERE tenant = ? AND owner = ? AND state = 'unknown' AND attempt = ?"""
_DUE = """SELECT tenant, owner, route, upstream, in_doubt, attempt, sent_at / 1e6, doubted_at / 1e6, next_at / 1e6,
    key_scope, sealed FROM calls WHERE state = 'unknown' AND next_at <= ? ORDER BY next_at, doubted_at LIMIT ?"""
_UNKNOWN = "SELECT count(*), coalesce(min(doubted_at), 0) / 1e6 FROM calls WHERE state = 'unknown'"
_LIST = """SELECT c.tenant, c.owner, c.route, c.upstream, c.in_doubt, c.attempt, c.sent_at / 1e6, c.doubted_at / 1e6,
    c.next_at / 1e6, c.key_scope, c.sealed, r.payment, r.command, r.amount
    FROM calls AS c LEFT JOIN reservations AS r ON r.tenant = c.tenant AND r.owner = c.owner
    WHERE c.state = 'unknown' AND (?1 IS NULL OR c.tenant = ?1) AND (?2 IS NULL OR c.owner = ?2)
    ORDER BY c.doubted_at, c.rowid LIMIT ?3"""


def _record_call(db: apsw.Connection, op: RecordCall, rows: Rows) -> Row:
    sealed = op.sealed if isinstance(op.sealed, bytes) else op.sealed(rows)
    sent = micros(op.sent_at), op.key_scope, sealed
    db.execute(_RECORD, (op.tenant, op.owner, op.route, op.upstream, op.in_doubt, *sent))
    return DONE


def _end_call(db: apsw.Connection, op: EndCall, _: Rows) -> Row:
    db.execute(_END, (op.tenant, op.owner))
    return changed(db)


def _doubt_call(db: apsw.Connection, op: DoubtCall, _: Rows) -> Row:
    next_at = None if op.next_at is None else micros(op.next_at)
    db.execute(_DOUBT, (micros(op.now), next_at, op.tenant, op.owner))
    return changed(db)


def _doubt_lost_calls(db: apsw.Connection, op: DoubtLostCalls, _: Rows) -> Row:
    db.execute(_DOUBT_LOST, (micros(op.now), micros(op.before)))
    return DONE


def _resend_call(db: apsw.Connection, op: ResendCall, _: Rows) -> Row:
    db.execute(_RESEND, (micros(op.sent_at), op.tenant, op.owner, op.attempt))
    return changed(db)


def _due_calls(db: apsw.Connection, op: DueCalls, _: Rows) -> DueCallsRow:
    due: list[Any] = db.execute(_DUE, (micros(op.now), op.limit)).fetchall()
    unknown, oldest = db.execute(_UNKNOWN).get
    return DueCallsRow(due=tuple(Call(*columns) for columns in due), unknown=unknown, oldest=oldest)


def _list_calls(db: apsw.Connection, op: ListCalls, _: Rows) -> UnknownCallsRow:
    found: list[Any] = db.execute(_LIST, (op.tenant, op.owner, op.limit)).fetchall()
    calls = (UnknownCall(Call(*call), *held) for call, held in ((row[:-3], row[-3:]) for row in found))
    return UnknownCallsRow(calls=tuple(calls))


HANDLERS: Final[Handlers] = {
    RecordCall: _record_call,
    EndCall: _end_call,
    DoubtCall: _doubt_call,
    DoubtLostCalls: _doubt_lost_calls,
    ResendCall: _resend_call,
    DueCalls: _due_calls,
    ListCalls: _list_calls,
}
