"""Requests to exchanges, and back: route, pipeline or inbox, answer, metrics, one line of log."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from gateway.bodies import whole
from gateway.exchange import UNNAMED, Exchange, Peer, Request
from gateway.ports import Entropy, Header, Outcome, Ports, Response
from gateway.pure.errors import PROBLEM_TYPE, Reason, Refused, problem, where
from gateway.pure.failures import FAILURES, FailedCredentials
from gateway.pure.ids import REQUEST_ID_BYTES, request_id
from gateway.pure.media_types import check_media_type
from gateway.pure.metrics import Metric
from gateway.pure.queries import check_repeats
from gateway.pure.request_reader import Head
from gateway.pure.routing import Found, Missed
from gateway.pure.served import Served
from gateway.pure.trace import TraceContext, begin_trace, continue_trace
from gateway.server.edge import Arrival
from gateway.snapshot import Route, Snapshot

_TRACE_BYTES = 24
_ENTROPY_BLOCK = 100 * (REQUEST_ID_BYTES + _TRACE_BYTES)
_RETRY_SOON: tuple[Header, ...] = ((b"Retry-After", b"1"),)


@dataclass(slots=True)
class Running:
    """The configuration that runs. A reload replaces `snapshot`; an exchange keeps the one it began with."""

    snapshot: Snapshot


class Inboxes(Protocol):
    """Takes webhook deliveries (`gateway.server.inbox.InboxReceiver`)."""

    async def receive(self, request: Request, body: bytes, route: Route, exchange_id: str) -> Response: ...


class Caller(Protocol):
    """Who asks, and is answered: a connection (`gateway.server.connection.Connection`)."""

    listener: str
    peer: Peer
    scheme: str
    failures: FailedCredentials

    async def send(self, method: str, response: Response, *, close: bool, legacy: bool = False) -> bool: ...
    def abort(self) -> None: ...


@dataclass(slots=True)
class _Record:
    """What becomes of one request, for metrics and log."""

    id: str
    listener: str
    received_at: float
    """Unix time."""
    began: float
    """Of the monotonic clock."""
    method: str = "other"
    route: str = ""
    exchange: Exchange | None = None
    refused: tuple[str, str] | None = None
    """Stage and reason of a refusal outside of any rule."""


class Proxy:
    """Serves the requests of all listeners. One per process; `inboxes` may be None if no route has an inbox."""

    def __init__(self, ports: Ports, running: Running, inboxes: Inboxes | None, *, inbox_limit: int = 1 << 20) -> None:
        self._ports = ports
        self._running = running
        self._inboxes = inboxes
        self._inbox_limit = inbox_limit
        self._entropy = _Drawn(ports.entropy)
        self._date = (0, b"")

    async def serve(self, caller: Caller, arrival: Arrival | Refused) -> None:
        clock = self._ports.clock
        now = clock.now()
        drawn = self._entropy.take(REQUEST_ID_BYTES)
        record = _Record(request_id(now, drawn), caller.listener, now, clock.monotonic())
        close, legacy = True, False
        try:
            if isinstance(arrival, Refused):
                response = self._refuse(record, "listener", arrival)
            elif caller.failures and (wait := caller.failures.wait(caller.peer.address, record.began)):
                response = self._bar(record, wait)
            else:
                close, legacy = arrival.head.close, arrival.head.legacy
                record.method = arrival.head.method
                response = await self._answer(caller, arrival, record)
        except Refused as refused:
            close, response = True, self._refuse(record, "listener", refused)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end as a traceback, nor as silence
            self._crashed(record, error)
            response = self._refuse(record, "listener", _crashed())
        if record.exchange is not None and record.exchange.blocks and _has_failed(record.exchange):
            self._note_failure(caller)
        took = self._ports.clock.monotonic() - record.began
        if response.header(b"date") is None:
            response.headers.append((b"Date", self._now()))
        response.headers.append((b"X-Request-Id", record.id.encode()))
        try:
            sent = await caller.send(record.method, response, close=close, legacy=legacy)
        except Exception as error:  # noqa: BLE001 - the same
            self._crashed(record, error)
            caller.abort()
            sent = False
        self._observe(record, response, took, sent)

    async def _answer(self, caller: Caller, arrival: Arrival, record: _Record) -> Response:
        head = arrival.head
        table, asked_for = self._running.snapshot.tables[record.listener], caller.peer.server_name
        if asked_for is not None and asked_for != head.name and table.names(asked_for):
            raise _misdirected()
        found = table.match(head.name, record.method, head.path)
        if record.method == "DELETE" and arrival.body is not None and not _allows_body(found):
            raise _no_body()
        if isinstance(found, Missed):
            return self._missed(record, found)
        record.route = found.route.name
        check_declared(found.route, head)
        request = _request(caller, arrival, record.received_at)
        if found.route.inbox is not None:
            return await self._receive(request, found.route, record)
        assert found.route.pipeline is not None
        record.exchange = Exchange(
            id=record.id,
            route=found.route.name,
            request=request,
            params=found.params,
            tenant=found.route.tenant,
            trace=self._trace(request),
        )
        if found.params:
            record.exchange.segments = found.route.segments
        return await found.route.pipeline.run(record.exchange)

    def _trace(self, request: Request) -> TraceContext:
        drawn, parent = self._entropy.take(_TRACE_BYTES), request.field(b"traceparent")
        if parent is None:
            return begin_trace(drawn)
        return continue_trace(parent, request.field(b"tracestate") or "", drawn)

    async def _receive(self, request: Request, route: Route, record: _Record) -> Response:
        assert self._inboxes is not None, "the composition root gives a receiver"
        try:
            body = b"" if request.body is None else await whole(request.body, self._inbox_limit)
        except Refused as refused:
            return self._refuse(record, "inbox", refused)
        return await self._inboxes.receive(request, body, route, record.id)

    def _bar(self, record: _Record, seconds: int) -> Response:
        detail = f"Wait {seconds} s, then send credentials that are valid."
        refused = Refused(Reason.TOO_MANY_FAILED_CREDENTIALS, detail)
        return self._refuse(record, "listener", refused, ((b"Retry-After", str(seconds).encode()),))

    def _note_failure(self, caller: Caller) -> None:
        if caller.peer.address != UNNAMED:
            caller.failures.note(caller.peer.address, self._ports.clock.monotonic())

    def _missed(self, record: _Record, missed: Missed) -> Response:
        if not missed.allowed:
            detail = "Check host and path; only declared routes exist."
            return self._refuse(record, "listener", Refused(Reason.ROUTE_NOT_FOUND, detail))
        refused = Refused(Reason.METHOD_NOT_ALLOWED, "Use a method that the Allow field names.")
        return self._refuse(record, "listener", refused, ((b"Allow", ", ".join(missed.allowed).encode()),))

    def _refuse(self, record: _Record, stage: str, refused: Refused, headers: tuple[Header, ...] = ()) -> Response:
        reason = refused.reason
        record.refused = stage, reason.label
        self._ports.telemetry.count(Metric.BLOCKED, record.route, stage, reason.label, "enforce")
        if reason.status == 503:
            headers += _RETRY_SOON
        outcome = record.exchange.outcome if record.exchange is not None else None
        body = problem(reason, refused.detail, request_id=record.id, outcome=outcome.value if outcome else "")
        return Response(reason.status, [(b"Content-Type", PROBLEM_TYPE), *headers], body)

    def _crashed(self, record: _Record, error: Exception) -> None:
        self._ports.telemetry.log(
            "request_crashed", level="error", id=record.id, route=record.route, where=where(error)
        )

    def _observe(self, record: _Record, response: Response, took: float, sent: bool) -> None:
        exchange = record.exchange
        upstream, outcome, blocks = 0.0, "", _blocks(record)
        answered = False
        if exchange is not None:
            upstream = exchange.upstream_seconds
            outcome = exchange.outcome.value if exchange.outcome is not None else ""
            answered = exchange.outcome is Outcome.ANSWERED and not any(mode == "enforce" for _, _, mode in blocks)
        self._ports.telemetry.served(
            Served(
                record.id,
                record.listener,
                record.route,
                record.method,
                response.status,
                "upstream" if answered else "gateway",
                outcome,
                blocks,
                sent,
                took,
                upstream,
                exchange.principal if exchange is not None else "",
                exchange.trace.trace_id if exchange is not None else "",
                exchange.told if exchange is not None else "",
            )
        )

    def _now(self) -> bytes:
        second = int(self._ports.clock.now())
        if second != self._date[0]:
            self._date = second, formatdate(second, usegmt=True).encode()
        return self._date[1]


def check_declared(route: Route, head: Head) -> None:
    """What a route says of heads. Raises `Refused`."""
    if head.query:
        check_repeats(head.query, route.repeat)
    if route.media_types is not None and head.length != 0:
        value = head.fields.get(b"content-type")
        check_media_type(None if value is None else value.decode("latin-1"), route.media_types)


def _allows_body(found: Found[Route] | Missed) -> bool:
    return isinstance(found, Found) and found.route.allow_body


def _crashed() -> Refused:
    """Made anew each time, as the next: one that is raised again keeps the frames of all requests it was raised for."""
    return Refused(Reason.INTERNAL_ERROR, "The request was refused; nothing is known to be wrong with it.")


def _no_body() -> Refused:
    return Refused(Reason.BODY_NOT_ALLOWED, "Send this method without a body.")


def _misdirected() -> Refused:
    return Refused(Reason.MISDIRECTED_REQUEST, "Open a connection for the host that the request names.")


def _has_failed(exchange: Exchange) -> bool:
    """Were its credentials not valid, and was it refused for that?"""
    return any(block.reason in FAILURES and block.mode == "enforce" for block in exchange.blocks)


def _request(caller: Caller, arrival: Arrival, received_at: float) -> Request:
    head = arrival.head
    return Request(
        head.method,
        head.target,
        head.path,
        head.query,
        head.headers,
        head.fields,
        arrival.body,
        caller.peer,
        caller.scheme,
        head.host,
        received_at,
    )


class _Drawn:
    """Random bytes, drawn from the system in blocks; each byte is handed out once."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._block = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._block):
            self._block, self._at = self._entropy(_ENTROPY_BLOCK), 0
        self._at += count
        return self._block[self._at - count : self._at]


def _blocks(record: _Record) -> list[list[str]]:
    """What was refused: by which kind of rule, or at which stage; why; and whether it had an effect."""
    blocks = [[b.kind or b.stage, b.reason, b.mode] for b in record.exchange.blocks] if record.exchange else []
    if record.refused is not None:
        blocks.append([*record.refused, "enforce"])
    return blocks
