"""`kind: idempotency`: a retry with the same key gets the first answer; the upstream acts once.

A key is claimed before anything is sent, and the claim ends with what is known: an answer is stored with its outcome, a
request that was not executed gives its key back, and where nobody knows, nobody guesses: the key stays in doubt until
somebody found out (draft-ietf-httpapi-idempotency-key-header-07, and Stripe's practice). A claim has no time limit.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from gateway.exchange import Edit, Exchange, splice
from gateway.operations import AskKey, ClaimKey, DoubtKey, FinishKey, KeyRow, KeyState, Operation, ReleaseKey, Row, Rows
from gateway.ports import Header, Ports, Response, Soon, settled
from gateway.pure.body import Match, compile_selector
from gateway.pure.canonical import canonical
from gateway.pure.errors import Reason, Refused
from gateway.pure.metrics import Metric
from gateway.pure.replay import (
    Kept,
    content_digest,
    decode,
    downstream_key,
    encode,
    fingerprint,
    kept_headers,
    read_key,
    scope,
)  # fmt: skip
from gateway.pure.resolving import NOT_EXECUTED, Ended, Judgement
from gateway.pure.units import Duration, SelectorText, Size
from gateway.rule import PASS, Answer, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.waiting import WaitingRoom

_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REPLAYED: Header = (b"Idempotent-Replayed", b"true")
_RETRY_AFTER: Header = (b"Retry-After", b"1")
_SCOPE = "idempotency.scope"
WAITERS_MAX = 256
"""Retries that wait at a time, on one route; one more is told at once that the key is in use."""
POLL_SECONDS = 0.5


class Settings(RuleSettings):
    """`keep` is how long an answer is replayed; choose it longer than any caller retries.

    `required` refuses unsafe requests without a key; `header` names the field that holds it, or `field` the place in
    the body. While the first request is under way, a retry waits for its answer, as long as `wait`. `downstream: own`
    sends the upstream a key derived from the caller's, also where the caller sent none. `exclude` is not compared,
    `mismatch` answers another request under a used key, `max_body` bounds what is kept of an answer. `5xx: final` is
    for an upstream that never acts on a key again that it answered with 5xx; `not_executed` are statuses with which it
    turns a request away before it acts.
    """

    kind: Literal["idempotency"]
    required: bool = False
    keep: Annotated[Duration, Field(gt=0)] = 86400.0
    wait: Annotated[Duration, Field(le=60)] = 0.0
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Idempotency-Key"
    field: SelectorText | None = None
    downstream: Literal["client", "own"] = "client"
    exclude: tuple[SelectorText, ...] = ()
    mismatch: Literal[422, 400] = 422
    max_body: Size = 64 * 1024
    on_5xx: Annotated[Literal["unknown", "final"], Field(alias="5xx")] = "unknown"
    not_executed: tuple[Annotated[int, Field(ge=400, le=499)], ...] = tuple(sorted(NOT_EXECUTED))

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.field is not None and "header" in self.model_fields_set:
            raise ValueError("the key is in a header or in a field of the body, not in both")
        return self

    @property
    def needs_keys(self) -> bool:
        return True


class Idempotency(Rule):
    """Claims the key of an unsafe request, and ends the claim with what became of it."""

    stage = Stage.REPLAY
    needs_principal = True
    reads_request = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self._settings = settings
        self._own = settings.downstream == "own"
        self.gives_key = settings.required or (self._own and settings.field is None)
        self._field = settings.header.lower().encode()
        self._selector = compile_selector(settings.field) if settings.field is not None else None
        self._without = tuple(compile_selector(text) for text in settings.exclude)
        self._judgement = Judgement(settings.on_5xx == "final", frozenset(settings.not_executed))
        self._reused = _REUSED if settings.mismatch == _REUSED.reason.status else _DIFFERS
        self._keys = ports.keys
        self._clock = ports.clock
        self._store = ports.store
        self._telemetry = ports.telemetry

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Idempotency:  # noqa: ARG003
        return _Patient(settings, ports) if settings.wait else cls(settings, ports)

    # --- on the way in

    def on_request(self, exchange: Exchange) -> Verdict:
        exchange.judgement = self._judgement
        if exchange.request.method not in _UNSAFE_METHODS:
            return PASS
        secret = self._keys.mac(exchange.tenant, "replay")
        written, place = self._written(exchange)
        if written is None:
            if self._settings.required:
                detail = f"Send {self._settings.field or self._settings.header}, and the same one when you retry."
                return Deny(Reason.IDEMPOTENCY_KEY_REQUIRED, detail)
            self._send_own(exchange, place, secret, exchange.id.encode())
            return PASS
        claim = exchange.claim = self._claim(exchange, secret, read_key(written))
        exchange.unit.append(claim)
        exchange.kept[_SCOPE] = claim.scope.hex()
        self._send_own(exchange, place, secret, claim.scope)
        return PASS

    def would(self, exchange: Exchange) -> Sequence[str]:
        return () if exchange.claim is None else ("the key is claimed, if no other request has it",)

    def on_resume(self, exchange: Exchange) -> Verdict:
        exchange.judgement = self._judgement
        if _SCOPE in exchange.kept:
            held = bytes.fromhex(exchange.kept[_SCOPE])
            exchange.claim = ClaimKey(exchange.tenant, held, b"", exchange.id, self._clock.now())
        return PASS

    def _written(self, exchange: Exchange) -> tuple[str | None, Match | None]:
        """The key as the caller wrote it, and where it stands in the body."""
        if self._selector is None:
            return exchange.request.field(self._field), None
        matches = exchange.document({self._selector.kind, "empty"}).select(self._selector)
        if len(matches) > 1:
            raise Refused(Reason.IDEMPOTENCY_KEY_INVALID, f"Send one {self._selector.text}.")
        return (matches[0].value, matches[0]) if matches else (None, None)

    def _claim(self, exchange: Exchange, secret: bytes, key: str) -> ClaimKey:
        request, body = exchange.request, exchange.body
        assert body is not None
        media_type, content = canonical(request.field(b"content-type") or "", body, self._without)
        return ClaimKey(
            tenant=exchange.tenant,
            scope=scope(secret, exchange.principal, exchange.route, key),
            fingerprint=fingerprint(secret, request.method, request.path, request.query, media_type, content),
            owner=exchange.id,
            now=self._clock.now(),
        )

    def _send_own(self, exchange: Exchange, place: Match | None, secret: bytes, stem: bytes) -> None:
        """Put our key where the caller's stood, or would stand."""
        if not self._own:
            return
        key = downstream_key(secret, stem)
        if place is not None:
            exchange.edits.append(Edit(place.start, place.end, place.encode(key)))
        elif self._selector is None:
            exchange.consumed.add(self._field)
            exchange.added.append(f"{self._settings.header}: {key}".encode())

    # --- at the first gate

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Soon[Verdict]:
        row = cast("KeyRow", rows[0])
        return self._counted("new", PASS) if row.state is KeyState.NEW else self._known(exchange.claim, row)

    def on_unreachable(self, exchange: Exchange) -> Soon[Verdict]:
        return PASS if exchange.claim is None else self._asked(exchange.claim)

    async def _asked(self, claim: ClaimKey) -> Verdict:
        row = await self._ask(claim)
        return PASS if row.state is KeyState.NEW else await settled(self._known(claim, row))

    async def _ask(self, claim: ClaimKey) -> KeyRow:
        ask = AskKey(claim.tenant, claim.scope, claim.now)
        return (await self._store.commit([ask]))[ask]

    def _known(self, claim: ClaimKey, row: KeyRow) -> Soon[Verdict]:
        """What the key was used for answers."""
        if not hmac.compare_digest(row.fingerprint, claim.fingerprint):
            return self._counted("mismatch", self._reused)
        if row.state is KeyState.IN_FLIGHT:
            return self._in_flight(claim)
        if row.state is KeyState.UNKNOWN:
            return self._counted("unknown", _IN_DOUBT)
        return self._counted("replay", self._replay(claim, row))

    def _in_flight(self, claim: ClaimKey) -> Soon[Verdict]:  # noqa: ARG002
        """What a retry is told while the first request is under way."""
        return self._counted("in_flight", _IN_USE)

    def _replay(self, claim: ClaimKey, row: KeyRow) -> Verdict:
        kept = decode(self._keys.open(claim.tenant, "replay", row.response, claim.scope))
        if kept.body is None:
            detail = "The request was executed, and its answer was not kept; read what it made instead."
            places = tuple(field for field in kept.headers if field[0].lower() == b"location")
            members: dict[str, object] = {"original_status": kept.status}
            if kept.digest is not None:
                members["original_content_digest"] = kept.digest
            return Deny(Reason.RESPONSE_NOT_RETAINED, detail, headers=(_REPLAYED, *places), members=members)
        return Answer(Response(kept.status, [*kept.headers, _REPLAYED], kept.body))

    def _counted(self, result: str, verdict: Verdict) -> Verdict:
        self._telemetry.count(Metric.IDEMPOTENCY, result)
        return verdict

    # --- at the second gate

    def on_response(self, exchange: Exchange) -> Verdict:
        if exchange.claim is not None:
            exchange.settlement.append(self._end(exchange, exchange.claim))
        return PASS

    def _end(self, exchange: Exchange, claim: ClaimKey) -> Operation[Row]:
        """How the claim ends. The status that counts is the upstream's, even if the gateway answers with its own."""
        now, ended = self._clock.now(), exchange.ended
        if ended is Ended.NOT_EXECUTED:
            return ReleaseKey(claim.tenant, claim.scope, claim.owner)
        if ended is Ended.UNKNOWN:
            return DoubtKey(claim.tenant, claim.scope, claim.owner, now)
        render = self._render(exchange, claim)
        return FinishKey(claim.tenant, claim.scope, claim.owner, render, now, now + self._settings.keep)

    def _render(self, exchange: Exchange, claim: ClaimKey) -> Callable[[Rows], bytes]:
        """Seals the response as it is now: what outer rules do to it later is theirs, not the upstream's answer."""
        response = exchange.response
        assert response is not None
        status, fields = response.status, exchange.answered_fields()
        body = response.body if response.stream is None and exchange.decided is None else None
        edits: tuple[Edit, ...] = tuple(exchange.response_edits)

        def render(rows: Rows) -> bytes:
            headers = kept_headers(fields(rows))
            said = None if body is None else splice(body, edits, rows)
            if said is None or len(said) <= self._settings.max_body:
                kept = Kept(status, headers, said)
            else:
                kept = Kept(status, headers, None, content_digest(said))
            return self._keys.seal(claim.tenant, "replay", encode(kept), claim.scope)

        return render


class _Patient(Idempotency):
    """Retries wait for the answer to the first request; nobody waits for anything but that."""

    def __init__(self, settings: Settings, ports: Ports) -> None:
        super().__init__(settings, ports)
        self._room = WaitingRoom(WAITERS_MAX, POLL_SECONDS)

    def _in_flight(self, claim: ClaimKey) -> Soon[Verdict]:
        return self._waited(claim)

    async def _waited(self, claim: ClaimKey) -> Verdict:
        async def look() -> KeyRow | None:
            row = await self._ask(claim)
            return None if row.state is KeyState.IN_FLIGHT else row

        row = await self._room.wait((claim.tenant, claim.scope), self._settings.wait, look)
        if row is None or row.state is KeyState.NEW:  # given back: whoever asks again is the first
            return self._counted("in_flight", _IN_USE)
        return await settled(self._known(claim, row))

    def on_finish(self, exchange: Exchange) -> None:
        """Only who came past the first gate had the claim."""
        if exchange.claim is not None and exchange.outcome is not None:
            self._room.finished((exchange.claim.tenant, exchange.claim.scope))


_REUSED = Deny(Reason.IDEMPOTENCY_KEY_REUSED, "Send another key with another request, or the same request again.")
_DIFFERS = Deny(Reason.IDEMPOTENCY_PARAMETERS_DIFFER, _REUSED.detail)
_IN_USE = Deny(
    Reason.IDEMPOTENCY_KEY_IN_USE, "Wait for the answer to the first request, then ask again.", headers=(_RETRY_AFTER,)
)
_IN_DOUBT = Deny(
    Reason.OUTCOME_UNKNOWN,
    "Ask again with the same key until the outcome is known; do not send the request under another key.",
    headers=(_RETRY_AFTER,),
)
