"""Protocols of everything outside the decisions, and the records they take and return.

An adapter implements one of these; rules, pipeline and workers know nothing else of the world. A port that cannot do
its work raises `Unavailable`; it never returns a guess.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from gateway.key_ports import Keys, KeyService, Ring
from gateway.operations import Operation, OutboxEvent, Row, Rows
from gateway.pure.errors import Reason
from gateway.pure.gcra import Limit
from gateway.pure.metrics import Metric
from gateway.pure.relaying import Receipt
from gateway.pure.served import Served
from gateway.pure.velocity import Tallied, Tally
from gateway.soon import CommitInDoubt, Soon, Unavailable, is_pending, settled, then
from gateway.verifying import KeySets

__all__ = [  # beside what stands here: what is in files of its own
    "CommitInDoubt",
    "KeyService",
    "Keys",
    "Ring",
    "Soon",
    "Unavailable",
    "is_pending",
    "settled",
    "then",
]

Header = tuple[bytes, bytes]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# --- Clock and entropy -----------------------------------------------------------------------------------------------


class Clock(Protocol):
    """`now` is Unix time in seconds; `monotonic` never steps back and has no meaning but for differences."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


Entropy = Callable[[int], bytes]
"""Cryptographically strong random bytes; callable from any thread."""


# --- Store: the durable truth ----------------------------------------------------------------------------------------


class Store(Protocol):
    """Runs units of operations atomically and durably; many units may share one commit."""

    def commit(self, unit: Sequence[Operation[Row]]) -> Awaitable[Rows]:
        """All of the unit, durable on return, or (`refused` set) nothing of it. Raises `Unavailable`."""

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


class Decision(NamedTuple):
    """`remaining` requests now; seconds until the limit is whole again; seconds until the next request passes."""

    allowed: bool
    remaining: int
    reset_after: float
    retry_after: float


class Shared(Protocol):
    """Counters, and what may be used once. A call is one atomic step (one round trip); its keys share a hash tag."""

    @property
    def local(self) -> Shared:
        """Counters of this process alone, for rules that say `on_store_error: local`; may be this object itself."""

    def hit(self, hits: Sequence[Hit]) -> Soon[Sequence[Decision]]:
        """Raises `Unavailable`."""

    def tally(self, tallies: Sequence[Tally]) -> Soon[Sequence[Tallied]]:
        """Raises `Unavailable`."""

    def take_back(self, tallies: Sequence[Tally]) -> Soon[None]:
        """Of what was counted, all that has a member. Raises `Unavailable`."""

    def first_use(self, keys: Sequence[str], seconds: float) -> Soon[bool]:
        """Whether none of `keys` was used before, or all such uses are over; then all are in use for `seconds`.

        One atomic step: of any number who ask at once, one is told True. Keys are made as those of hits are (short,
        digests of what a client sent). Raises `Unavailable`, also when there is no room to remember one more; what
        `local` says is true of this process alone, so nobody who guards against replay may fall back on it.
        """

    async def close(self) -> None: ...


class SadVault(Protocol):
    """Sensitive authentication data (CVC): held in memory, for a time, never on a disk (DESIGN invariant 2).

    A lease hands the value out once; it comes back only if nothing was sent, and is gone otherwise.
    """

    async def put(self, tenant: str, token: str, value: bytes, seconds: float) -> None:
        """Raises `Unavailable`."""

    async def lease(self, tenant: str, token: str, exchange: str) -> bytes | None:
        """The value, or None when expired, used, leased to another exchange or unknown. Raises `Unavailable`."""

    async def give_back(self, tenant: str, token: str, exchange: str) -> None: ...
    async def erase(self, tenant: str, token: str, exchange: str) -> None: ...


# --- Files that are replaced while we run ----------------------------------------------------------------------------


class Watched(Protocol[T_co]):
    """What a file says."""

    def current(self) -> Soon[T_co]:
        """As the file stood half a second ago at the earliest.

        A replacement that cannot be read is not taken: what was read before is served for an hour more, then this
        raises `Unavailable`.
        """


class Files(Protocol):
    """Reads files again soon after they were replaced."""

    def watch(self, path: str, what: str, read: Callable[[bytes], T]) -> Watched[T]:
        """Read it at once. Raises ValueError with a sentence if it is missing, or if `read` refuses it by ValueError.

        `what` names it for metrics and `Unavailable`.
        """


# --- Upstreams -------------------------------------------------------------------------------------------------------


class Outcome(enum.Enum):
    """What the upstream did: REFUSED means provably nothing was sent."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class UpstreamError(Exception):
    """A call that got no usable answer. `outcome` is REFUSED or UNKNOWN; `detail` holds no peer bytes.

    `retry_after` is in how many seconds it is worth trying again; `blameless` if it was not the upstream's failure.
    """

    def __init__(self, outcome: Outcome, reason: Reason, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.blameless = False

    def anew(self) -> UpstreamError:
        """The same, to be raised by whoever keeps this one: raised itself it would tie to its keeper all it came by."""
        error = UpstreamError(self.outcome, self.reason, self.detail, self.retry_after)
        error.blameless = self.blameless
        return error


class BodyStream(Protocol):
    """The rest of a body, read once. Reading applies back-pressure to the sender."""

    length: int | None
    """Bytes if declared; None for chunked."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises `Refused` (request side) or `UpstreamError` (response side) when the body breaks off or stalls."""

    async def aclose(self) -> None:
        """Done with it, read to the end or not; frees the connection behind it."""


class IncomingBody(BodyStream, Protocol):
    """A client's body. Small ones have often arrived together with their head."""

    @property
    def is_whole(self) -> bool:
        """Has all of it arrived, read or not?"""
        ...

    async def gather(self) -> None:
        """Wait until all of it is here, or as much as is held of it at one time. Raises what reading it raises."""

    def ready(self) -> bytes | None:
        """All of it, if all of it is here and none was read; it counts as read then. Else None, and read on."""


@dataclass(slots=True)
class Response:
    """A response on its way back. `stream` is what was not read yet; `body` then is the part before it."""

    status: int
    headers: list[Header] = field(default_factory=list, repr=False)
    body: bytes = field(default=b"", repr=False)
    stream: BodyStream | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of a field; `name` in lower case."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value
        return None


class Connection(Protocol):
    """A connection that is ready to take exactly one request."""

    deadline: float
    """Monotonic time by which the call ends, whatever its upstream's own limits; infinite unless set."""

    def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Awaitable[Response]:
        """Send the request; the response's head has arrived on return, its body is in `stream` (or empty).

        `head` is request line and header fields, each line with CRLF, without Content-Length, Transfer-Encoding,
        Connection and the closing empty line: framing belongs to the connection. Raises `UpstreamError`.
        """

    def release(self) -> None:
        """Give back a connection that was not used. Does nothing once `send` or `release` was called."""


class Upstream(Protocol):
    """One named upstream, as it is seen by those who send one class of operations to it."""

    @property
    def name(self) -> str: ...

    @property
    def authority(self) -> bytes:
        """The Host field to send."""

    def acquire(self, *, safe: bool) -> Soon[Connection]:
        """A connection: a kept-alive one, for an unsafe request only if idle for less than `reuse_within`, else new.

        With it come the permit of a breaker and the slot of a bulkhead; `send` and `release` give them back. Raises
        `UpstreamError` with outcome REFUSED.
        """

    def again(self, tried: int, waited: float) -> float | None:
        """Seconds until a call that was `tried` again, the last time after `waited` seconds, may be again, or None."""


class Cluster(Protocol):
    """One named upstream with all that it is reached at."""

    def lane(self, operation: str) -> Upstream:
        """For the requests of clients, with a breaker for the operation; an empty one: for reads, and for writes."""

    def reserve(self) -> Upstream:
        """By connections that no client's request can take, past breakers: for deliveries and for calls in doubt."""


# --- Publishers ------------------------------------------------------------------------------------------------------


Told = Callable[[OutboxEvent, Receipt], None]
"""To be called once for each event, as soon as it is known what became of it."""


class Publisher(Protocol):
    """A receiver of events: a stream, or an endpoint of somebody else."""

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int:
        """How many events it takes at a time."""

    async def publish(self, events: Sequence[OutboxEvent], told: Told) -> None:
        """Offer events, each of another payment and in any order. Raises nothing that a receiver could cause."""

    async def close(self) -> None: ...


# --- Telemetry -------------------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Counters and the log. Label values come in the order that `Metric.labels` names them."""

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None: ...
    def observe(self, metric: Metric, value: float, *labels: str) -> None: ...
    def set(self, metric: Metric, value: float, *labels: str) -> None: ...

    def served(self, served: Served) -> None:
        """A request was answered: its metrics, and its line (`request`)."""

    def log(self, event: str, **fields: object) -> None:
        """One structured line. Callers pass names, numbers and ids; never bodies, credentials or card data."""


ReadSecret = Callable[[str], bytes]
"""What `env:NAME` or `file:PATH` refers to, for settings that name secrets. Raises ValueError with a sentence."""


def _no_secrets(reference: str) -> bytes:
    raise ValueError(f"{reference} cannot be read here")


class Lease(Protocol):
    """Of a process that shares its store: may it act on what it made durable? Asked between commit and write."""

    def holds(self) -> bool: ...


class Backlog(Protocol):
    """Commits units when the store is back, as many as there is room for; `size` is of what each holds, in bytes."""

    def keep(self, unit: Sequence[Operation[Row]], size: int) -> None: ...


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
    files: Files
    read_secret: ReadSecret = _no_secrets
    lease: Lease | None = None
    backlog: Backlog | None = None
