"""One route's way there and back, through the two gates.

A policy is flattened into tuples of hooks when it is loaded; `run` walks them once per request:

    on_request, outermost first  -  connection taken  -  PREPARE: one commit  -  on_prepared  -  send
    on_response, innermost first -  SETTLE: one commit  -  answer

Before the prepare commit a refusal costs nothing: nothing is durable and nothing was sent. Behind it, every way out
leads through `_settle`: even a rule that denies in `on_prepared` walks the way back, with outcome REFUSED, so that what
was claimed is released. Behind the send, a refusal replaces the response but skips no outer rule: the upstream may have
acted, and REPLAY must remember it. Nothing here is cancelled by a client that hangs up: the server runs it to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway.bodies import abandon, buffer, take_off_coding, unread, whole
from gateway.exchange import Block, Exchange, splice
from gateway.keyed import hook_of
from gateway.operations import Rows
from gateway.ports import (
    CommitInDoubt,
    Connection,
    Header,
    Outcome,
    Ports,
    Response,
    Soon,
    Unavailable,
    Upstream,
    UpstreamError,
    settled,
)  # fmt: skip
from gateway.pure.errors import PROBLEM_TYPE, UNAVAILABLE, Reason, Refused, problem, where
from gateway.pure.http import DIGESTS, UNCODED, request_head, response_headers
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Answer, Deny, Mode, Rule, Verdict

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_RETRY_SOON: tuple[Header, ...] = ((b"Retry-After", b"1"),)

_NO_ROWS = Rows(())
_LATE = "Nothing was sent, for it took too long to get there; try again."


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule in its place in a route. `stage` is the label under which its refusals are counted."""

    kind: str
    rule: Rule
    mode: Mode = "enforce"

    @property
    def stage(self) -> str:
        return self.rule.stage.name.lower()


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes of a body that a rule reads, or that is kept for a replay."""

    request: int = 1024 * 1024
    response: int = 4 * 1024 * 1024


WayIn = tuple[int, Placed, Callable[[Exchange], Soon[Verdict]], bool, bool]
"""The place of a rule, the rule, its hook; whether the body is read before it, and whether it may prepare something."""
WayBack = Sequence[tuple[Placed, Callable[[Exchange], Soon[Verdict]]]]
"""Rules in the order of the way back, and their hooks."""


class Pipeline:
    """A compiled policy and the upstream it leads to: our own, or (`egress`) an outside provider.

    Routes of the same policy and upstream may go through one; what is of a route is in the exchange.
    """

    __slots__ = (
        "_egress",
        "_finish",
        "_host",
        "_limits",
        "_ports",
        "_reads_response",
        "_request",
        "_response",
        "_unreachable",
        "_upstream",
        "placed",
    )

    def __init__(
        self,
        placed: Sequence[Placed],
        upstream: Upstream,
        ports: Ports,
        limits: BodyLimits,
        *,
        egress: bool = False,
    ) -> None:
        there = [(i, p) for i, p in enumerate(placed, 1) if p.mode != "off"]
        replying = [p for _, p in sorted(there, key=lambda entry: (not entry[1].rule.judges_answer, -entry[0]))]
        self.placed = tuple(placed)
        self._upstream = upstream
        self._host = b"Host: " + upstream.authority
        self._egress = egress
        self._ports = ports
        self._limits = limits
        self._request = tuple(entry for i, p in there for entry in _on_the_way_in(i, p, ports))
        self._response = tuple((p, hook_of(p.rule, "on_response", ports)) for p in replying if _has(p, "on_response"))
        self._unreachable = tuple((p, p.rule.on_unreachable) for _, p in there if _has(p, "on_unreachable"))
        self._finish = tuple((i, p, p.rule.on_finish) for i, p in reversed(there) if _has(p, "on_finish"))
        self._reads_response = any(p.rule.reads_response for _, p in there)

    async def run(self, x: Exchange) -> Response:
        """The response to answer with; its `stream`, if any, is the caller's to read and to close."""
        try:
            owners: list[tuple[Placed, int, int]] = []
            stop = await self._way_in(x, owners)
            return stop if stop is not None else await self._through(x, owners)
        finally:
            for position, placed, finish in self._finish:
                if position <= x.entered:
                    await self._finished(x, placed, finish)

    async def _way_in(self, x: Exchange, owners: list[tuple[Placed, int, int]]) -> Response | None:
        unit, fresh_sad = x.unit, x.fresh_sad
        for position, placed, hook, reads, prepares in self._request:
            x.entered = position
            before, fresh = len(unit), len(fresh_sad)
            if reads and x.body is None and (stop := await self._read_body(x, placed)) is not None:
                return stop
            try:
                soon = hook(x)
                verdict: Verdict = PASS if soon is PASS else await settled(soon)
            except Exception as error:  # noqa: BLE001 - a rule that crashes refuses, whatever it raised
                verdict = self._crashed(x, placed.kind, error)
            if prepares and (len(unit) > before or len(fresh_sad) > fresh):
                owners.append((placed, before, len(unit)))
            if verdict is not PASS and (stop := self._act(x, placed, verdict)) is not None:
                return stop
        return None

    async def _read_body(self, x: Exchange, placed: Placed) -> Response | None:
        """Read the body for the first rule that wants it. Its bounds are no policy: `report` does not lift them."""
        try:
            x.body = b"" if x.request.body is None else await whole(x.request.body, self._limits.request)
        except Refused as refused:
            return self._refuse(x, placed.stage, Deny(refused.reason, refused.detail), placed.kind)
        return None

    async def _through(self, x: Exchange, owners: list[tuple[Placed, int, int]]) -> Response:
        try:
            if x.body is None and x.request.body is not None and not x.request.body.is_whole:
                await x.request.body.gather()  # who sends slowly keeps no connection from others
            connection = await settled(self._upstream.acquire(safe=x.request.method in SAFE_METHODS))
        except Refused as refused:
            return self._refuse(x, "forward", Deny(refused.reason, refused.detail))
        except UpstreamError as error:
            x.outcome = error.outcome
            return await self._without_upstream(x, error)
        try:
            rows: Rows | None = _NO_ROWS
            if owners or x.unit:
                rows, stop = await self._prepare(x, owners, connection)
                if stop is not None and rows is None:
                    return stop
                x.response = stop
            if x.response is not None:
                x.outcome = Outcome.REFUSED
            else:
                await self._call(x, connection, rows or _NO_ROWS)
        finally:
            connection.release()
        try:
            if self._response:
                await self._way_back(x, self._response)
            return await self._settle(x) if x.settlement else self._answered(x, _NO_ROWS)
        except BaseException:
            if x.response is not None and x.response.stream is not None:
                await x.response.stream.aclose()
            raise

    async def _without_upstream(self, x: Exchange, error: UpstreamError) -> Response:
        for placed, hook in self._unreachable:
            try:
                verdict: Verdict = await settled(hook(x))
            except Exception as crash:  # noqa: BLE001 - as on the way in
                verdict = self._crashed(x, placed.kind, crash)
            if verdict is not PASS and (stop := self._act(x, placed, verdict)) is not None:
                return stop
        return self._failed(x, error)

    async def _prepare(
        self, x: Exchange, owners: Sequence[tuple[Placed, int, int]], connection: Connection
    ) -> tuple[Rows | None, Response | None]:
        """The first gate: the rows of what is durable now (None: nothing is), and what to answer instead of sending."""
        rows = _NO_ROWS
        if x.unit:
            try:
                rows = await self._ports.store.commit(x.unit)
            except Unavailable as error:
                x.response = self._refuse(x, "prepare", _nothing_sent())
                if isinstance(error, CommitInDoubt):
                    await self._withdraw(x)
                return None, x.response
            if rows.refused is not None:
                connection.release()  # nothing will be sent, and whose row it is may take its time to answer
        for placed, start, end in owners:
            if rows.refused is not None and not start <= rows.refused < end:
                continue
            try:
                soon = placed.rule.on_prepared(x, rows.answered[start:end])
                verdict: Verdict = PASS if soon is PASS else await settled(soon)
            except Exception as error:  # noqa: BLE001 - as on the way in
                verdict = self._crashed(x, placed.kind, error)
            if verdict is PASS and rows.refused is not None:
                verdict = self._crashed(x, placed.kind, RuntimeError())
            if verdict is not PASS and (stop := self._act(x, placed, verdict)) is not None:
                return (rows if rows.refused is None else None), stop
        if rows.refused is not None:
            return None, self._refuse(x, "prepare", self._crashed(x, "prepare", RuntimeError()))
        return rows, None

    async def _withdraw(self, x: Exchange) -> None:
        """The unit may be durable all the same: it is undone when the store is back, for nothing is sent."""
        x.outcome = Outcome.REFUSED
        await self._way_back(x, self._response)
        self._later(x)

    def _later(self, x: Exchange) -> None:
        if self._ports.backlog is not None and x.settlement:
            self._ports.backlog.keep(x.settlement, 0 if x.response is None else len(x.response.body))

    async def _call(self, x: Exchange, connection: Connection, rows: Rows) -> None:
        clock = self._ports.clock
        began, sent = clock.monotonic(), False
        try:
            head = x.head or self._head(x, rows)
            if x.head_edits:
                x.told = x.told_target(rows)
            body = unread(x.request.body) if x.body is None else splice(x.body, x.edits, rows)
            lease = self._ports.lease
            if lease is not None and rows is not _NO_ROWS and not lease.holds():
                raise UpstreamError(Outcome.REFUSED, Reason.STORE_UNAVAILABLE, _LATE)
            sent = True
            response = await connection.send(x.request.method, head, body)
            x.outcome, x.upstream_status, x.response = Outcome.ANSWERED, response.status, response
            response.headers = response_headers(response.headers)
            if self._reads_response or (x.unit and response.stream is not None):
                await self._buffer(x, response)
        except UpstreamError as error:
            await abandon(x.response)
            x.outcome = error.outcome
            x.replace_response(self._failed(x, error))
        except Exception as error:  # noqa: BLE001 - behind the first gate nothing may skip the second
            # The client's body broke off in mid-stream, or a mistake of ours: once sending began, nobody knows.
            await abandon(x.response)
            x.outcome = Outcome.UNKNOWN if sent else Outcome.REFUSED
            x.replace_response(self._refuse(x, "forward", self._crashed(x, "forward", error)))
        finally:
            x.upstream_seconds = clock.monotonic() - began
            outcome = (x.outcome or Outcome.UNKNOWN).value
            self._ports.telemetry.count(Metric.UPSTREAM_OUTCOMES, self._upstream.name, outcome)
            self._ports.telemetry.observe(Metric.UPSTREAM_SECONDS, x.upstream_seconds, self._upstream.name)

    async def _buffer(self, x: Exchange, response: Response) -> None:
        """Read the response up to its limit. Beyond it, only a route that must read it refuses."""
        is_whole = await buffer(response, self._limits.response)
        if self._reads_response and is_whole:
            take_off_coding(response, self._limits.response)
        elif self._reads_response:
            await abandon(response)
            deny = Deny(Reason.RESPONSE_TOO_LARGE, "The upstream acted; its response is too large to be checked.")
            x.replace_response(self._refuse(x, "forward", deny))

    async def _way_back(self, x: Exchange, hooks: WayBack) -> None:
        for placed, hook in hooks:
            try:
                soon = hook(x)
                verdict: Verdict = PASS if soon is PASS else await settled(soon)
            except Exception as error:  # noqa: BLE001 - as on the way in
                verdict = self._crashed(x, placed.kind, error)
            if verdict is not PASS and (stop := self._act(x, placed, verdict)) is not None:
                await abandon(x.response)
                x.replace_response(stop)

    async def _settle(self, x: Exchange) -> Response:
        """The second gate: nothing is answered before what happened is durable."""
        rows = _NO_ROWS
        try:
            rows = await self._ports.store.commit(x.settlement)
            failed = "another gateway settled it" if rows.refused is not None else ""
        except Unavailable:
            failed = "the store is not available"
            self._later(x)
        except Exception as error:  # noqa: BLE001 - a value that could not be rendered: it is not answered either
            failed = self._crashed(x, "settle", error).note
        if failed:
            await abandon(x.response)
            return self._unsettled(x, failed)
        return self._answered(x, rows)

    def _answered(self, x: Exchange, rows: Rows) -> Response:
        assert x.response is not None
        if x.response_head_edits:
            x.response.headers = x.answered_fields()(rows)
        if x.response_edits:
            x.response.body = splice(x.response.body, x.response_edits, rows)
            x.response.headers = [line for line in x.response.headers if line[0].lower() not in DIGESTS]
        return x.response

    def _unsettled(self, x: Exchange, why: str) -> Response:
        if x.outcome is Outcome.REFUSED and x.call is None:  # a call that is recorded may yet be sent
            deny = _nothing_sent(why)
        else:
            x.outcome = Outcome.UNKNOWN
            detail = "Ask again with the same idempotency key; do not send the payment anew."
            deny = Deny(Reason.SETTLE_FAILED, detail, note=why, headers=_RETRY_SOON)
        return self._refuse(x, "settle", deny)

    def _head(self, x: Exchange, rows: Rows) -> bytes:
        target, headers = x.sent_head(rows)
        add = x.own_lines(self._host, egress=self._egress) + x.added
        drop = x.consumed | DIGESTS if x.edits else x.consumed
        if self._reads_response:
            add.append(UNCODED)
            drop = drop | {b"accept-encoding"}
        return request_head(x.request.method, target, headers, drop=drop, add=add)

    def _crashed(self, x: Exchange, kind: str, error: Exception) -> Deny:
        """What a hook that raised has decided: ports and parsers refuse by raising, anything else is our mistake."""
        if isinstance(error, Refused):
            return Deny(error.reason, error.detail)
        if isinstance(error, Unavailable):
            reason = UNAVAILABLE.get(str(error), Reason.STORE_UNAVAILABLE)
            return Deny(reason, "Try again in a moment.", headers=_RETRY_SOON)
        note = where(error)
        self._ports.telemetry.log("rule_crashed", level="error", id=x.id, route=x.route, kind=kind, where=note)
        return Deny(Reason.INTERNAL_ERROR, "The request was refused; nothing is known to be wrong with it.", note=note)

    def _act(self, x: Exchange, placed: Placed, verdict: Deny | Answer) -> Response | None:
        """What a verdict asks for, or None if it is only to be reported. What is no verdict has refused."""
        if isinstance(verdict, Answer):
            return verdict.response
        if not isinstance(verdict, Deny):
            verdict = self._crashed(x, placed.kind, TypeError())
        if placed.mode == "report":
            self._block(x, placed.stage, placed.kind, verdict.reason, "report")
            return None
        return self._refuse(x, placed.stage, verdict, placed.kind)

    def _failed(self, x: Exchange, error: UpstreamError) -> Response:
        headers = ((b"Retry-After", b"%d" % math.ceil(error.retry_after)),) if error.outcome is Outcome.REFUSED else ()
        return self._refuse(x, "forward", Deny(error.reason, error.detail, headers=headers))

    def _refuse(self, x: Exchange, stage: str, deny: Deny, kind: str = "") -> Response:
        self._block(x, stage, kind, deny.reason, "enforce")
        outcome = x.outcome.value if x.outcome is not None else ""
        body = problem(deny.reason, deny.detail, request_id=x.id, outcome=outcome, members=deny.members)
        headers = [(b"Content-Type", PROBLEM_TYPE), *deny.headers]
        if deny.reason.status < 500 and not any(name == b"Retry-After" for name, _ in deny.headers):
            headers.append((b"Stripe-Should-Retry", b"false"))
        return Response(deny.reason.status, headers, body)

    def _block(self, x: Exchange, stage: str, kind: str, reason: Reason, mode: str) -> None:
        x.blocks.append(Block(stage, kind, reason.label, mode))
        self._ports.telemetry.count(Metric.BLOCKED, x.route, stage, reason.label, mode)

    async def _finished(self, x: Exchange, placed: Placed, finish: Callable[[Exchange], Soon[None]]) -> None:
        try:
            await settled(finish(x))
        except Exception as error:  # noqa: BLE001 - one rule's mistake keeps no other from finishing
            self._ports.telemetry.log("finish_crashed", id=x.id, kind=placed.kind, where=where(error))


def _nothing_sent(why: str = "") -> Deny:
    return Deny(Reason.STORE_UNAVAILABLE, "Nothing was sent; try again.", note=why, headers=_RETRY_SOON)


def _on_the_way_in(position: int, placed: Placed, ports: Ports) -> Iterator[WayIn]:
    """The hooks of a rule, in their order."""
    rule, prepares = placed.rule, _has(placed, "on_prepared")
    if _has(placed, "on_request"):
        yield position, placed, hook_of(rule, "on_request", ports), rule.reads_request, prepares
    if _has(placed, "on_body"):
        yield position, placed, rule.on_body, True, prepares


def _has(placed: Placed, hook: str) -> bool:
    return getattr(type(placed.rule), hook) is not getattr(Rule, hook)
