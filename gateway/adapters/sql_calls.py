"""Calls in SQL: a row from before a request is sent until its outcome is known."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final

from gateway.adapters.sql_statements import (
    DONE,
    Handlers,
    Steps,
    by_tenant,
    change,
    changed,
    micros,
    query,
    returning,
    seconds,
    seconds_if_any,
    taken,
)
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

_RECORD = change(
    """tenant text, owner text, route text, upstream text, in_doubt text, sent_at bigint, key_scope bytea,
    sealed bytea""",
    """INSERT INTO calls (tenant, owner, route, upstream, in_doubt, state, attempt, sent_at, key_scope, sealed)
    VALUES (:tenant, :owner, :route, :upstream, :in_doubt, 'in_flight', 1, :sent_at, :key_scope, :sealed)""",
)
_END = change(
    "tenant text, owner text, attempts bigint",
    """DELETE FROM calls
    WHERE tenant = :tenant AND owner = :owner AND (:attempts IS NULL OR attempt <= :attempts)""",
)
_DOUBT = change(
    "tenant text, owner text, now bigint, next_at bigint",
    """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, :now), next_at = :next_at,
    leased_until = 0
    WHERE tenant = :tenant AND owner = :owner""",
)
_LOST = query(
    "before bigint",
    "SELECT tenant, owner FROM calls WHERE state = 'in_flight' AND sent_at < :before",
)
_DOUBT_LOST = change(
    "tenant text, owner text, now bigint, before bigint",
    """UPDATE calls SET state = 'unknown', doubted_at = coalesce(doubted_at, :now),
    next_at = CASE WHEN in_doubt = 'manual' THEN NULL ELSE :now END
    WHERE tenant = :tenant AND owner = :owner AND state = 'in_flight' AND sent_at < :before""",
)
_AGAIN = """UPDATE calls SET state = 'in_flight', attempt = attempt + 1, sent_at = :sent_at, next_at = NULL,
    leased_until = 0
    WHERE tenant = :tenant AND owner = :owner AND state = 'unknown' AND attempt = :attempt"""
_RESEND = change(
    "tenant text, owner text, sent_at bigint, attempt bigint",
    _AGAIN,
    postgres=_AGAIN.replace("next_at = NULL", "next_at = NULL, holder = DEFAULT"),
)
_DUE = query(
    "now bigint, limit bigint",
    """SELECT tenant, owner FROM calls WHERE state = 'unknown' AND next_at <= :now AND leased_until <= :now
    ORDER BY next_at, doubted_at LIMIT :limit""",
)
_TAKE = returning(
    "tenant text, owner text, now bigint, until bigint",
    """UPDATE calls SET leased_until = :until
    WHERE tenant = :tenant AND owner = :owner AND state = 'unknown' AND next_at <= :now AND leased_until <= :now""",
    "tenant, owner, route, upstream, in_doubt, attempt, sent_at, doubted_at, next_at, key_scope, sealed",
)
_UNKNOWN = query("", "SELECT count(*), coalesce(min(doubted_at), 0) FROM calls WHERE state = 'unknown'")
_LIST = query(
    "tenant text, owner text, limit bigint",
    """SELECT c.tenant, c.owner, c.route, c.upstream, c.in_doubt, c.attempt, c.sent_at, c.doubted_at,
    c.next_at, c.key_scope, c.sealed, r.payment, p.alias, r.command, r.amount
    FROM calls AS c LEFT JOIN reservations AS r ON r.tenant = c.tenant AND r.owner = c.owner
    LEFT JOIN payments AS p ON p.tenant = r.tenant AND p.id = r.payment
    WHERE c.state = 'unknown' AND (:tenant IS NULL OR c.tenant = :tenant) AND (:owner IS NULL OR c.owner = :owner)
    ORDER BY c.doubted_at, c.owner LIMIT :limit""",
)

_LONGEST_DUE = itemgetter(8, 7)
"""By `next_at`, then `doubted_at`, of what `_TAKE` returns."""


def _record_call(op: RecordCall, rows: Rows) -> Steps[Row]:
    sealed = op.sealed if isinstance(op.sealed, bytes) else op.sealed(rows)
    sent = micros(op.sent_at), op.key_scope, sealed
    yield _RECORD, (op.tenant, op.owner, op.route, op.upstream, op.in_doubt, *sent)
    return DONE


def _end_call(op: EndCall, _: Rows) -> Steps[Row]:
    return changed((yield _END, (op.tenant, op.owner, op.attempts)))


def _doubt_call(op: DoubtCall, _: Rows) -> Steps[Row]:
    next_at = None if op.next_at is None else micros(op.next_at)
    return changed((yield _DOUBT, (op.tenant, op.owner, micros(op.now), next_at)))


def _doubt_lost_calls(op: DoubtLostCalls, _: Rows) -> Steps[Row]:
    now, before = micros(op.now), micros(op.before)
    lost = yield _LOST, (before,)
    for calls in by_tenant(lost):
        yield _DOUBT_LOST, [(*call, now, before) for call in calls]
    return DONE


def _resend_call(op: ResendCall, _: Rows) -> Steps[Row]:
    return changed((yield _RESEND, (op.tenant, op.owner, micros(op.sent_at), op.attempt)))


def _due_calls(op: DueCalls, _: Rows) -> Steps[DueCallsRow]:
    due = yield from taken(_DUE, _TAKE, micros(op.now), micros(op.now + op.lease), op.limit)
    due.sort(key=_LONGEST_DUE)
    ((unknown, oldest),) = yield _UNKNOWN, ()
    return DueCallsRow(due=tuple(_call(*columns) for columns in due), unknown=unknown, oldest=seconds(oldest))


def _call(*columns: Any) -> Call:
    *what, sent_at, doubted_at, next_at, key_scope, sealed = columns
    times: list[Any] = [seconds(sent_at), seconds(doubted_at), seconds_if_any(next_at)]
    return Call(*[*what, *times, key_scope, sealed])


def _list_calls(op: ListCalls, _: Rows) -> Steps[UnknownCallsRow]:
    found = yield _LIST, (op.tenant, op.owner, op.limit)
    calls = (UnknownCall(_call(*call), *held) for call, held in ((row[:-4], row[-4:]) for row in found))
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
