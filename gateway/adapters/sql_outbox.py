"""The outbox in SQL: the columns that Debezium's outbox router expects, and what a relay of our own needs.

Of each payment at most one event is `due`, the first that is not sent; those behind it are `queued`, and each is made
due when the one before it was sent. So the relay asks an index for what is due, however long the queues are. Whoever
writes an event holds its payment, and so does whoever says that events were sent: else an event could be queued behind
one that is sent at that moment, and nobody would ever make it due.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters.sql_statements import (
    DONE,
    Handlers,
    Steps,
    by_tenant,
    change,
    changed,
    hold,
    micros,
    query,
    returning,
    seconds,
    taken,
)
from gateway.operations import (
    DueEvents,
    EventLag,
    EventsRow,
    LagRow,
    ListEvents,
    OutboxEvent,
    ParkEvent,
    PurgedRow,
    PurgeEvents,
    ReplayEvent,
    RetryEvent,
    Row,
    Rows,
    SentEvents,
)

_EVENT = "tenant, id, aggregateid, type, sequence, payload, created_at, attempts, next_at, note"

_ADD = change(
    "tenant text, id text, payment text, sequence bigint, type text, payload text, now bigint",
    """INSERT INTO outbox (tenant, id, aggregateid, sequence, type, payload, created_at, next_at, state)
    VALUES (:tenant, :id, :payment, :sequence, :type, :payload, :now, :now, CASE WHEN EXISTS (
        SELECT 1 FROM outbox
        WHERE tenant = :tenant AND aggregateid = :payment AND sequence = :sequence - 1 AND state <> 'sent'
    ) THEN 'queued' ELSE 'due' END)""",
)
_DUE = query(
    "now bigint, limit bigint",
    """SELECT tenant, id FROM outbox
    WHERE state <> 'sent' AND state = 'due' AND next_at <= :now AND leased_until <= :now
    ORDER BY next_at LIMIT :limit""",
)
_TAKE = returning(
    "tenant text, id text, now bigint, until bigint",
    """UPDATE outbox SET leased_until = :until
    WHERE tenant = :tenant AND id = :id AND state = 'due' AND next_at <= :now AND leased_until <= :now""",
    _EVENT,
)
_HOLD_PAYMENTS = hold(
    "tenant text, id text",
    """SELECT i.n_ FROM {input} JOIN outbox AS o ON o.tenant = :tenant AND o.id = :id
    JOIN payments AS p ON p.tenant = o.tenant AND p.id = o.aggregateid ORDER BY p.id FOR UPDATE OF p""",
)
_SENT = returning(
    "tenant text, id text",
    "UPDATE outbox SET state = 'sent', note = NULL WHERE tenant = :tenant AND id = :id AND state = 'due'",
    "tenant, aggregateid, sequence",
)
_PROMOTE = change(
    "tenant text, payment text, sequence bigint",
    """UPDATE outbox SET state = 'due'
    WHERE tenant = :tenant AND aggregateid = :payment AND sequence = :sequence + 1 AND state = 'queued'""",
)
_RETRY = change(
    "tenant text, id text, attempts bigint, next_at bigint, note text",
    """UPDATE outbox SET attempts = :attempts, next_at = :next_at, leased_until = 0, note = :note
    WHERE tenant = :tenant AND id = :id AND state = 'due'""",
)
_PARK = change(
    "tenant text, id text, attempts bigint, note text",
    """UPDATE outbox SET state = 'parked', attempts = :attempts, leased_until = 0, note = :note
    WHERE tenant = :tenant AND id = :id AND state = 'due'""",
)
_REPLAY = change(
    "tenant text, id text, now bigint",
    """UPDATE outbox SET state = 'due', attempts = 0, next_at = :now, leased_until = 0, note = NULL
    WHERE tenant = :tenant AND id = :id AND state IN ('parked', 'sent')""",
)
_LAG = query(
    "",
    """SELECT count(*) FILTER (WHERE state <> 'parked'), count(*) FILTER (WHERE state = 'parked'),
    coalesce(min(created_at) FILTER (WHERE state <> 'parked'), 0) FROM outbox WHERE state <> 'sent'""",
)
_LIST = query(
    "tenant text, state text, limit bigint",
    f"""SELECT {_EVENT} FROM outbox
    WHERE state <> 'sent' AND CASE WHEN state = 'parked' THEN 'parked' ELSE 'pending' END = :state
    AND (:tenant IS NULL OR tenant = :tenant)
    ORDER BY created_at, id LIMIT :limit""",
)
_OLD = query(
    "before bigint, limit bigint",
    """SELECT tenant, id FROM outbox WHERE created_at < :before AND state = 'sent'
    ORDER BY created_at LIMIT :limit""",
)
_OLD_UNSENT = query(
    "before bigint, limit bigint",
    "SELECT tenant, id FROM outbox WHERE created_at < :before ORDER BY created_at LIMIT :limit",
)
_PURGE = returning(
    "tenant text, id text, unsent boolean",
    "DELETE FROM outbox WHERE tenant = :tenant AND id = :id AND (:unsent OR state = 'sent')",
    "tenant, aggregateid, sequence",
)


def add_event(
    tenant: str, payment: str, sequence: int, *, event: str, kind: str, payload: bytes, now: float
) -> Steps[None]:
    """Write an event with what it tells of; sequences of a payment are 1, 2, 3 and so on."""
    yield _ADD, (tenant, event, payment, sequence, kind, payload.decode(), micros(now))


def _due_events(op: DueEvents, _: Rows) -> Steps[EventsRow]:
    return _events((yield from taken(_DUE, _TAKE, micros(op.now), micros(op.now + op.lease), op.limit)))


def _events(rows: list[Any]) -> EventsRow:
    rows.sort(key=lambda row: (row[6], row[4]))
    return EventsRow(events=tuple(_event(*row) for row in rows))


def _event(*columns: Any) -> OutboxEvent:
    tenant, event, payment, kind, sequence, payload, created_at, attempts, next_at, note = columns
    written = sequence, payload.encode(), seconds(created_at)
    return OutboxEvent(tenant, event, payment, kind, *written, attempts, seconds(next_at), note)


def _sent_events(op: SentEvents, _: Rows) -> Steps[Row]:
    for keys in by_tenant(op.keys):
        yield _HOLD_PAYMENTS, keys
        yield from _promote_behind((yield _SENT, keys))
    return DONE


def _promote_behind(gone: list[Any]) -> Steps[int]:
    """The events behind those that are sent, or deleted, are due; how many are gone."""
    places = [place for found in gone for place in found]
    yield _PROMOTE, places
    return len(places)


def _retry_event(op: RetryEvent, _: Rows) -> Steps[Row]:
    return changed((yield _RETRY, (op.tenant, op.id, op.attempts, micros(op.next_at), op.note)))


def _park_event(op: ParkEvent, _: Rows) -> Steps[Row]:
    return changed((yield _PARK, (op.tenant, op.id, op.attempts, op.note)))


def _replay_event(op: ReplayEvent, _: Rows) -> Steps[Row]:
    return changed((yield _REPLAY, (op.tenant, op.id, micros(op.now))))


def _event_lag(_: EventLag, __: Rows) -> Steps[LagRow]:
    ((pending, parked, oldest),) = yield _LAG, ()
    return LagRow(pending=pending, parked=parked, oldest=seconds(oldest))


def _list_events(op: ListEvents, _: Rows) -> Steps[EventsRow]:
    return _events((yield _LIST, (op.tenant, op.state, op.limit)))


def _purge_events(op: PurgeEvents, _: Rows) -> Steps[PurgedRow]:
    count = 0
    old = yield (_OLD_UNSENT if op.unsent else _OLD), (micros(op.before), op.limit)
    for keys in by_tenant(old):
        yield _HOLD_PAYMENTS, keys
        count += yield from _promote_behind((yield _PURGE, [(*key, op.unsent) for key in keys]))
    return PurgedRow(count=count)


HANDLERS: Final[Handlers] = {
    DueEvents: _due_events,
    SentEvents: _sent_events,
    RetryEvent: _retry_event,
    ParkEvent: _park_event,
    ReplayEvent: _replay_event,
    EventLag: _event_lag,
    ListEvents: _list_events,
    PurgeEvents: _purge_events,
}
