"""A route whose requests are recorded before they are sent, so that one whose answer never came can be found out about.

The record is a part of the first gate's commit, and its end a part of the second's. What is in between is a call in
doubt: `resend` walks the way of a request again from the first gate on, with the bytes that were sent before;
`conclude` walks the way back alone, with an answer that was got otherwise. Both end key, payment and call in one
commit, or leave all three as they are: nobody takes a half-known answer for a known one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.asking import question_head
from gateway.bodies import abandon
from gateway.exchange import Exchange, Peer, Request, splice
from gateway.keyed import hook_of
from gateway.operations import Call, DoubtCall, EndCall, Operation, RecordCall, ResendCall, Row, Rows
from gateway.pipeline import SAFE_METHODS, BodyLimits, Pipeline, Placed, WayBack
from gateway.ports import (
    BodyStream,
    Connection,
    Outcome,
    Ports,
    Response,
    Unavailable,
    Upstream,
    UpstreamError,
    settled,
)
from gateway.pure.errors import Refused
from gateway.pure.resolving import Doubts, Ended, Judgement, Recorded, pack, unpack
from gateway.pure.trace import begin_trace
from gateway.rule import Deny, Rule, Stage

_PURPOSE = "call"
_TRACE_BYTES = 24
_NO_ROWS = Rows(())


class RecordedPipeline(Pipeline):
    """`rescue` is the upstream by connections of its own: a full pool must not keep anybody from finding out."""

    __slots__ = ("_resume", "_resumed_back", "doubts", "rescue")

    def __init__(
        self,
        placed: Sequence[Placed],
        upstream: Upstream,
        ports: Ports,
        limits: BodyLimits,
        *,
        doubts: Doubts,
        rescue: Upstream,
        egress: bool = False,
    ) -> None:
        super().__init__(placed, upstream, ports, limits, egress=egress)
        self.doubts = doubts
        self.rescue = rescue
        self._resume = tuple(
            (p, hook_of(p.rule, "on_resume", ports))
            for p in placed
            if p.mode != "off" and type(p.rule).on_resume is not Rule.on_resume
        )
        self._resumed_back = tuple(
            (placed, hook)
            for placed, hook in self._response
            if placed.rule.stage >= Stage.REPLAY or placed.rule.judges_answer
        )

    # --- while a client waits

    async def _through(self, x: Exchange, owners: list[tuple[Placed, int, int]]) -> Response:
        if x.request.method not in SAFE_METHODS:
            try:
                x.call = self._record(x)
            except Refused as refused:
                return self._refuse(x, "prepare", Deny(refused.reason, refused.detail))
            x.unit.append(x.call)
        return await super()._through(x, owners)

    async def _call(self, x: Exchange, connection: Connection, rows: Rows) -> None:
        insists = self.doubts.retry and x.call is not None
        await super()._call(x, _Insisting(connection, x, self._upstream, self._ports) if insists else connection, rows)

    async def _way_back(self, x: Exchange, hooks: WayBack) -> None:
        await super()._way_back(x, hooks)
        if x.call is not None:
            x.settlement.append(self._end(x))

    def _end(self, x: Exchange) -> Operation[Row]:
        now = self._ports.clock.now()
        if x.ended is not Ended.UNKNOWN:
            unsent = x.outcome is Outcome.REFUSED and isinstance(x.call, RecordCall)
            return EndCall(x.tenant, x.id, now, 1 if unsent else None)
        return DoubtCall(x.tenant, x.id, now, self.next_look(now, x.request.received_at, now))

    def next_look(self, now: float, began: float, sent_at: float) -> float | None:
        """When a call in doubt is to be looked at again; None: a person has to."""
        if self.doubts.mode == "manual":
            return None
        jitter = int.from_bytes(self._ports.entropy(2), "big") / 65536
        return self.doubts.next_look(now, began, sent_at, jitter)

    def _record(self, x: Exchange) -> RecordCall:
        """What it takes to find out. Raises `Refused` if the request lacks what a query would ask by."""
        now, request, head = self._ports.clock.now(), x.request, self._to_send(x)
        body, edits = (x.body or b"", tuple(x.edits)) if self.doubts.mode == "replay" else (b"", ())

        def sealed(rows: Rows) -> bytes:
            target, _ = x.sent_head(rows)
            path, _, query = target.partition("?")
            recorded = Recorded(
                began=request.received_at,
                method=request.method,
                target=target,
                path=path,
                query=query,
                host=request.host,
                scheme=request.scheme,
                media_type=request.field(b"content-type") or "",
                params=x.params,
                sans=tuple(x.sans),
                subject=x.subject,
                kept=x.kept,
                head=head(rows),
                body=splice(body, edits, rows),
            )
            return self._ports.keys.seal(x.tenant, _PURPOSE, pack(recorded), x.id.encode())

        scope = x.claim.scope if x.claim is not None else None
        return RecordCall(x.tenant, x.id, x.route, self._upstream.name, self.doubts.mode, sealed, now, scope)

    def _to_send(self, x: Exchange) -> Callable[[Rows], bytes]:
        """The head that a resolver would send: that of the request, or that of the query about it."""
        doubts, head = self.doubts, b""
        if doubts.mode == "replay":
            if x.head_edits:
                return lambda rows: self._head(x, rows)
            head = x.head = self._head(x, _NO_ROWS)
        elif doubts.query is not None:
            target = doubts.query.address.target(x.params, x.document)
            head = question_head(x, doubts.query.method, target, self._upstream.authority, egress=self._egress)
        return lambda _: head

    # --- when nobody waits any more

    def reopen(self, call: Call) -> tuple[Exchange, Recorded]:
        """The exchange of a call, as far as it was recorded. Raises `Unavailable` if the record does not open."""
        sealed = self._ports.keys.open(call.tenant, _PURPOSE, call.sealed, call.owner.encode())
        recorded = unpack(sealed)
        media_type = recorded.media_type.encode()
        request = Request(
            method=recorded.method,
            target=recorded.target,
            path=recorded.path,
            query=recorded.query,
            headers=[],
            fields={b"content-type": media_type} if media_type else {},
            body=None,
            peer=Peer(""),
            scheme=recorded.scheme,
            host=recorded.host,
            received_at=recorded.began,
        )
        trace = begin_trace(self._ports.entropy(_TRACE_BYTES))
        x = Exchange(call.owner, call.route, request, recorded.params, call.tenant, trace)
        x.sans, x.subject, x.kept, x.call = recorded.sans, recorded.subject, dict(recorded.kept), call
        if call.in_doubt == "replay":
            x.body, x.head = recorded.body, recorded.head
        return x, recorded

    async def resend(self, x: Exchange, send: ResendCall, *, quiet: bool) -> bool:
        """Send it again, under the same key; True if the outcome is known and durable now.

        `send` is committed before, and refused if somebody else was faster. `quiet` says that nothing sent before can
        be under way any more. Raises `UpstreamError` and `Unavailable`: then it is as unknown as it was.
        """
        x.unit.append(send)
        owners = await self._resumed(x)
        x.judgement = x.judgement.again(quiet=quiet)
        connection = await settled(self.rescue.acquire(safe=False))
        try:
            rows, stop = await self._prepare(x, owners, connection)
            if stop is not None or rows is None:
                return False
            await super()._call(x, connection, rows)
        finally:
            connection.release()
        # That nothing was sent this time says nothing of the first.
        return x.outcome is Outcome.ANSWERED and await self._concluded(x)

    async def conclude(self, x: Exchange) -> bool:
        """The outcome and the response of `x` were found out otherwise; True if they are durable now.

        Raises `Unavailable`: then it is as unknown as it was.
        """
        await self._resumed(x)
        x.unit.clear()  # nothing is sent
        return await self._concluded(x)

    async def _resumed(self, x: Exchange) -> list[tuple[Placed, int, int]]:
        """Let the rules that were inside of the first gate find what they kept; who appended what to the unit."""
        owners = []
        for placed, hook in self._resume:
            before = len(x.unit)
            await settled(hook(x))
            if len(x.unit) > before:
                owners.append((placed, before, len(x.unit)))
        return owners

    async def _concluded(self, x: Exchange) -> bool:
        try:
            if x.ended is Ended.UNKNOWN:
                return False
            await self._way_back(x, self._resumed_back)
            rows = await self._ports.store.commit(x.settlement)
            return rows.refused is None
        finally:
            await abandon(x.response)


class _Insisting:
    """Sends a request again, under its key, as long as nobody knows what became of it (implements `ports.Connection`).

    Each send is committed before it is made, as a resolver's is, and all of them end at the deadline of the first. What
    decides nothing about the first send is not heard of: the first answer, or its lack, is what the caller gets then.
    """

    __slots__ = ("_connection", "_ports", "_upstream", "_x")

    def __init__(self, connection: Connection, x: Exchange, upstream: Upstream, ports: Ports) -> None:
        self._connection = connection
        self._x = x
        self._upstream = upstream
        self._ports = ports

    @property
    def deadline(self) -> float:
        """See `ports.Connection`."""
        return self._connection.deadline

    @deadline.setter
    def deadline(self, latest: float) -> None:
        self._connection.deadline = latest

    def release(self) -> None:
        self._connection.release()

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        judgement = self._x.judgement
        first = await _outcome(self._connection.send(method, head, body))
        if isinstance(body, bytes) and _is_unknown(first, judgement):
            judgement, tried, waited = judgement.again(quiet=False), 0, 0.0
            while (wait := self._upstream.again(tried, waited)) is not None:
                tried, waited = tried + 1, wait
                again = await self._once_more(tried, wait, method, head, body)
                if again is None:
                    break
                if isinstance(again, Response) and judgement.of(again.status) is Ended.EXECUTED:
                    await abandon(first if isinstance(first, Response) else None)
                    return again
                await abandon(again if isinstance(again, Response) else None)
        if isinstance(first, UpstreamError):
            raise first
        return first

    async def _once_more(
        self, tried: int, wait: float, method: str, head: bytes, body: bytes
    ) -> Response | UpstreamError | None:
        """What came of it; None if it may not be sent, now or later."""
        clock, deadline = self._ports.clock, self._connection.deadline
        if clock.monotonic() + wait >= deadline:
            return None
        await asyncio.sleep(wait)
        try:
            connection = await settled(self._upstream.acquire(safe=False))
        except UpstreamError:
            return None
        try:
            if clock.monotonic() >= deadline or not await self._committed(tried):
                return None
            connection.deadline = deadline
            return await _outcome(connection.send(method, head, body))
        finally:
            connection.release()

    async def _committed(self, tried: int) -> bool:
        """That it will be sent again is durable, and this process may still do so."""
        x, now = self._x, self._ports.clock.now()
        try:
            rows = await self._ports.store.commit(
                [DoubtCall(x.tenant, x.id, now, None), ResendCall(x.tenant, x.id, tried, now)]
            )
        except Unavailable:
            return False
        return rows.refused is None and (self._ports.lease is None or self._ports.lease.holds())


def _is_unknown(outcome: Response | UpstreamError, judgement: Judgement) -> bool:
    if isinstance(outcome, UpstreamError):
        return outcome.outcome is Outcome.UNKNOWN
    return judgement.of(outcome.status) is Ended.UNKNOWN


async def _outcome(sending: Awaitable[Response]) -> Response | UpstreamError:
    try:
        return await sending
    except UpstreamError as error:
        return error
