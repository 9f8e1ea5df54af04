"""Idempotency keys: claimed before a request is sent, settled before it is answered."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.operations.base import Operation, PurgedRow, Row, Rows


class KeyState(enum.Enum):
    """What the store knows of an idempotency key."""

    NEW = "new"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow(Row):
    """`refused` unless NEW. `fingerprint` and `response` are those of the first request."""

    state: KeyState
    fingerprint: bytes = b""
    response: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class ClaimKey(Operation[KeyRow]):
    """Claim an idempotency key. `scope` is a keyed hash of principal, route and key; `owner` fences what follows.

    A key that is DONE and past its `expires_at` is claimed anew. A claim never expires.
    """

    tenant: str
    scope: bytes
    fingerprint: bytes = field(repr=False)
    owner: str
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class AskKey(Operation[KeyRow]):
    """What a claim would find. Reads only; never refused."""

    tenant: str
    scope: bytes
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class FinishKey(Operation[Row]):
    """Store the response of a claimed key, UNKNOWN or not; refused if `owner` does not hold the claim.

    `response(rows)` renders and seals it inside the unit, when the tokens in it are known.
    """

    tenant: str
    scope: bytes
    owner: str
    response: Callable[[Rows], bytes] = field(repr=False)
    now: float
    expires_at: float


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseKey(Operation[Row]):
    """Give a claim back, UNKNOWN or not: the request was provably not executed. Refused if `owner` does not hold it."""

    tenant: str
    scope: bytes
    owner: str


@dataclass(frozen=True, slots=True, eq=False)
class DoubtKey(Operation[Row]):
    """Mark a claimed key UNKNOWN: sent, and not answered. Refused if `owner` does not hold it, or it is UNKNOWN."""

    tenant: str
    scope: bytes
    owner: str
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class PurgeKeys(Operation[PurgedRow]):
    """Delete at most `limit` idempotency keys that are DONE and expired before `now`."""

    now: float
    limit: int
