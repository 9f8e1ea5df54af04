"""Calls: requests that were forwarded and have to be resolved should their answer not come. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from gateway.operations.base import Operation, Row, Rows

InDoubt = Literal["replay", "query", "manual"]
"""How an unknown outcome is found out: send the same request again, ask for the state, or ask a person."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordCall(Operation[Row]):
    """What it takes to resolve a request, before it is sent. `owner` is the exchange; this send is attempt 1.

    `sealed` holds the request as forwarded, tokens unrevealed; a callable renders it with the rows of its unit.
    `key_scope` is that of the idempotency key which waits for the outcome.
    """

    tenant: str
    owner: str
    route: str
    upstream: str
    in_doubt: InDoubt
    sealed: Callable[[Rows], bytes] | bytes = field(repr=False)
    sent_at: float
    key_scope: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class EndCall(Operation[Row]):
    """The outcome is known: forget the call. Refused if somebody else has ended it.

    With `attempts`, also if it was sent more often than that: what is known of some sends says nothing of later ones.
    """

    tenant: str
    owner: str
    now: float
    attempts: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DoubtCall(Operation[Row]):
    """The outcome is unknown: to be resolved from `next_at` on, or by a person (None). Refused if it has been ended."""

    tenant: str
    owner: str
    now: float
    next_at: float | None


@dataclass(frozen=True, slots=True, eq=False)
class DoubtLostCalls(Operation[Row]):
    """Calls in flight that were sent before `before` are unknown from now on: nobody can be waiting for them any more.

    Their end could not be recorded, because the store was away.
    """

    before: float
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class ResendCall(Operation[Row]):
    """Commit a resolver's send before it is made: `attempt` is the one that was read; the call's becomes one more.

    The call is in flight again until it is ended or doubted. Refused unless it is unknown and at that attempt.
    """

    tenant: str
    owner: str
    attempt: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose outcome is unknown; `attempt` counts its sends, `doubted_at` is when it first became unknown."""

    tenant: str
    owner: str
    route: str
    upstream: str
    in_doubt: InDoubt
    attempt: int
    sent_at: float
    doubted_at: float
    next_at: float | None
    key_scope: bytes | None
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCallsRow(Row):
    """`due`, longest due first; `unknown` and `oldest` (doubted_at, 0 if none) over all unknown calls."""

    due: tuple[Call, ...]
    unknown: int
    oldest: float


@dataclass(frozen=True, slots=True, eq=False)
class DueCalls(Operation[DueCallsRow]):
    """Unknown calls to resolve now; for `lease` seconds each is handed to nobody else.

    It keeps resolvers from asking the same twice; what one sends, `ResendCall` fences.
    """

    now: float
    limit: int
    lease: float


@dataclass(frozen=True, slots=True)
class UnknownCall:
    """A call with the command that it holds an amount for: all four None where it has no reservation.

    `alias` is what the provider calls the payment; None also for a new one, whose answer would have told it.
    """

    call: Call
    payment: str | None
    alias: str | None
    command: str | None
    amount: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownCallsRow(Row):
    """Oldest first."""

    calls: tuple[UnknownCall, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ListCalls(Operation[UnknownCallsRow]):
    """Calls whose outcome is unknown, of one tenant or (None) of all. Reads only.

    `owner` narrows it to that call.
    """

    tenant: str | None
    limit: int
    owner: str | None = None
