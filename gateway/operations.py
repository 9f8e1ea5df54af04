"""What can be made durable: operations, the units they form, and the rows that they answer.

A rule appends operations to its exchange; the store runs a unit of them atomically. Every operation answers a row; a
business refusal is a row too, and rolls its unit back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

R_co = TypeVar("R_co", bound="Row", covariant=True)
R = TypeVar("R", bound="Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What an operation answers. `refused` is a business refusal: its whole unit is rolled back."""

    refused: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[R_co]):
    """One thing to make durable. Compared by identity: two equal operations are still two."""


class Rows:
    """The rows of one unit, by the operation that asked; grows while the store works through the unit."""

    __slots__ = ("_operations", "answered", "refused")

    def __init__(self, operations: Sequence[Operation[Row]]) -> None:
        self._operations = operations
        self.answered: list[Row] = []
        self.refused: int | None = None
        """Position of the operation that refused; the operations behind it were not run."""

    def __getitem__(self, operation: Operation[R]) -> R:
        for position, candidate in enumerate(self._operations):
            if candidate is operation:
                return self.answered[position]  # type: ignore[return-value]
        raise KeyError("the operation is not of this unit")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A token that is free to be tried, and the value sealed for exactly this token."""

    token: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow(Row):
    """`refused` when each of the tries hit a token already taken."""

    token: str
    new: bool


@dataclass(frozen=True, slots=True, eq=False)
class PutToken(Operation[TokenRow]):
    """The token of a value: the one it has (same tenant, class, format and fingerprint), else a new one.

    `fingerprint` None means no deduplication. `mint(n)` makes the n-th candidate; it runs on the store's thread inside
    the unit, only for a value that has no token yet, at most `tries` times.
    """

    tenant: str
    token_class: str
    token_format: str
    fingerprint: bytes | None = field(repr=False)
    mint: Callable[[int], Candidate] = field(repr=False)
    now: float
    tries: int = 8


@dataclass(frozen=True, slots=True)
class SealedToken:
    """A row of the vault as stored."""

    token: str
    token_class: str
    token_format: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealRow(Row):
    """`found` is in the order asked, None where the tenant has no such token; `refused` if any is None."""

    found: tuple[SealedToken | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class KnowTokens(Operation[Row]):
    """Refused unless the tenant has each of these tokens, and in this class. Reads only."""

    tenant: str
    token_class: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RevealTokens(Operation[RevealRow]):
    """Read tokens to be revealed and record the intent (who, where to, when) in the same commit.

    `codes` counts the security codes revealed along with them. Their tokens open a value in memory, so they are not
    written down. With no `tokens` the intent is recorded all the same.
    """

    tenant: str
    tokens: tuple[str, ...]
    exchange: str
    principal: str
    route: str
    destination: str
    now: float
    codes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SettleReveal(Operation[Row]):
    """Record what became of the exchange that a reveal was meant for."""

    tenant: str
    exchange: str
    outcome: str
    now: float


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
class FinishKey(Operation[Row]):
    """Store the response of a claimed key; refused if `owner` does not hold the claim.

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
    """Give a claim back: the request was provably not executed. Refused if `owner` does not hold the claim."""

    tenant: str
    scope: bytes
    owner: str


@dataclass(frozen=True, slots=True, eq=False)
class DoubtKey(Operation[Row]):
    """Mark a claimed key UNKNOWN: sent, and not answered. Refused if `owner` does not hold the claim."""

    tenant: str
    scope: bytes
    owner: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgedRow(Row):
    """How many rows were deleted."""

    count: int


@dataclass(frozen=True, slots=True, eq=False)
class PurgeKeys(Operation[PurgedRow]):
    """Delete at most `limit` idempotency keys that are DONE and expired before `now`."""

    now: float
    limit: int


class DeliveryVerdict(enum.Enum):
    """What the inbox did with a verified webhook delivery."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow(Row):
    """CONFLICT: same key, other digest; the delivery was stored in quarantine."""

    verdict: DeliveryVerdict


@dataclass(frozen=True, slots=True, eq=False)
class PutDelivery(Operation[DeliveryRow]):
    """Store a verified delivery once. `key` and `digest` are keyed HMACs: of signed material, and of the raw body.

    `id` is ours, unique; `sealed` holds raw body and headers.
    """

    tenant: str
    id: str
    route: str
    provider: str
    key: str
    digest: bytes
    sealed: bytes = field(repr=False)
    now: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stored delivery that is due to be forwarded; `attempts` counts the forwards tried so far."""

    tenant: str
    id: str
    route: str
    provider: str
    key: str
    sealed: bytes = field(repr=False)
    received_at: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRow(Row):
    """`due`, oldest first; `pending` and `oldest` (Unix time, 0 if none) over all that is not yet forwarded."""

    due: tuple[Delivery, ...]
    pending: int
    oldest: float


@dataclass(frozen=True, slots=True, eq=False)
class DueDeliveries(Operation[DueRow]):
    """Deliveries to forward now. Reads only."""

    now: float
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class ForwardedDelivery(Operation[Row]):
    """The backend took the delivery: never forward it again."""

    tenant: str
    id: str
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class RetryDelivery(Operation[Row]):
    """The backend did not take the delivery: try again at `next_at`, or never (`next_at` None: parked)."""

    tenant: str
    id: str
    next_at: float | None
    note: str
