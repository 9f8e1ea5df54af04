"""Webhook deliveries in SQL."""

from __future__ import annotations

from typing import Any, Final

import apsw

from gateway.adapters.sqlite_tools import DONE, Handlers, micros
from gateway.operations import (
    Delivery,
    DeliveryRow,
    DeliveryVerdict,
    DueDeliveries,
    DueRow,
    ForwardedDelivery,
    PutDelivery,
    RetryDelivery,
    Row,
    Rows,
)

QUARANTINED_PER_KEY_MAX: Final = 16
"""Bodies kept in quarantine for one key: a signature that covers only part of a body must not help to fill the disk."""

SCHEMA: Final = """
CREATE TABLE deliveries (
    tenant TEXT NOT NULL, id TEXT NOT NULL, route TEXT NOT NULL, provider TEXT NOT NULL, key TEXT NOT NULL,
    digest BLOB NOT NULL, sealed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'forwarded', 'parked', 'quarantined')),
    received_at INTEGER NOT NULL, next_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    forwarded_at INTEGER, note TEXT,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE UNIQUE INDEX deliveries_by_key ON deliveries (tenant, key, route, provider, digest);
CREATE INDEX deliveries_pending ON deliveries (received_at, next_at) WHERE state = 'pending';
"""
_DELIVERIES_OF_KEY = """SELECT digest, state FROM deliveries
    WHERE tenant = ? AND key = ? AND route = ? AND provider = ?"""
_ADD_DELIVERY = """INSERT INTO deliveries
    (tenant, id, route, provider, key, digest, sealed, state, received_at, next_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_DUE = """SELECT tenant, id, route, provider, key, sealed, received_at / 1e6, attempts FROM deliveries
    WHERE state = 'pending' AND next_at <= ? ORDER BY received_at, rowid LIMIT ?"""
_PENDING = "SELECT count(*), coalesce(min(received_at), 0) / 1e6 FROM deliveries WHERE state = 'pending'"
_FORWARDED = """UPDATE deliveries SET state = 'forwarded', forwarded_at = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ?"""
_RETRY = """UPDATE deliveries SET next_at = ?, note = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ? AND state = 'pending'"""
_PARK = """UPDATE deliveries SET state = 'parked', note = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ? AND state = 'pending'"""


def _put_delivery(db: apsw.Connection, op: PutDelivery, _: Rows) -> DeliveryRow:
    rows: list[Any] = db.execute(_DELIVERIES_OF_KEY, (op.tenant, op.key, op.route, op.provider)).fetchall()
    seen: dict[bytes, str] = dict(rows)
    if not seen:
        _add_delivery(db, op, "pending")
        return DeliveryRow(verdict=DeliveryVerdict.ACCEPTED)
    if seen.get(op.digest, "quarantined") != "quarantined":
        return DeliveryRow(verdict=DeliveryVerdict.DUPLICATE)
    if op.digest not in seen and len(seen) <= QUARANTINED_PER_KEY_MAX:
        _add_delivery(db, op, "quarantined")
    return DeliveryRow(verdict=DeliveryVerdict.CONFLICT)


def _add_delivery(db: apsw.Connection, op: PutDelivery, state: str) -> None:
    now = micros(op.now)
    db.execute(_ADD_DELIVERY, (op.tenant, op.id, op.route, op.provider, op.key, op.digest, op.sealed, state, now, now))


def _due_deliveries(db: apsw.Connection, op: DueDeliveries, _: Rows) -> DueRow:
    due: list[Any] = db.execute(_DUE, (micros(op.now), op.limit)).fetchall()
    pending, oldest = db.execute(_PENDING).get
    return DueRow(due=tuple(Delivery(*columns) for columns in due), pending=pending, oldest=oldest)


def _forwarded_delivery(db: apsw.Connection, op: ForwardedDelivery, _: Rows) -> Row:
    db.execute(_FORWARDED, (micros(op.now), op.tenant, op.id))
    return DONE


def _retry_delivery(db: apsw.Connection, op: RetryDelivery, _: Rows) -> Row:
    if op.next_at is None:
        db.execute(_PARK, (op.note, op.tenant, op.id))
    else:
        db.execute(_RETRY, (micros(op.next_at), op.note, op.tenant, op.id))
    return DONE


HANDLERS: Final[Handlers] = {
    PutDelivery: _put_delivery,
    DueDeliveries: _due_deliveries,
    ForwardedDelivery: _forwarded_delivery,
    RetryDelivery: _retry_delivery,
}
