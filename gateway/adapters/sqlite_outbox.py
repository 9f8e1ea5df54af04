"""The outbox in SQL: the columns that Debezium's outbox router expects, and what a relay of our own needs.

Of each payment at most one event is `due`, the first that is not sent; those behind it are `queued`, and each is made
due when the one before it was sent. So the relay asks an index for what is due, however long the queues are.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from gateway.adapters.sqlite_tools import DONE, Handlers, changed, micros
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

SCHEMA: Final = """
CREATE TABLE outbox (
    tenant TEXT NOT NULL, id TEXT NOT NULL, aggregatetype TEXT NOT NULL DEFAULT 'payment', aggregateid TEXT NOT NULL,
    type TEXT NOT NULL, payload TEXT NOT NULL, sequence INTEGER NOT NULL, created_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'due', 'parked', 'sent')),
    attempts INTEGER NOT NULL DEFAULT 0, next_at INTEGER NOT NULL, leased_until INTEGER NOT NULL DEFAULT 0, note TEXT
) STRICT;
CREATE UNIQUE INDEX outbox_by_payment ON outbox (tenant, aggregateid, sequence);
CREATE UNIQUE INDEX outbox_by_id ON outbox (tenant, id);
CREATE INDEX outbox_unsent ON outbox (state, next_at, created_at) WHERE state <> 'sent';
CREATE INDEX outbox_by_age ON outbox (created_at);
"""
ON_OPENING: Final = "UPDATE outbox SET leased_until = 0 WHERE state <> 'sent' AND state = 'due' AND leased_until > 0"
"""For a store that is opened: whoever took these events is gone."""

_ADD = """INSERT INTO outbox (tenant, id, aggregateid, sequence, type, payload, created_at, next_at, state)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, iif(EXISTS (
        SELECT 1 FROM outbox WHERE tenant = ?1 AND aggregateid = ?3 AND sequence = ?4 - 1 AND state <> 'sent'
    ), 'queued', 'due'))"""
_TAKE = """UPDATE outbox SET leased_until = ?3 WHERE rowid IN (
    SELECT rowid FROM outbox WHERE state <> 'sent' AND state = 'due' AND next_at <= ?1 AND leased_until <= ?1
    ORDER BY next_at LIMIT ?2)
    RETURNING tenant, id, aggregateid, type, sequence, payload, created_at, attempts, next_at, note"""
_SENT = """UPDATE outbox SET state = 'sent', note = NULL WHERE tenant = ? AND id = ? AND state = 'due'
    RETURNING aggregateid, sequence"""
_PROMOTE = """UPDATE outbox SET state = 'due'
    WHERE tenant = ? AND aggregateid = ? AND sequence = ? + 1 AND state = 'queued'"""
_RETRY = """UPDATE outbox SET attempts = ?, next_at = ?, leased_until = 0, note = ?
    WHERE tenant = ? AND id = ? AND state = 'due'"""
_PARK = """UPDATE outbox SET state = 'parked', attempts = ?, leased_until = 0, note = ?
    WHERE tenant = ? AND id = ? AND state = 'due'"""
_REPLAY = """UPDATE outbox SET state = 'due', attempts = 0, next_at = ?, leased_until = 0, note = NULL
    WHERE tenant = ? AND id = ? AND state IN ('parked', 'sent')"""
_LAG = """SELECT coalesce(sum(state <> 'parked'), 0), coalesce(sum(state = 'parked'), 0),
    coalesce(min(created_at) FILTER (WHERE state <> 'parked'), 0) / 1e6 FROM outbox WHERE state <> 'sent'"""
_LIST = """SELECT tenant, id, aggregateid, type, sequence, payload, created_at, attempts, next_at, note FROM outbox
    WHERE state <> 'sent' AND (state = 'parked') = ?2 AND (?1 IS NULL OR tenant = ?1)
    ORDER BY created_at, rowid LIMIT ?3"""
_PURGE_SENT = """DELETE FROM outbox WHERE rowid IN (
    SELECT rowid FROM outbox WHERE created_at < ? AND state = 'sent' ORDER BY created_at LIMIT ?)"""
_PURGE_ALL = """DELETE FROM outbox WHERE rowid IN (
    SELECT rowid FROM outbox WHERE created_at < ? ORDER BY created_at LIMIT ?)
    RETURNING tenant, aggregateid, sequence"""


def add_event(
    db: apsw.Connection, tenant: str, payment: str, sequence: int, *, event: str, kind: str, payload: bytes, now: float
) -> None:
    """Write an event with what it tells of; sequences of a payment are 1, 2, 3 and so on."""
    db.execute(_ADD, (tenant, event, payment, sequence, kind, payload.decode(), micros(now)))


def _due_events(db: apsw.Connection, op: DueEvents, _: Rows) -> EventsRow:
    now = micros(op.now)
    return _events(db.execute(_TAKE, (now, op.limit, micros(op.now + op.lease))).fetchall())


def _events(rows: list[Any]) -> EventsRow:
    rows.sort(key=lambda row: (row[6], row[4]))
    return EventsRow(events=tuple(_event(*row) for row in rows))


def _event(*columns: Any) -> OutboxEvent:
    tenant, event, payment, kind, sequence, payload, created_at, attempts, next_at, note = columns
    written = sequence, payload.encode(), created_at / 1e6
    return OutboxEvent(tenant, event, payment, kind, *written, attempts, next_at / 1e6, note)


def _sent_events(db: apsw.Connection, op: SentEvents, _: Rows) -> Row:
    for key in op.keys:
        sent = db.execute(_SENT, key).get
        if sent is not None:
            db.execute(_PROMOTE, (key[0], *sent))
    return DONE


def _retry_event(db: apsw.Connection, op: RetryEvent, _: Rows) -> Row:
    db.execute(_RETRY, (op.attempts, micros(op.next_at), op.note, op.tenant, op.id))
    return changed(db)


def _park_event(db: apsw.Connection, op: ParkEvent, _: Rows) -> Row:
    db.execute(_PARK, (op.attempts, op.note, op.tenant, op.id))
    return changed(db)


def _replay_event(db: apsw.Connection, op: ReplayEvent, _: Rows) -> Row:
    db.execute(_REPLAY, (micros(op.now), op.tenant, op.id))
    return changed(db)


def _event_lag(db: apsw.Connection, _: EventLag, __: Rows) -> LagRow:
    pending, parked, oldest = db.execute(_LAG).get
    return LagRow(pending=pending, parked=parked, oldest=oldest)


def _list_events(db: apsw.Connection, op: ListEvents, _: Rows) -> EventsRow:
    return _events(db.execute(_LIST, (op.tenant, op.state == "parked", op.limit)).fetchall())


def _purge_events(db: apsw.Connection, op: PurgeEvents, _: Rows) -> PurgedRow:
    which = (micros(op.before), op.limit)
    if not op.unsent:
        db.execute(_PURGE_SENT, which)
        return PurgedRow(count=db.changes())
    purged: list[Any] = db.execute(_PURGE_ALL, which).fetchall()
    db.executemany(_PROMOTE, purged)
    return PurgedRow(count=len(purged))


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
