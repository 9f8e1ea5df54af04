"""One operation's visit to one payment in SQL: what was read, how it changes, and the events that tell of it.

A visit writes events and reservations as they come, and the payment once, at its end (`save`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from gateway.adapters.sql_outbox import add_event
from gateway.adapters.sql_statements import Steps, change, hold, micros, query
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

_COLUMNS = """id, upstream, alias, events, currency, authorised, captured, voided, refunded, disputed, pending, unknown,
    violation, version"""
_PAYMENT = query("tenant text, id text", f"SELECT {_COLUMNS} FROM payments WHERE tenant = :tenant AND id = :id")
_HELD_PAYMENT = query(
    "tenant text, id text", f"SELECT {_COLUMNS} FROM payments WHERE tenant = :tenant AND id = :id", lock=True
)
_PAYMENT_OF = query(
    "tenant text, owner text",
    f"""SELECT {_COLUMNS} FROM payments WHERE tenant = :tenant
    AND id = (SELECT payment FROM reservations WHERE tenant = :tenant AND owner = :owner)""",
    lock=True,
)
_RESERVATION = query(
    "tenant text, owner text",
    "SELECT command, amount, state FROM reservations WHERE tenant = :tenant AND owner = :owner",
)
_RECORD = """tenant text, id text, upstream text, alias text, events bigint, currency text, authorised bigint,
    captured bigint, voided bigint, refunded bigint, disputed bigint, pending text, unknown bigint, violation text,
    version bigint, now bigint, machine text"""
_OPEN = change(
    _RECORD,
    """INSERT INTO payments (tenant, id, upstream, alias, events, currency, authorised, captured, voided, refunded,
    disputed, pending, unknown, violation, version, updated_at, created_at, machine)
    VALUES (:tenant, :id, :upstream, :alias, :events, :currency, :authorised, :captured, :voided, :refunded,
    :disputed, :pending, :unknown, :violation, :version, :now, :now, :machine)""",
)
_SAVE = change(
    _RECORD.replace(" upstream text,", "").replace(", machine text", ""),
    """UPDATE payments SET alias = :alias, events = :events, currency = :currency, authorised = :authorised,
    captured = :captured, voided = :voided, refunded = :refunded, disputed = :disputed, pending = :pending,
    unknown = :unknown, violation = :violation, version = :version, updated_at = :now
    WHERE tenant = :tenant AND id = :id""",
)
_ALIAS = "tenant text, upstream text, alias text"
_BOUND = query(
    _ALIAS,
    """SELECT payment FROM payment_aliases
    WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias AND payment <> ''""",
)
_BIND = change(
    f"{_ALIAS}, payment text",
    """INSERT INTO payment_aliases (tenant, upstream, alias, payment) VALUES (:tenant, :upstream, :alias, :payment)
    ON CONFLICT (tenant, upstream, alias) DO UPDATE SET payment = excluded.payment
    WHERE payment_aliases.payment = ''""",
    key="tenant upstream alias",
)
_HOLD_ALIAS = hold(
    _ALIAS,
    """WITH held AS (
        INSERT INTO payment_aliases (tenant, upstream, alias, payment)
        SELECT :tenant, :upstream, :alias, '' FROM {input} ORDER BY i.n_
        ON CONFLICT (tenant, upstream, alias) DO UPDATE SET payment = payment_aliases.payment
        RETURNING tenant, upstream, alias, payment)
    SELECT i.n_, held.payment FROM {input} JOIN held
    ON held.tenant = :tenant AND held.upstream = :upstream AND held.alias = :alias""",
    writes=True,
)
_RESERVE = change(
    "tenant text, owner text, payment text, command text, amount bigint, now bigint",
    """INSERT INTO reservations (tenant, owner, payment, command, amount, state, reserved_at)
    VALUES (:tenant, :owner, :payment, :command, :amount, 'in_flight', :now)""",
)
_HOLDING = query(
    "tenant text, payment text",
    """SELECT owner, command, amount, state FROM reservations WHERE tenant = :tenant AND payment = :payment
    ORDER BY reserved_at, owner""",
)
_HOLD = change(
    "tenant text, owner text, amount bigint, state text",
    "UPDATE reservations SET amount = :amount, state = :state WHERE tenant = :tenant AND owner = :owner",
)
_RELEASE = change("tenant text, owner text", "DELETE FROM reservations WHERE tenant = :tenant AND owner = :owner")


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


def find(tenant: str, machine: Machine, ref: PaymentRef, *, hold: bool) -> Steps[Stored | None]:
    """The payment that is meant, if it is known. With `hold` it is nobody else's until the unit is committed."""
    payment = ref.payment
    if payment is None and ref.alias is not None:
        bound = yield _BOUND, (tenant, ref.upstream, ref.alias)
        payment = bound[0][0] if bound else None
    if payment is None:
        return None
    rows = yield _HELD_PAYMENT if hold else _PAYMENT, (tenant, payment)
    stored = _stored(machine, *rows[0]) if rows else None
    return stored if stored is not None and stored.upstream == ref.upstream else None


def find_by_id(tenant: str, machine: Machine, payment: str) -> Steps[Stored | None]:
    """The payment of our own id, at whatever upstream it is; held."""
    rows = yield _HELD_PAYMENT, (tenant, payment)
    return _stored(machine, *rows[0]) if rows else None


def find_held(tenant: str, machine: Machine, owner: str) -> Steps[tuple[Stored, Held] | None]:
    """The reservation of an owner, and the payment that it is of; held, the payment first."""
    rows = yield _PAYMENT_OF, (tenant, owner)
    if not rows:
        return None
    reservation = yield _RESERVATION, (tenant, owner)
    return (_stored(machine, *rows[0]), _held(owner, *reservation[0])) if reservation else None


def hold_alias(tenant: str, machine: Machine, ref: PaymentRef) -> Steps[Stored | None]:
    """Before it is said that nobody knows an alias: nobody else can bind it from here on. The payment that somebody
    has bound it to in between, if so.
    """
    held = yield _HOLD_ALIAS, (tenant, ref.upstream, ref.alias)
    if not held or not held[0][0]:
        return None
    return (yield from find(tenant, machine, ref, hold=True))


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

    __slots__ = ("_op", "_stored", "alias", "events", "id", "payment", "violation")

    def __init__(self, op: Visitor, stored: Stored) -> None:
        self._op = op
        self._stored = stored
        self.id = stored.id
        self.alias = stored.alias
        self.events = stored.events
        self.payment = stored.payment
        self.violation = ""

    @classmethod
    def opening(cls, op: Visitor, upstream: str, payment: str, currency: str) -> Visit:
        """A visit to a payment that does not exist yet."""
        return cls(op, Stored(payment, upstream, None, 0, opened(op.machine, currency), new=True))

    def changed(self, what: str, payment: Payment, violation: str = "", **detail: object) -> Steps[None]:
        """The payment is another from now on, and an event tells why; a second one, if it went under review."""
        before, self.payment = self.payment, payment
        yield from self._tell(what, before, detail)
        if violation:
            yield from self._reviewing(violation)

    def review(self, violation: str) -> Steps[None]:
        """Put the payment under review."""
        self.payment = under_review(self.payment, violation).payment
        return self._reviewing(violation)

    def _reviewing(self, violation: str) -> Steps[None]:
        self.violation = self.violation or violation
        return self._tell("review.required", self.payment, {"broken": violation})

    def _tell(self, what: str, before: Payment, detail: dict[str, object]) -> Steps[None]:
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
        return add_event(op.tenant, self.id, self.events, event=event, kind=kind, payload=payload, now=op.now)

    def reserve(self, owner: str, reservation: Reservation) -> Steps[None]:
        """Write the reservation of an admitted command."""
        columns = (self.id, reservation.command, reservation.amount, micros(self._op.now))
        yield _RESERVE, (self._op.tenant, owner, *columns)

    def hold(self, before: Held, held: Held | None) -> Steps[None]:
        """Write what has become of a reservation; None: there is nothing to wait for any more."""
        if held is None:
            yield _RELEASE, (self._op.tenant, before.owner)
        elif held != before:
            state = "answered" if held.answered else "unknown" if held.reservation.unknown else "in_flight"
            yield _HOLD, (self._op.tenant, held.owner, held.reservation.amount, state)

    def bind(self, alias: str) -> Steps[bool]:
        """The provider calls the payment so; False if that is another payment's name."""
        if alias == self.alias:
            return True
        key = (self._op.tenant, self._stored.upstream, alias)
        if not (yield _BIND, (*key, self.id)) and (yield _BOUND, key) != [(self.id,)]:
            return False
        self.alias = self.alias or alias
        return True

    def hear(self, facts: Sequence[Told], currency: str | None = None, source: str | None = None) -> Steps[None]:
        """What one message tells; what is known already is told to nobody."""
        if currency is not None and currency != self.payment.currency:
            payment = under_review(self.payment, FACT_INVALID).payment
            heard = Heard(payment, (), FACT_INVALID)
        else:
            heard = hear(self._op.machine, self.payment, (yield from self._holding()), facts)
        if heard.payment == self.payment:
            return
        for held in heard.settled:
            yield _HOLD, (self._op.tenant, held.owner, held.reservation.amount, "answered")
        told = {"facts": facts_data(facts), "told_in": source}
        yield from self.changed("facts.recorded", heard.payment, heard.violation, **told)

    def _holding(self) -> Steps[list[Held]]:
        if not any(self.payment.pending):
            return []
        rows = yield _HOLDING, (self._op.tenant, self.id)
        return [_held(*row) for row in rows]

    def save(self) -> Steps[None]:
        """Write the payment."""
        op, stored, payment = self._op, self._stored, self.payment
        pending = orjson.dumps(as_record(op.machine, payment)["pending"]).decode()
        columns = (
            *(self.alias, self.events, payment.currency, *payment.amounts),
            *(pending, payment.unknown, payment.violation, payment.version, micros(op.now)),
        )
        if stored.new:
            yield _OPEN, (op.tenant, self.id, stored.upstream, *columns, op.machine.name)
        else:
            yield _SAVE, (op.tenant, self.id, *columns)
