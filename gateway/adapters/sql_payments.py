"""Payments in SQL: what each operation does on its visit to one; `gateway.pure` decides.

A visit holds its payment, or the name of one that nobody knows, until its unit is committed. A row of `facts` says that
a source has told; `parked` is what, as long as nobody knows the payment.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Final

import orjson

from gateway.adapters.sql_statements import Handlers, Steps, change, micros, query
from gateway.adapters.sql_visit import Visit, find, find_by_id, find_held, hold_alias
from gateway.operations import (
    AdmitCommand,
    AdmitRow,
    AdoptPayment,
    DeliveryVerdict,
    EndCommand,
    EndRow,
    FactsRow,
    FindPayment,
    ParkedFacts,
    ParkedRow,
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

_SOURCE = "tenant text, upstream text, alias text, source text"
_HEARD = change(
    f"{_SOURCE}, now bigint",
    """INSERT INTO facts (tenant, upstream, alias, source, received_at)
    VALUES (:tenant, :upstream, :alias, :source, :now) ON CONFLICT DO NOTHING""",
    key="tenant upstream alias source",
)
_IS_PARKED = query(
    _SOURCE,
    """SELECT 1 FROM facts WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias AND source = :source
    AND parked IS NOT NULL""",
)
_PARK_FACTS = """INSERT INTO facts (tenant, upstream, alias, source, parked, currency, received_at)
    VALUES (:tenant, :upstream, :alias, :source, :parked, :currency, :now)
    ON CONFLICT (tenant, upstream, alias, source) DO UPDATE
    SET parked = excluded.parked, currency = excluded.currency"""
_PARK = change(
    f"{_SOURCE}, parked text, currency text, now bigint",
    _PARK_FACTS,
    key="tenant upstream alias source",
    postgres=_PARK_FACTS.replace("received_at)", "received_at, position)")
    .replace(
        ":now)",
        """:now, (SELECT 1 + coalesce(max(position), 0) FROM facts
    WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias))""",
    )
    .replace("currency = excluded.currency", "currency = excluded.currency, position = excluded.position"),
)
_PARKED_FACTS = """SELECT parked, currency, source FROM facts
    WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias AND parked IS NOT NULL
    ORDER BY received_at, rowid"""
_PARKED = query(
    "tenant text, upstream text, alias text", _PARKED_FACTS, postgres=_PARKED_FACTS.replace("rowid", "position")
)
_UNPARK = change(
    "tenant text, upstream text, alias text",
    """UPDATE facts SET parked = NULL, currency = NULL
    WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias AND parked IS NOT NULL""",
)
_OLD = query(
    "before bigint, limit bigint",
    """SELECT tenant, upstream, alias, source FROM facts WHERE received_at < :before
    ORDER BY received_at LIMIT :limit""",
)
_FORGET = change(
    f"{_SOURCE}, before bigint",
    """DELETE FROM facts WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias
    AND source IS NOT DISTINCT FROM :source AND received_at < :before""",
)
_SOME_AWAIT = """SELECT 1 FROM reservations AS r JOIN payments AS p ON p.tenant = r.tenant AND p.id = r.payment
    WHERE r.tenant = :tenant AND p.upstream = :upstream AND p.alias IS NULL"""
_AWAITING = query("tenant text, upstream text", f"{_SOME_AWAIT} LIMIT 1")
_OPENABLE = query(
    "tenant text, upstream text, limit bigint",
    f"""SELECT alias, min(currency) FROM facts WHERE tenant = :tenant AND upstream = :upstream
    AND parked IS NOT NULL AND currency IS NOT NULL AND NOT EXISTS ({_SOME_AWAIT})
    GROUP BY alias LIMIT :limit""",
)


def _find_payment(op: FindPayment, _: Rows) -> Steps[PaymentRow]:
    stored = yield from find(op.tenant, op.machine, op.ref, hold=False)
    if stored is None:
        return PaymentRow()
    return _payment_row(op.machine, stored.id, stored.payment)


def _payment_row(machine: Machine, payment: str, record: Payment) -> PaymentRow:
    return PaymentRow(payment=payment, record=record, standing=standing(machine, record))


# --- Commands --------------------------------------------------------------------------------------------------------


def _admit_command(op: AdmitCommand, _: Rows) -> Steps[AdmitRow]:
    stored = yield from find(op.tenant, op.machine, op.ref, hold=True)
    visit = _opened(op) if stored is None else Visit(op, stored)
    if isinstance(visit, AdmitRow):
        return visit
    asked = admit(op.machine, visit.payment, op.command, op.amount, op.currency, total=op.total)
    if not isinstance(asked, Admitted):
        known = "" if stored is None else visit.id
        return AdmitRow(refused=True, payment=known, why=asked.why, standing=asked.standing)
    yield from visit.reserve(op.owner, asked.reservation)
    amount = asked.reservation.amount
    what = f"{op.command}.requested"
    yield from visit.changed(what, asked.payment, command=op.command, amount=amount, request=op.owner)
    yield from visit.save()
    return AdmitRow(payment=visit.id, admitted=asked)


def _opened(op: AdmitCommand) -> Visit | AdmitRow:
    """A payment for a command that names none, or one that nobody knows; or the row that says why there is none."""
    ref = op.ref
    if ref.payment is not None or (ref.alias is not None and op.on_missing == "reject"):
        return AdmitRow(refused=True, payment="")
    if ref.alias is not None and op.on_missing == "observe":
        return AdmitRow(payment="")
    if op.currency is None:
        return AdmitRow(refused=True, payment="", why=BadAmount.CURRENCY_UNKNOWN)
    return Visit.opening(op, ref.upstream, op.new_id, op.currency)


def _end_command(op: EndCommand, _: Rows) -> Steps[EndRow]:
    found = yield from find_held(op.tenant, op.machine, op.owner)
    if found is None:
        return EndRow(refused=not op.observed)
    stored, held = found
    visit = Visit(op, stored)
    foreign = op.currency not in (None, visit.payment.currency)
    invalid = op.invalid or foreign
    ended = distrust(visit.payment, held) if invalid else end(op.machine, visit.payment, held, op.result, op.amount)
    bound = op.alias is None or (yield from visit.bind(op.alias))
    yield from visit.hold(held, ended.held)
    if ended.payment != visit.payment:
        command, asked = held.reservation.command, held.reservation.amount
        result = "unknown" if invalid else op.result
        amount = asked if op.amount is None else op.amount
        yield from visit.changed(
            f"{command}.{result}", ended.payment, ended.violation, command=command, amount=amount, request=op.owner
        )
    if not bound:
        yield from visit.review(ALIAS_TAKEN)
    elif op.alias is not None:
        yield from _hear_parked(visit, op.tenant, stored.upstream, op.alias)
    if op.facts and not foreign:
        yield from visit.hear(op.facts)
    yield from visit.save()
    state = state_of(op.machine, visit.payment)
    return EndRow(payment=visit.id, state=state, version=visit.payment.version, violation=visit.violation or None)


def _review_payment(op: ReviewPayment, _: Rows) -> Steps[PaymentRow]:
    stored = yield from find_by_id(op.tenant, op.machine, op.payment)
    if stored is None or not stored.payment.violation:
        return PaymentRow(refused=True)
    visit = Visit(op, stored)
    yield from visit.changed("review.done", reviewed(visit.payment), reviewed=stored.payment.violation)
    yield from visit.save()
    return _payment_row(op.machine, visit.id, visit.payment)


# --- Facts -----------------------------------------------------------------------------------------------------------


def _record_facts(op: RecordFacts, rows: Rows) -> Steps[FactsRow]:
    if op.given is not None and rows[op.given].verdict is not DeliveryVerdict.ACCEPTED:
        return FactsRow(known=False, duplicate=True)
    key = (op.tenant, op.upstream, op.alias)
    if op.source is not None and not (yield _HEARD, (*key, op.source, micros(op.now))):
        return FactsRow(known=not (yield _IS_PARKED, (*key, op.source)), duplicate=True)
    ref = PaymentRef(op.upstream, alias=op.alias)
    stored = yield from find(op.tenant, op.machine, ref, hold=True)
    stored = stored or (yield from hold_alias(op.tenant, op.machine, ref))
    if stored is not None:
        visit = Visit(op, stored)
    elif op.on_missing == "reject" or op.currency is None or (yield _AWAITING, (op.tenant, op.upstream)):
        told = orjson.dumps([tuple(fact) for fact in op.facts]).decode()
        yield _PARK, (*key, op.source, told, op.currency, micros(op.now))
        return FactsRow(known=False)
    else:
        visit = Visit.opening(op, op.upstream, op.new_id, op.currency)
        yield from visit.bind(op.alias)
    yield from _hear_parked(visit, *key)
    yield from visit.hear(op.facts, op.currency, op.source)
    yield from visit.save()
    return FactsRow(known=True, payment=visit.id, violation=visit.violation or None)


def _parked_facts(op: ParkedFacts, _: Rows) -> Steps[ParkedRow]:
    found = yield _OPENABLE, (op.tenant, op.upstream, op.limit)
    return ParkedRow(payments=tuple((alias, currency) for alias, currency in found))


def _adopt_payment(op: AdoptPayment, _: Rows) -> Steps[PaymentRow]:
    ref = PaymentRef(op.upstream, alias=op.alias)
    stored = yield from find(op.tenant, op.machine, ref, hold=False)
    stored = stored or (yield from hold_alias(op.tenant, op.machine, ref))
    if stored is not None:
        return _payment_row(op.machine, stored.id, stored.payment)
    key = (op.tenant, op.upstream, op.alias)
    visit = Visit.opening(op, op.upstream, op.new_id, op.currency)
    yield from visit.bind(op.alias)
    yield _HEARD, (*key, op.source, micros(op.now))
    parked = yield from _unparked(*key)
    yield from visit.hear([*(fact for _, told, _ in parked for fact in told), *op.facts], op.currency, op.source)
    if any(currency not in (None, op.currency) for _, _, currency in parked):
        yield from visit.review(FACT_INVALID)
    yield from visit.save()
    return _payment_row(op.machine, visit.id, visit.payment)


def _hear_parked(visit: Visit, *key: str) -> Steps[None]:
    """What has been told of the payment before anybody knew it, message by message."""
    for source, told, currency in (yield from _unparked(*key)):
        yield from visit.hear(told, currency, source)


def _unparked(*key: str) -> Steps[list[tuple[str | None, list[Told], str | None]]]:
    """The messages that were parked for a payment, which wait no longer: source, facts and currency of each."""
    rows = yield _PARKED, key
    if rows:
        yield _UNPARK, key
    return [(source, [Told(*fact) for fact in orjson.loads(told)], currency) for told, currency, source in rows]


def _purge_facts(op: PurgeFacts, _: Rows) -> Steps[PurgedRow]:
    before, count = micros(op.before), 0
    old = yield _OLD, (before, op.limit)
    for _tenant, sources in groupby(sorted(old, key=itemgetter(0)), itemgetter(0)):
        count += sum((yield _FORGET, [(*source, before) for source in dict.fromkeys(sources)]))
    return PurgedRow(count=count)


HANDLERS: Final[Handlers] = {
    FindPayment: _find_payment,
    AdmitCommand: _admit_command,
    EndCommand: _end_command,
    ReviewPayment: _review_payment,
    RecordFacts: _record_facts,
    AdoptPayment: _adopt_payment,
    ParkedFacts: _parked_facts,
    PurgeFacts: _purge_facts,
}
