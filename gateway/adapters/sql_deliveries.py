"""Webhook deliveries in SQL."""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters.sql_statements import (
    DONE,
    Handlers,
    Steps,
    Values,
    change,
    micros,
    query,
    returning,
    seconds,
    taken,
)
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

_DELIVERIES_OF_KEY = query(
    "tenant text, key text, route text, provider text",
    """SELECT digest, state FROM deliveries
    WHERE tenant = :tenant AND key = :key AND route = :route AND provider = :provider""",
)
_ADD_DELIVERY = change(
    """tenant text, key text, route text, provider text, digest bytea, id text, sealed bytea, state text,
    now bigint""",
    """INSERT INTO deliveries (tenant, id, route, provider, key, digest, sealed, state, received_at, next_at)
    VALUES (:tenant, :id, :route, :provider, :key, :digest, :sealed, :state, :now, :now)
    ON CONFLICT DO NOTHING""",
    key="tenant id",
)
_DUE = query(
    "now bigint, limit bigint",
    """SELECT tenant, id FROM deliveries WHERE state = 'pending' AND next_at <= :now AND leased_until <= :now
    ORDER BY received_at, id LIMIT :limit""",
)
_TAKE = returning(
    "tenant text, id text, now bigint, until bigint",
    """UPDATE deliveries SET leased_until = :until
    WHERE tenant = :tenant AND id = :id AND state = 'pending' AND next_at <= :now AND leased_until <= :now""",
    "received_at, tenant, id, route, provider, key, sealed, attempts",
)
_PENDING = query("", "SELECT count(*), coalesce(min(received_at), 0) FROM deliveries WHERE state = 'pending'")
_FORWARDED = change(
    "tenant text, id text, now bigint",
    """UPDATE deliveries SET state = 'forwarded', forwarded_at = :now, attempts = attempts + 1
    WHERE tenant = :tenant AND id = :id""",
)
_RETRY = change(
    "tenant text, id text, next_at bigint, note text",
    """UPDATE deliveries SET next_at = :next_at, leased_until = 0, note = :note, attempts = attempts + 1
    WHERE tenant = :tenant AND id = :id AND state = 'pending'""",
)
_PARK = change(
    "tenant text, id text, note text",
    """UPDATE deliveries SET state = 'parked', note = :note, attempts = attempts + 1
    WHERE tenant = :tenant AND id = :id AND state = 'pending'""",
)


def _put_delivery(op: PutDelivery, _: Rows) -> Steps[DeliveryRow]:
    key = (op.tenant, op.key, op.route, op.provider)
    seen: dict[bytes, str] = dict((yield _DELIVERIES_OF_KEY, key))
    if not seen:
        if (yield _ADD_DELIVERY, _columns(op, "pending")):
            return DeliveryRow(verdict=DeliveryVerdict.ACCEPTED)
        seen = dict((yield _DELIVERIES_OF_KEY, key))  # somebody else's has come in between
    if seen.get(op.digest, "quarantined") != "quarantined":
        return DeliveryRow(verdict=DeliveryVerdict.DUPLICATE)
    if op.digest not in seen and len(seen) <= QUARANTINED_PER_KEY_MAX:
        yield _ADD_DELIVERY, _columns(op, "quarantined")
    return DeliveryRow(verdict=DeliveryVerdict.CONFLICT)


def _columns(op: PutDelivery, state: str) -> Values:
    return (op.tenant, op.key, op.route, op.provider, op.digest, op.id, op.sealed, state, micros(op.now))


def _due_deliveries(op: DueDeliveries, _: Rows) -> Steps[DueRow]:
    due = yield from taken(_DUE, _TAKE, micros(op.now), micros(op.now + op.lease), op.limit)
    ((pending, oldest),) = yield _PENDING, ()
    return DueRow(due=tuple(_delivery(*row) for row in sorted(due)), pending=pending, oldest=seconds(oldest))


def _delivery(received_at: int, *columns: Any) -> Delivery:
    *what, attempts = columns
    return Delivery(*[*what, seconds(received_at), attempts])


def _forwarded_delivery(op: ForwardedDelivery, _: Rows) -> Steps[Row]:
    yield _FORWARDED, (op.tenant, op.id, micros(op.now))
    return DONE


def _retry_delivery(op: RetryDelivery, _: Rows) -> Steps[Row]:
    if op.next_at is None:
        yield _PARK, (op.tenant, op.id, op.note)
    else:
        yield _RETRY, (op.tenant, op.id, micros(op.next_at), op.note)
    return DONE


HANDLERS: Final[Handlers] = {
    PutDelivery: _put_delivery,
    DueDeliveries: _due_deliveries,
    ForwardedDelivery: _forwarded_delivery,
    RetryDelivery: _retry_delivery,
}
