"""Protocols of everything outside the decisions, and the records they take and return.

An adapter implements one of these; rules, pipeline and workers know nothing else of the world. A port that cannot do
its work raises `Unavailable`; it never returns a guess.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from gateway.pure.errors import Reason
from gateway.pure.gcra import Limit
from gateway.pure.metrics import Metric

Header = tuple[bytes, bytes]
R_co = TypeVar("R_co", bound="Row", covariant=True)
R = TypeVar("R", bound="Row")


class Unavailable(Exception):  # noqa: N818 - says the state, as in HTTP 503
    """A dependency (named by the first argument: store, shared, keys, ...) could not be asked."""


# --- Clock and entropy -----------------------------------------------------------------------------------------------


class Clock(Protocol):
    """`now` is Unix time in seconds; `monotonic` never steps back and has no meaning but for differences."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


Entropy = Callable[[int], bytes]
"""Cryptographically strong random bytes; callable from any thread."""


# --- Store: the durable truth ----------------------------------------------------------------------------------------


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


class Store(Protocol):
    """Runs units of operations atomically and durably; many units may share one commit."""

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        """All of the unit, durable on return, or (`refused` set) nothing of it. Raises `Unavailable`."""
        ...

    async def close(self) -> None: ...


# --- Shared: counters and secrets of many gateways; never truth ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """One request counted against one limit.

    `strategy` gcra admits the burst at once and then evenly; the others are those of the `limits` library. An
    `enforced` hit that is over its limit keeps all hits of the same call from being counted; a hit that is not enforced
    (report) is counted and decided for itself alone.
    """

    key: str
    strategy: str
    limit: Limit
    enforced: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """`remaining` requests now; seconds until the limit is whole again; seconds until the next request passes."""

    allowed: bool
    remaining: int
    reset_after: float
    retry_after: float


class Shared(Protocol):
    """Counters. All hits of one call are decided in one atomic step (one round trip)."""

    @property
    def local(self) -> Shared:
        """Counters of this process alone, for rules that say `on_store_error: local`; may be this object itself."""
        ...

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Decision]:
        """Raises `Unavailable`."""
        ...

    async def close(self) -> None: ...


class SadVault(Protocol):
    """Sensitive authentication data (CVC): held in memory, for a time, never on a disk (DESIGN invariant 2).

    A lease hands the value out once; it comes back only if nothing was sent, and is gone otherwise.
    """

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        """Raises `Unavailable`."""
        ...

    async def lease(self, tenant: str, token: str, exchange: str) -> bytes | None:
        """The value, or None when expired, used, leased to another exchange or unknown. Raises `Unavailable`."""
        ...

    async def give_back(self, tenant: str, token: str, exchange: str) -> None: ...
    async def erase(self, tenant: str, token: str, exchange: str) -> None: ...


# --- Keys ------------------------------------------------------------------------------------------------------------


class Keys(Protocol):
    """Keys derived per tenant and purpose from one root; sealing is AES-256-GCM with a fresh nonce.

    Purposes are separate keys: `vault`, `fingerprint`, `token`, `replay`, `inbox`, `sad`.
    """

    def mac(self, tenant: str, purpose: str) -> bytes:
        """A 32-byte HMAC key."""
        ...

    def seal(self, tenant: str, purpose: str, plaintext: bytes, associated: bytes) -> bytes:
        """Key version, nonce and ciphertext in one value."""
        ...

    def open(self, tenant: str, purpose: str, sealed: bytes, associated: bytes) -> bytes:
        """Raises `Unavailable` if the value does not open (tampered, swapped, key missing)."""
        ...


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key bound to one algorithm (RFC 8725 section 3.1); `key` is what PyJWT's algorithm takes."""

    kid: str | None
    algorithm: str
    key: Any


class KeySet(Protocol):
    """The verification keys of one issuer."""

    def find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The key with this id, or without id the only key that fits; None if there is none."""
        ...

    async def refresh(self) -> None:
        """Fetch the set again, unless that was done a moment ago; one fetch for all callers.

        Raises `Unavailable` when there are no keys to serve at all.
        """
        ...


class KeySets(Protocol):
    """Opens a key set by reference: `file:PATH` or an https URL. The same reference is the same set, across reloads."""

    def open(self, reference: str) -> KeySet:
        """Reads a file at once (raises ValueError if it is missing or not a JWK set); never fetches a URL."""
        ...


# --- Upstreams -------------------------------------------------------------------------------------------------------


class Outcome(enum.Enum):
    """What the upstream did: REFUSED means provably nothing was sent."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class UpstreamError(Exception):
    """A call that got no usable answer. `outcome` is REFUSED or UNKNOWN; `detail` holds no peer bytes."""

    def __init__(self, outcome: Outcome, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


class BodyStream(Protocol):
    """The rest of a body, read once. Reading applies back-pressure to the sender."""

    length: int | None
    """Bytes if declared; None for chunked."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises `Refused` (request side) or `UpstreamError` (response side) when the body breaks off or stalls."""
        ...

    async def aclose(self) -> None:
        """Done with it, read to the end or not; frees the connection behind it."""
        ...


class IncomingBody(BodyStream, Protocol):
    """A client's body. Small ones have often arrived together with their head."""

    def ready(self) -> bytes | None:
        """All of it, if all of it is here and none was read; it counts as read then. Else None, and read on."""
        ...


@dataclass(slots=True)
class Response:
    """A response on its way back. `stream` is what was not read yet; `body` then is the part before it."""

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = field(default=b"", repr=False)
    stream: BodyStream | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of a field; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class Connection(Protocol):
    """A connection that is ready to take exactly one request."""

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        """Send the request; the response's head has arrived on return, its body is in `stream` (or empty).

        `head` is request line and header fields, each line with CRLF, without Content-Length, Transfer-Encoding,
        Connection and the closing empty line: framing belongs to the connection. Raises `UpstreamError`.
        """
        ...

    def release(self) -> None:
        """Give back a connection that was not used. Does nothing once `send` was called."""
        ...


class Upstream(Protocol):
    """One named upstream: a pool of connections to one origin, with its limits and deadlines."""

    @property
    def name(self) -> str: ...

    @property
    def authority(self) -> bytes:
        """The Host field to send."""
        ...

    async def acquire(self, *, safe: bool) -> Connection:
        """A connection: a kept-alive one, for an unsafe request only if idle for less than `reuse_within`, else new.

        Raises `UpstreamError` with outcome REFUSED.
        """
        ...


# --- Telemetry -------------------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Counters and the log. Label values come in the order that `Metric.labels` names them."""

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None: ...
    def observe(self, metric: Metric, value: float, *labels: str) -> None: ...
    def set(self, metric: Metric, value: float, *labels: str) -> None: ...

    def log(self, event: str, **fields: object) -> None:
        """One structured line. Callers pass names, numbers and ids; never bodies, credentials or card data."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside, in one bundle that only `provision` and the pipeline see."""

    clock: Clock
    entropy: Entropy
    store: Store
    shared: Shared
    sad: SadVault
    keys: Keys
    key_sets: KeySets
    telemetry: Telemetry
