"""One operation's visit to one payment in SQL: what was read, how it changes, and the events that tell of it.

A visit writes events and reservations as they come, and the payment once, at its end (`save`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import apsw
import orjson

from gateway.adapters.sqlite_outbox import add_event
from gateway.adapters.sqlite_tools import micros
from gateway.operations import EventDraft, PaymentRef
from gateway.pure.events import cloud_event, event_type, facts_data, payment_data
from gateway.pure.lifecycle import (
    FACT_INVALID,
    Payment,
    Reservation,
    Told,
    as_record,
    from_record,
    opened,
    under_review,
)
from gateway.pure.lifecycle_machine import Amounts, Machine
from gateway.pure.reservations import Heard, Held, hear

SCHEMA: Final = """
CREATE TABLE payments (
    tenant TEXT NOT NULL, id TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT, machine TEXT NOT NULL,
    currency TEXT NOT NULL, authorised INTEGER NOT NULL, captured INTEGER NOT NULL, voided INTEGER NOT NULL,
    refunded INTEGER NOT NULL, disputed INTEGER NOT NULL, pending TEXT NOT NULL, unknown INTEGER NOT NULL,
    violation TEXT NOT NULL, version INTEGER NOT NULL, events INTEGER NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE payment_aliases (
    tenant TEXT NOT NULL, upstream TEXT NOT NULL, alias TEXT NOT NULL, payment TEXT NOT NULL,
    PRIMARY KEY (tenant, upstream, alias)
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, payment TEXT NOT NULL, command TEXT NOT NULL, amount INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown', 'answered')), reserved_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_by_payment ON reservations (tenant, payment);
"""

_PAYMENT = """SELECT id, upstream, alias, events, currency, authorised, captured, voided, refunded, disputed, pending,
    unknown, violation, version FROM payments WHERE tenant = ? AND id = ?"""
_RESERVATION = "SELECT payment, command, amount, state FROM reservations WHERE tenant = ? AND owner = ?"
_OPEN = """INSERT INTO payments (alias, events, currency, authorised, captured, voided, refunded, disputed, pending,
    unknown, violation, version, updated_at, created_at, tenant, id, upstream, machine)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14, ?15, ?16, ?17)"""
_SAVE = """UPDATE payments SET alias = ?, events = ?, currency = ?, authorised = ?, captured = ?, voided = ?,
    refunded = ?, disputed = ?, pending = ?, unknown = ?, violation = ?, version = ?, updated_at = ?
    WHERE tenant = ? AND id = ?"""
_BIND = "INSERT INTO payment_aliases (tenant, upstream, alias, payment) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_BOUND = "SELECT payment FROM payment_aliases WHERE tenant = ? AND upstream = ? AND alias = ?"
_RESERVE = """INSERT INTO reservations (tenant, owner, payment, command, amount, state, reserved_at)
    VALUES (?, ?, ?, ?, ?, 'in_flight', ?)"""
_HOLDING = """SELECT owner, command, amount, state FROM reservations WHERE tenant = ? AND payment = ?
    ORDER BY reserved_at, owner"""
_HOLD = "UPDATE reservations SET amount = ?, state = ? WHERE tenant = ? AND owner = ?"
_RELEASE = "DELETE FROM reservations WHERE tenant = ? AND owner = ?"


class Stored(NamedTuple):
    """A payment as it was read, or (`new`) as it will be opened; `events` counts those written of it."""

    id: str
    upstream: str
    alias: str | None
    events: int
    payment: Payment
    new: bool = False


class Visitor(Protocol):
    """An operation that visits a payment."""

    @property
    def tenant(self) -> str: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def now(self) -> float: ...
    @property
    def event(self) -> EventDraft: ...


def find(db: apsw.Connection, tenant: str, machine: Machine, ref: PaymentRef) -> Stored | None:
    """The payment that is meant, if it is known."""
    payment = ref.payment
    if payment is None and ref.alias is not None:
        payment = db.execute(_BOUND, (tenant, ref.upstream, ref.alias)).get
    stored = None if payment is None else find_by_id(db, tenant, machine, payment)
    return stored if stored is not None and stored.upstream == ref.upstream else None


def find_by_id(db: apsw.Connection, tenant: str, machine: Machine, payment: str) -> Stored | None:
    """The payment of our own id, at whatever upstream it is."""
    row = db.execute(_PAYMENT, (tenant, payment)).get
    return None if row is None else _stored(machine, *row)


def find_held(db: apsw.Connection, tenant: str, machine: Machine, owner: str) -> tuple[Stored, Held] | None:
    """The reservation of an owner, and the payment that it is of."""
    row = db.execute(_RESERVATION, (tenant, owner)).get
    stored = None if row is None else find_by_id(db, tenant, machine, row[0])
    return None if stored is None else (stored, _held(owner, *row[1:]))


def _stored(machine: Machine, payment: str, upstream: str, alias: str | None, events: int, *columns: Any) -> Stored:
    currency, *amounts, pending, unknown, violation, version = columns
    record = {
        "currency": currency,
        **dict(zip(Amounts._fields, amounts, strict=True)),
        "pending": orjson.loads(pending),
        "unknown": unknown,
        "violation": violation,
        "version": version,
    }
    return Stored(payment, upstream, alias, events, from_record(machine, record))


def _held(owner: str, command: str, amount: int, state: str) -> Held:
    return Held(owner, Reservation(command, amount, state == "unknown"), state == "answered")


class Visit:
    """`violation` is the first that came up during the visit, empty if none did."""

    __slots__ = ("_db", "_op", "_stored", "alias", "events", "id", "payment", "violation")

    def __init__(self, db: apsw.Connection, op: Visitor, stored: Stored) -> None:
        self._db = db
        self._op = op
        self._stored = stored
        self.id = stored.id
        self.alias = stored.alias
        self.events = stored.events
        self.payment = stored.payment
        self.violation = ""

    @classmethod
    def opening(cls, db: apsw.Connection, op: Visitor, upstream: str, payment: str, currency: str) -> Visit:
        """A visit to a payment that does not exist yet."""
        return cls(db, op, Stored(payment, upstream, None, 0, opened(op.machine, currency), new=True))

    def changed(self, what: str, payment: Payment, violation: str = "", **detail: object) -> None:
        """The payment is another from now on, and an event tells why; a second one, if it went under review."""
        before, self.payment = self.payment, payment
        self._tell(what, before, detail)
        if violation:
            self._reviewing(violation)

    def review(self, violation: str) -> None:
        """Put the payment under review."""
        self.payment = under_review(self.payment, violation).payment
        self._reviewing(violation)

    def _reviewing(self, violation: str) -> None:
        self.violation = self.violation or violation
        self._tell("review.required", self.payment, {"broken": violation})

    def _tell(self, what: str, before: Payment, detail: dict[str, object]) -> None:
        op = self._op
        self.events += 1
        event, kind = op.event.mint(), event_type(op.event.type_prefix, what)
        payload = cloud_event(
            event=event,
            source=op.event.source,
            kind=kind,
            subject=self.id,
            sequence=self.events,
            now=op.now,
            data={"alias": self.alias, **detail, **payment_data(op.machine, before, self.payment)},
        )
        add_event(self._db, op.tenant, self.id, self.events, event=event, kind=kind, payload=payload, now=op.now)

    def reserve(self, owner: str, reservation: Reservation) -> None:
        """Write the reservation of an admitted command."""
        columns = (self.id, reservation.command, reservation.amount, micros(self._op.now))
        self._db.execute(_RESERVE, (self._op.tenant, owner, *columns))

    def hold(self, before: Held, held: Held | None) -> None:
        """Write what has become of a reservation; None: there is nothing to wait for any more."""
        if held is None:
            self._db.execute(_RELEASE, (self._op.tenant, before.owner))
        elif held != before:
            state = "answered" if held.answered else "unknown" if held.reservation.unknown else "in_flight"
            self._db.execute(_HOLD, (held.reservation.amount, state, self._op.tenant, held.owner))

    def bind(self, alias: str) -> bool:
        """The provider calls the payment so; False if that is another payment's name."""
        key = (self._op.tenant, self._stored.upstream, alias)
        self._db.execute(_BIND, (*key, self.id))
        if not self._db.changes() and self._db.execute(_BOUND, key).get != self.id:
            return False
        self.alias = self.alias or alias
        return True

    def hear(self, facts: Sequence[Told], currency: str | None = None, source: str | None = None) -> None:
        """What one message tells; what is known already is told to nobody."""
        if currency is not None and currency != self.payment.currency:
            payment = under_review(self.payment, FACT_INVALID).payment
            heard = Heard(payment, (), FACT_INVALID)
        else:
            heard = hear(self._op.machine, self.payment, self._holding(), facts)
        if heard.payment == self.payment:
            return
        for held in heard.settled:
            self._db.execute(_HOLD, (held.reservation.amount, "answered", self._op.tenant, held.owner))
        told = {"facts": facts_data(facts), "told_in": source}
        self.changed("facts.recorded", heard.payment, heard.violation, **told)

    def _holding(self) -> list[Held]:
        if not any(self.payment.pending):
            return []
        rows: list[Any] = self._db.execute(_HOLDING, (self._op.tenant, self.id)).fetchall()
        return [_held(*row) for row in rows]

    def save(self) -> None:
        """Write the payment."""
        op, stored, payment = self._op, self._stored, self.payment
        pending = orjson.dumps(as_record(op.machine, payment)["pending"]).decode()
        columns = (
            *(self.alias, self.events, payment.currency, *payment.amounts),
            *(pending, payment.unknown, payment.violation, payment.version, micros(op.now), op.tenant, self.id),
        )
        if stored.new:
            self._db.execute(_OPEN, (*columns, stored.upstream, op.machine.name))
        else:
            self._db.execute(_SAVE, columns)
