"""Payments in SQL: what each operation does on its visit to one; `gateway.pure` decides."""

from __future__ import annotations

from typing import Any, Final

import apsw
import orjson

from gateway.adapters import sqlite_visit
from gateway.adapters.sqlite_tools import Handlers, micros
from gateway.adapters.sqlite_visit import Visit, find, find_by_id, find_held
from gateway.operations import (
    AdmitCommand,
    AdmitRow,
    AdoptPayment,
    DeliveryVerdict,
    EndCommand,
    EndRow,
    FactsRow,
    FindPayment,
    PaymentRef,
    PaymentRow,
    PurgedRow,
    PurgeFacts,
    RecordFacts,
    ReviewPayment,
    Rows,
)
from gateway.pure.currencies import BadAmount
from gateway.pure.lifecycle import FACT_INVALID, Admitted, Payment, Told, admit, reviewed, standing, state_of
from gateway.pure.lifecycle_machine import Machine
from gateway.pure.reservations import ALIAS_TAKEN, distrust, end

SCHEMA: Final = (
    sqlite_visit.SCHEMA
    + """
CREATE TABLE facts (
    tenant TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT NOT NULL, source TEXT, parked TEXT, currency TEXT,
    received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX facts_by_source ON facts (tenant, upstream, alias, source);
CREATE INDEX facts_by_age ON facts (received_at);
"""
)
"""A row of `facts` says that a source has told; `parked` is what, as long as nobody knows the payment."""

_HEARD = """INSERT INTO facts (tenant, upstream, alias, source, received_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
_IS_PARKED = """SELECT parked IS NOT NULL FROM facts
    WHERE tenant = ? AND upstream = ? AND alias = ? AND source = ?"""
_PARK = """INSERT INTO facts (tenant, upstream, alias, source, parked, currency, received_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant, upstream, alias, source) DO UPDATE
    SET parked = excluded.parked, currency = excluded.currency"""
_PARKED = """SELECT parked, currency, source FROM facts
    WHERE tenant = ? AND upstream = ? AND alias = ? AND parked IS NOT NULL ORDER BY received_at, rowid"""
_UNPARK = """UPDATE facts SET parked = NULL, currency = NULL
    WHERE tenant = ? AND upstream = ? AND alias = ? AND parked IS NOT NULL"""
_PURGE = "DELETE FROM facts WHERE rowid IN (SELECT rowid FROM facts WHERE received_at < ? ORDER BY received_at LIMIT ?)"
_AWAITING = """SELECT 1 FROM reservations AS r JOIN payments AS p ON p.tenant = r.tenant AND p.id = r.payment
    WHERE r.tenant = ? AND p.upstream = ? AND p.alias IS NULL LIMIT 1"""


def _find_payment(db: apsw.Connection, op: FindPayment, _: Rows) -> PaymentRow:
    stored = find(db, op.tenant, op.machine, op.ref)
    if stored is None:
        return PaymentRow()
    return _payment_row(op.machine, stored.id, stored.payment)


def _payment_row(machine: Machine, payment: str, record: Payment) -> PaymentRow:
    return PaymentRow(payment=payment, record=record, standing=standing(machine, record))


# --- Commands --------------------------------------------------------------------------------------------------------


def _admit_command(db: apsw.Connection, op: AdmitCommand, _: Rows) -> AdmitRow:
    stored = find(db, op.tenant, op.machine, op.ref)
    visit = _opened(db, op) if stored is None else Visit(db, op, stored)
    if isinstance(visit, AdmitRow):
        return visit
    asked = admit(op.machine, visit.payment, op.command, op.amount, op.currency, total=op.total)
    if not isinstance(asked, Admitted):
        known = "" if stored is None else visit.id
        return AdmitRow(refused=True, payment=known, why=asked.why, standing=asked.standing)
    visit.reserve(op.owner, asked.reservation)
    visit.changed(f"{op.command}.requested", asked.payment, command=op.command, amount=asked.reservation.amount)
    visit.save()
    return AdmitRow(payment=visit.id, admitted=asked)


def _opened(db: apsw.Connection, op: AdmitCommand) -> Visit | AdmitRow:
    """A payment for a command that names none, or one that nobody knows; or the row that says why there is none."""
    ref = op.ref
    if ref.payment is not None or (ref.alias is not None and op.on_missing == "reject"):
        return AdmitRow(refused=True, payment="")
    if ref.alias is not None and op.on_missing == "observe":
        return AdmitRow(payment="")
    if op.currency is None:
        return AdmitRow(refused=True, payment="", why=BadAmount.CURRENCY_UNKNOWN)
    return Visit.opening(db, op, ref.upstream, op.new_id, op.currency)


def _end_command(db: apsw.Connection, op: EndCommand, _: Rows) -> EndRow:
    found = find_held(db, op.tenant, op.machine, op.owner)
    if found is None:
        return EndRow(refused=not op.observed)
    stored, held = found
    visit = Visit(db, op, stored)
    ended = distrust(visit.payment, held) if op.invalid else end(op.machine, visit.payment, held, op.result, op.amount)
    bound = op.alias is None or visit.bind(op.alias)
    visit.hold(held, ended.held)
    if ended.payment != visit.payment:
        command, asked = held.reservation.command, held.reservation.amount
        result = "unknown" if op.invalid else op.result
        amount = asked if op.amount is None else op.amount
        visit.changed(f"{command}.{result}", ended.payment, ended.violation, command=command, amount=amount)
    if not bound:
        visit.review(ALIAS_TAKEN)
    elif op.alias is not None:
        _hear_parked(db, visit, op.tenant, stored.upstream, op.alias)
    if op.facts:
        visit.hear(op.facts)
    visit.save()
    state = state_of(op.machine, visit.payment)
    return EndRow(payment=visit.id, state=state, version=visit.payment.version, violation=visit.violation or None)


def _review_payment(db: apsw.Connection, op: ReviewPayment, _: Rows) -> PaymentRow:
    stored = find_by_id(db, op.tenant, op.machine, op.payment)
    if stored is None or not stored.payment.violation:
        return PaymentRow(refused=True)
    visit = Visit(db, op, stored)
    visit.changed("review.done", reviewed(visit.payment), reviewed=stored.payment.violation)
    visit.save()
    return _payment_row(op.machine, visit.id, visit.payment)


# --- Facts -----------------------------------------------------------------------------------------------------------


def _record_facts(db: apsw.Connection, op: RecordFacts, rows: Rows) -> FactsRow:
    if op.given is not None and rows[op.given].verdict is not DeliveryVerdict.ACCEPTED:
        return FactsRow(known=False, duplicate=True)
    key = (op.tenant, op.upstream, op.alias)
    if op.source is not None:
        db.execute(_HEARD, (*key, op.source, micros(op.now)))
        if not db.changes():
            return FactsRow(known=not db.execute(_IS_PARKED, (*key, op.source)).get, duplicate=True)
    stored = find(db, op.tenant, op.machine, PaymentRef(op.upstream, alias=op.alias))
    if stored is not None:
        visit = Visit(db, op, stored)
    elif op.on_missing == "reject" or op.currency is None or db.execute(_AWAITING, (op.tenant, op.upstream)).get:
        told = orjson.dumps([tuple(fact) for fact in op.facts]).decode()
        db.execute(_PARK, (*key, op.source, told, op.currency, micros(op.now)))
        return FactsRow(known=False)
    else:
        visit = Visit.opening(db, op, op.upstream, op.new_id, op.currency)
        visit.bind(op.alias)
    _hear_parked(db, visit, *key)
    visit.hear(op.facts, op.currency, op.source)
    visit.save()
    return FactsRow(known=True, payment=visit.id, violation=visit.violation or None)


def _adopt_payment(db: apsw.Connection, op: AdoptPayment, _: Rows) -> PaymentRow:
    stored = find(db, op.tenant, op.machine, PaymentRef(op.upstream, alias=op.alias))
    if stored is not None:
        return _payment_row(op.machine, stored.id, stored.payment)
    key = (op.tenant, op.upstream, op.alias)
    visit = Visit.opening(db, op, op.upstream, op.new_id, op.currency)
    visit.bind(op.alias)
    db.execute(_HEARD, (*key, op.source, micros(op.now)))
    parked = _unparked(db, *key)
    visit.hear([*(fact for _, told, _ in parked for fact in told), *op.facts], op.currency, op.source)
    if any(currency not in (None, op.currency) for _, _, currency in parked):
        visit.review(FACT_INVALID)
    visit.save()
    return _payment_row(op.machine, visit.id, visit.payment)


def _hear_parked(db: apsw.Connection, visit: Visit, *key: str) -> None:
    """What has been told of the payment before anybody knew it, message by message."""
    for source, told, currency in _unparked(db, *key):
        visit.hear(told, currency, source)


def _unparked(db: apsw.Connection, *key: str) -> list[tuple[str | None, list[Told], str | None]]:
    """The messages that were parked for a payment, which wait no longer: source, facts and currency of each."""
    rows: list[Any] = db.execute(_PARKED, key).fetchall()
    if rows:
        db.execute(_UNPARK, key)
    return [(source, [Told(*fact) for fact in orjson.loads(told)], currency) for told, currency, source in rows]


def _purge_facts(db: apsw.Connection, op: PurgeFacts, _: Rows) -> PurgedRow:
    db.execute(_PURGE, (micros(op.before), op.limit))
    return PurgedRow(count=db.changes())


HANDLERS: Final[Handlers] = {
    FindPayment: _find_payment,
    AdmitCommand: _admit_command,
    EndCommand: _end_command,
    ReviewPayment: _review_payment,
    RecordFacts: _record_facts,
    AdoptPayment: _adopt_payment,
    PurgeFacts: _purge_facts,
}
