"""What a unit touches: no two units of one transaction touch the same thing, for they take their steps together.

Units that share nothing come to the same in whatever order their steps are run. Tokens are not named here: putting one
and the same value twice at the same time ends in one token, whoever is first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from gateway.adapters.sql_statements import Values, hold
from gateway.operations import (
    AdmitCommand,
    AdoptPayment,
    AskKey,
    ClaimKey,
    DeleteToken,
    DoubtCall,
    DoubtKey,
    EndCall,
    EndCommand,
    FinishKey,
    ForwardedDelivery,
    Operation,
    ParkEvent,
    PutDelivery,
    RecordCall,
    RecordFacts,
    ReleaseKey,
    ReplayEvent,
    ResendCall,
    RetryDelivery,
    RetryEvent,
    ReviewPayment,
    Row,
)

Thing: TypeAlias = tuple[Hashable, ...]
Unit: TypeAlias = tuple[Operation[Row], ...]

HOLD_PAYMENTS: Final = hold(
    "tenant text, payment text, upstream text, alias text, owner text",
    """SELECT i.n_, p.id FROM {input} JOIN payments AS p ON p.tenant = :tenant AND p.id = coalesce(
        :payment,
        (SELECT payment FROM payment_aliases WHERE tenant = :tenant AND upstream = :upstream AND alias = :alias),
        (SELECT payment FROM reservations WHERE tenant = :tenant AND owner = :owner))
    ORDER BY p.id FOR UPDATE OF p""",
)
"""All payments that the units of a transaction visit, in one order for everybody: so nobody waits in a circle."""


def _key(op: Any) -> Iterator[Thing]:
    yield "key", op.scope


def _call(op: Any) -> Iterator[Thing]:
    yield "owner", op.owner


def _admitted(op: AdmitCommand) -> Iterator[Thing]:
    yield "owner", op.owner
    yield "payment", op.ref.payment or op.new_id
    if op.ref.alias is not None:
        yield "alias", op.ref.alias


def _ended(op: EndCommand) -> Iterator[Thing]:
    yield "owner", op.owner
    if op.alias is not None:
        yield "alias", op.alias


def _named(op: Any) -> Iterator[Thing]:
    yield "alias", op.alias
    yield "payment", op.new_id


def _event(op: Any) -> Iterator[Thing]:
    yield "event", op.id


_TOUCHED: Final[Mapping[type[Operation[Any]], Callable[[Any], Iterator[Thing]]]] = {
    ClaimKey: _key,
    AskKey: _key,
    FinishKey: _key,
    ReleaseKey: _key,
    DoubtKey: _key,
    RecordCall: _call,
    EndCall: _call,
    DoubtCall: _call,
    ResendCall: _call,
    AdmitCommand: _admitted,
    EndCommand: _ended,
    RecordFacts: _named,
    AdoptPayment: _named,
    ReviewPayment: lambda op: iter([("payment", op.payment)]),
    DeleteToken: lambda op: iter([("token", op.token)]),
    PutDelivery: lambda op: iter([("delivery", op.key, op.route, op.provider), ("delivery", op.id)]),
    ForwardedDelivery: lambda op: iter([("delivery", op.id)]),
    RetryDelivery: lambda op: iter([("delivery", op.id)]),
    RetryEvent: _event,
    ParkEvent: _event,
    ReplayEvent: _event,
}


def touched(unit: Unit) -> set[Thing]:
    """The names that a unit gives to what it changes."""
    found: set[Thing] = set()
    for operation in unit:
        names = _TOUCHED.get(type(operation))
        if names is not None:
            found.update(names(operation))
    return found


def visited(unit: Unit) -> Iterator[Values]:
    """The payments that a unit visits, as `HOLD_PAYMENTS` finds them."""
    for op in unit:
        if isinstance(op, AdmitCommand):
            yield op.tenant, op.ref.payment, op.ref.upstream, op.ref.alias, None
        elif isinstance(op, EndCommand):
            yield op.tenant, None, None, None, op.owner
        elif isinstance(op, RecordFacts | AdoptPayment):
            yield op.tenant, None, op.upstream, op.alias, None
        elif isinstance(op, ReviewPayment):
            yield op.tenant, op.payment, None, None, None


def tenant_of(unit: Unit) -> str | None:
    """Whose unit it is; None for one that looks after all tenants. Raises ValueError for a unit of two."""
    tenants = {tenant for op in unit if (tenant := getattr(op, "tenant", None)) is not None}
    if len(tenants) > 1:
        raise ValueError("a unit is of one tenant")
    return next(iter(tenants), None)
