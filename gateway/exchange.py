"""The exchange: one request and its response, the one object that flows. Each slot names the stage that writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.operations import Operation, Row, Rows
from gateway.ports import Header, IncomingBody, Outcome, Response, Ring, Unavailable
from gateway.pure.body import KINDS, Document, Kind, parse, unsupported
from gateway.pure.errors import Reason, Refused
from gateway.pure.http import caller_fields
from gateway.pure.places import AnySelector, Head, HeadSelector
from gateway.pure.resolving import Decided, Ended, Judgement
from gateway.pure.trace import TraceContext

UNNAMED = "unknown"
"""The address of a process behind a Unix socket (RFC 7239 section 6.2)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection. One object for all requests of the connection.

    `certificate` is the DER of the client certificate that the handshake verified against the listener's CA.
    `identity` is what a listener without TLS declares for its callers (a sidecar).
    """

    address: str
    certificate: bytes | None = None
    identity: str | None = None
    server_name: str | None = None
    """The host that the TLS handshake asked for, in lower case."""


@dataclass(slots=True)
class Request:
    """A request whose head was parsed, bounded and validated. `target` is forwarded byte for byte."""

    method: str
    target: str = field(repr=False)
    path: str = field(repr=False)
    query: str = field(repr=False)
    headers: Sequence[Header] = field(repr=False)
    """The fields as they came."""
    fields: Mapping[bytes, bytes] = field(repr=False)
    """The values by name in lower case; the lines of a list are joined by commas. Printable ASCII, and UTF-8 in those
    that nobody registered.
    """
    body: IncomingBody | None
    peer: Peer
    scheme: str
    host: str
    received_at: float
    """Unix time of the head's arrival, in seconds."""

    def field(self, name: bytes) -> str | None:
        """The value of a field; `name` in lower case."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")


_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PLAIN = Judgement()

Replacement = bytes | Callable[[Rows], bytes]


@dataclass(slots=True)
class Edit:
    """Replace bytes `start` to `end` of a body or of a head's text. A callable is asked once the unit's rows are known.

    What is `revealed` is told to nobody but the upstream.
    """

    start: int
    end: int
    text: Replacement = field(repr=False)
    revealed: bool = False


def splice(body: bytes, edits: Sequence[Edit], rows: Rows) -> bytes:
    """The bytes with its edits applied; every byte outside of them unchanged. Edits must not overlap."""
    if not edits:
        return body
    pieces: list[bytes] = []
    position = 0
    for edit in sorted(edits, key=lambda e: e.start):
        if edit.start < position:
            raise ValueError("two rules edit the same bytes")
        text = edit.text
        pieces += (body[position : edit.start], text if isinstance(text, bytes) else text(rows))
        position = edit.end
    pieces.append(body[position:])
    return b"".join(pieces)


def blanked(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes with something else, as long, in place of what is replaced."""
    return splice(body, [Edit(edit.start, edit.end, b"~" * (edit.end - edit.start)) for edit in edits], Rows(()))


@dataclass(frozen=True, slots=True)
class Block:
    """A refusal as it is counted and logged; `mode` report means that it had no effect."""

    stage: str
    kind: str
    reason: str
    mode: str


@dataclass(slots=True)
class Exchange:
    """All that is known of one request while it is under way."""

    # listener
    id: str
    route: str
    request: Request
    params: Mapping[str, str]
    """The named segments of the path, as they are spelled; none that a rule replaces."""
    tenant: str
    trace: TraceContext
    segments: Mapping[str, int] | None = None
    """Where in the path they stand."""

    # IDENTIFY
    sans: tuple[str, ...] = ()
    fingerprint: bytes = b""
    """SHA-256 of the certificate whose names these are; none of a declared identity."""
    claims: Mapping[str, Any] | None = None
    subject: str = ""
    """Of the access token: `iss|sub`; else of the key that signed the message."""
    scopes: frozenset[str] = frozenset()
    """Of the access token."""
    signature: Any = None
    """The message signature whose head holds; its body is judged next."""
    revealable: frozenset[str] | None = None
    """Classes of tokens that may be revealed for who calls; None where no services are declared."""
    consumed: set[bytes] = field(default_factory=set)
    """Header fields, in lower case, that the gateway used up and does not forward."""

    # the first rule that reads the body
    body: bytes | None = field(default=None, repr=False)
    _document: Document | None = field(default=None, repr=False)
    _response_document: Document | None = field(default=None, repr=False)
    _request_head: Head | None = field(default=None, repr=False)
    _response_head: Head | None = field(default=None, repr=False)

    # every rule on the way in: what prepare makes durable, and how the forwarded body differs
    unit: list[Operation[Row]] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list, repr=False)
    head_edits: tuple[Edit, ...] = field(default=(), repr=False)
    """Of `request_head`."""
    kept: dict[str, str] = field(default_factory=dict, repr=False)
    """What a rule wants to find again on the way back, should the call be resolved long after: no card data."""

    described: Any = None
    """ADMIT: the operation of its API that the request is."""
    # REPLAY
    claim: Any = None
    judgement: Judgement = _PLAIN
    """How the statuses of the upstream are read."""
    added: list[bytes] = field(default_factory=list, repr=False)
    """Whole header lines for the upstream."""
    # PROTECT
    ring: Ring | None = field(default=None, repr=False)
    """The tenant's keys of the vault, for the hook that runs; None while they are not to be had."""
    leased: list[str] = field(default_factory=list, repr=False)
    """Tokens of SAD that this exchange holds a lease of."""
    fresh_sad: list[tuple[str, bytes]] = field(default_factory=list, repr=False)
    """Tokens and values of SAD to be put into memory once the unit is durable."""
    stored_sad: list[str] = field(default_factory=list, repr=False)
    """Tokens of the SAD that this exchange put into memory."""
    revealing: Any = field(default=None, repr=False)
    limits: Any = None
    """ADMIT: the decisions of all of the route's rate limits in their order, taken at the first of them."""
    velocities: Any = None
    """ADMIT: what all of the route's velocity limits counted, at the first of them."""
    # PAYMENT
    payment: Any = None
    """What is asked of a payment."""

    # forward
    call: Any = None
    """The record from which the call is resolved, if the route has that."""
    head: bytes | None = field(default=None, repr=False)
    """Request line and fields as they are sent."""
    outcome: Outcome | None = None
    upstream_status: int | None = None
    """The status that the upstream answered with, whatever became of its response since."""
    response: Response | None = None
    told: str = ""
    """The target, for the log, where a rule replaced something in it."""
    upstream_seconds: float = 0.0
    decided: Decided | None = None
    """What a person found out: there is no response to read then."""

    # every rule on the way back: what settle makes durable, and how the answered body differs
    settlement: list[Operation[Row]] = field(default_factory=list)
    response_edits: list[Edit] = field(default_factory=list, repr=False)
    response_head_edits: tuple[Edit, ...] = field(default=(), repr=False)
    """Of `response_head`."""

    # pipeline
    entered: int = 0
    blocks: list[Block] = field(default_factory=list)

    @property
    def principal(self) -> str:
        """Who calls: the access token's `iss|sub`, else the certificate's SAN or the declared identity, else empty."""
        return self.subject or (self.sans[0] if self.sans else "")

    @property
    def ended(self) -> Ended:
        """What became of the request at the upstream, for key, payment and call alike."""
        if self.decided is not None:
            return self.decided.ended
        if self.outcome is Outcome.REFUSED and self.upstream_status is None:
            return Ended.NOT_EXECUTED
        if self.outcome is not Outcome.ANSWERED or self.upstream_status is None:
            return Ended.UNKNOWN
        return self.judgement.of(self.upstream_status)

    def vault(self) -> Ring:
        """The tenant's keys. Raises `Unavailable` while they are not to be had."""
        if self.ring is None:
            raise Unavailable("keys")
        return self.ring

    def document(self, kinds: Collection[Kind] = KINDS) -> Document:
        """The request's body, parsed once. Raises `Refused` if it cannot be read, or is of none of these kinds."""
        if self._document is None:
            assert self.body is not None, "a rule that asks for the document declares reads_request"
            # A GET that names a type for the body it does not have is common, and nothing to refuse.
            typed = self.body or self.request.method in _METHODS_WITH_BODY
            self._document = parse((self.request.field(b"content-type") or "") if typed else "", self.body, kinds)
        return _of_kind(self._document, kinds)

    def response_document(self, kinds: Collection[Kind] = KINDS) -> Document:
        """The response's body, parsed once. Raises `Refused` if it cannot be read, or is of none of these kinds."""
        if self._response_document is None:
            assert self.response is not None
            assert self.response.stream is None, "a rule that asks for the document declares reads_response"
            if self.response.header(b"content-encoding") is not None:
                raise Refused(Reason.RESPONSE_UNREADABLE, "The response is in a content coding that cannot be undone.")
            media_type = (self.response.header(b"content-type") or b"").decode("latin-1")
            self._response_document = parse(media_type, self.response.body, kinds)
        return _of_kind(self._response_document, kinds)

    def request_head(self) -> Head:
        """The request's head as it came, to be edited."""
        if self._request_head is None:
            self._request_head = Head(self.request.target, self.request.headers, self.segments or {})
        return self._request_head

    def response_head(self) -> Head:
        """The response's fields as they are when this is first asked for, to be edited; later ones may be appended."""
        if self._response_head is None:
            assert self.response is not None
            self._response_head = Head("", self.response.headers, {})
        return self._response_head

    def edit(self, place: AnySelector, edit: Edit) -> None:
        """Replace a value of the request. A segment of the path that is replaced has no value for anybody else."""
        if not isinstance(place, HeadSelector):
            self.edits.append(edit)
            return
        self.head_edits += (edit,)
        if place.kind == "path":
            self.params = {name: segment for name, segment in self.params.items() if name != place.name}

    def edit_response(self, place: AnySelector, edit: Edit) -> None:
        """Replace a value of the response."""
        if isinstance(place, HeadSelector):
            self.response_head_edits += (edit,)
        else:
            self.response_edits.append(edit)

    def sent_head(self, rows: Rows) -> tuple[str, Sequence[Header]]:
        """Target and fields of the request with the edits up to now."""
        if not self.head_edits:
            return self.request.target, self.request.headers
        head = self.request_head()
        return head.apart(splice(head.text, self.head_edits, rows))

    def unedited_head(self) -> tuple[str, Sequence[Header]]:
        """Target and fields of the request, something else as long in place of what a rule replaces."""
        if not self.head_edits:
            return self.request.target, self.request.headers
        head = self.request_head()
        return head.apart(blanked(head.text, self.head_edits))

    def unedited_fields(self) -> Sequence[Header]:
        """The same of the response."""
        assert self.response is not None
        if not self.response_head_edits:
            return self.response.headers
        head = self.response_head()
        return head.apart(blanked(head.text, self.response_head_edits))[1]

    def told_target(self, rows: Rows) -> str:
        """The request's target as the log may have it, where a rule edits it, else empty: what is replaced is as it is
        sent; nothing that is revealed, and no other value of the query.
        """
        length = len(self.request.target)
        edits = [edit for edit in self.head_edits if edit.end <= length]
        if not edits:
            return ""
        head, told = self.request_head(), [edit for edit in edits if not edit.revealed]
        spans = head.unnamed((edit.start, edit.end) for edit in told)
        others = [Edit(start, end, b"*") for start, end in spans]
        return head.apart(splice(head.text, told + others, rows))[0]

    def untouched_fields(self) -> Sequence[Header]:
        """The fields of the request that no rule edits."""
        if not self.head_edits:
            return self.request.headers
        return self.request_head().untouched((edit.start, edit.end) for edit in self.head_edits)

    def answered_fields(self) -> Callable[[Rows], list[Header]]:
        """What the fields of the response are with the edits up to now, once the rows are known."""
        assert self.response is not None
        fields, edits = list(self.response.headers), self.response_head_edits
        if not edits:
            return lambda _: fields
        head = self.response_head()
        later = fields[len(head.fields) :]
        return lambda rows: [*head.apart(splice(head.text, edits, rows))[1], *later]

    def own_lines(self, host: bytes, *, egress: bool) -> list[bytes]:
        """What the gateway says for itself to an upstream: which request this is, and to our own services who calls.

        Whole lines; `host` is the first. An outside provider (`egress`) learns nothing of the caller.
        """
        request = self.request
        lines = [host, b"X-Request-Id: " + self.id.encode(), b"traceparent: " + self.trace.traceparent().encode()]
        if not egress:
            lines += caller_fields(
                self.tenant,
                self.principal,
                request.peer.address,
                request.host,
                request.scheme,
                self.sans[0] if self.sans else "",
                self.fingerprint,
            )
        if self.trace.state:
            lines.append(b"tracestate: " + self.trace.state.encode())
        return lines

    def replace_response(self, response: Response) -> None:
        """Answer with something else: edits of the old body no longer apply."""
        self.response = response
        self.response_edits.clear()
        self.response_head_edits = ()
        self._response_document = self._response_head = None


def _of_kind(document: Document, kinds: Collection[Kind]) -> Document:
    if document.kind not in kinds:
        raise unsupported(kinds)
    return document
