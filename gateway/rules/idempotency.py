"""`kind: idempotency`: a retry with the same key gets the first answer; the upstream acts once.

A key is claimed before anything is sent, and the claim ends with what is known: an answer is stored with its outcome, a
request that was not executed gives its key back, and where nobody knows, nobody guesses: the key stays in doubt until
somebody found out (draft-ietf-httpapi-idempotency-key-header-07, and Stripe's practice).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field

from gateway.exchange import Edit, Exchange, splice
from gateway.operations import ClaimKey, DoubtKey, FinishKey, KeyRow, KeyState, Operation, ReleaseKey, Row, Rows
from gateway.ports import Header, Outcome, Ports, Response
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.replay import Kept, decode, encode, fingerprint, kept_headers, read_key, scope
from gateway.pure.units import Duration
from gateway.rule import PASS, Answer, Deny, Place, Rule, RuleSettings, Stage, Verdict

_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NOT_EXECUTED = frozenset({401, 403, 425, 429})
"""The upstream turned the request away before it acted."""
_REPLAYED: Header = (b"Idempotent-Replayed", b"true")
_RETRY_AFTER: Header = (b"Retry-After", b"1")


class Settings(RuleSettings):
    """`keep` is how long an answer is replayed; choose it longer than any caller retries.

    `required` refuses unsafe requests without a key; `header` names the field that holds it.
    """

    kind: Literal["idempotency"]
    required: bool = False
    keep: Annotated[Duration, Field(gt=0)] = 86400.0
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Idempotency-Key"


class Idempotency(Rule):
    """Claims the key of an unsafe request, and ends the claim with what became of it."""

    stage = Stage.REPLAY
    needs_keys: ClassVar[bool] = True
    needs_principal = True
    reads_request = True

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self._required = settings.required
        self._keep = settings.keep
        self._header = settings.header
        self._field = settings.header.lower().encode()
        self._keys = ports.keys
        self._clock = ports.clock
        self._telemetry = ports.telemetry

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Idempotency:  # noqa: ARG003
        return cls(settings, ports)

    def on_request(self, exchange: Exchange) -> Verdict:
        request = exchange.request
        if request.method not in _UNSAFE_METHODS:
            return PASS
        value = request.field(self._field)
        if value is None:
            detail = f"Send an {self._header} field, and the same one when you retry."
            return Deny(Reason.IDEMPOTENCY_KEY_REQUIRED, detail) if self._required else PASS
        key = read_key(value)
        assert exchange.body is not None
        secret = self._keys.mac(exchange.tenant, "replay")
        media_type = request.field(b"content-type") or ""
        exchange.claim = ClaimKey(
            tenant=exchange.tenant,
            scope=scope(secret, exchange.principal, exchange.route, key),
            fingerprint=fingerprint(secret, request.method, request.path, request.query, media_type, exchange.body),
            owner=exchange.id,
            now=self._clock.now(),
        )
        exchange.unit.append(exchange.claim)
        return PASS

    def on_prepared(self, exchange: Exchange, rows: Sequence[Row]) -> Verdict:
        row = cast("KeyRow", rows[0])
        claim: ClaimKey = exchange.claim
        if row.state is KeyState.NEW:
            return self._counted("new", PASS)
        if not hmac.compare_digest(row.fingerprint, claim.fingerprint):
            return self._counted("mismatch", _REUSED)
        if row.state is KeyState.IN_FLIGHT:
            return self._counted("in_flight", _IN_USE)
        if row.state is KeyState.UNKNOWN:
            return self._counted("unknown", _IN_DOUBT)
        return self._counted("replay", self._replay(claim, row))

    def on_response(self, exchange: Exchange) -> Verdict:
        if exchange.claim is not None:
            exchange.settlement.append(self._end(exchange, exchange.claim))
        return PASS

    def _end(self, exchange: Exchange, claim: ClaimKey) -> Operation[Row]:
        """How the claim ends. The status that counts is the upstream's, even if the gateway answers with its own."""
        status = exchange.upstream_status
        if exchange.outcome is Outcome.REFUSED and status is None:
            return ReleaseKey(claim.tenant, claim.scope, claim.owner)
        if exchange.outcome is not Outcome.ANSWERED or status is None or status >= 500:
            return DoubtKey(claim.tenant, claim.scope, claim.owner, self._clock.now())
        if status in _NOT_EXECUTED:
            return ReleaseKey(claim.tenant, claim.scope, claim.owner)
        now = self._clock.now()
        return FinishKey(claim.tenant, claim.scope, claim.owner, self._render(exchange, claim), now, now + self._keep)

    def _render(self, exchange: Exchange, claim: ClaimKey) -> Callable[[Rows], bytes]:
        """Seals the response as it is now: what outer rules do to it later is theirs, not the upstream's answer."""
        response = exchange.response
        assert response is not None
        status, headers = response.status, kept_headers(response.headers)
        body = response.body if response.stream is None else None
        edits: tuple[Edit, ...] = tuple(exchange.response_edits)

        def render(rows: Rows) -> bytes:
            kept = Kept(status, headers, None if body is None else splice(body, edits, rows))
            return self._keys.seal(claim.tenant, "replay", encode(kept), claim.scope)

        return render

    def _replay(self, claim: ClaimKey, row: KeyRow) -> Verdict:
        kept = decode(self._keys.open(claim.tenant, "replay", row.response, claim.scope))
        if kept.body is None:
            detail = "The request was executed, and its answer was too large to be kept; read what it made instead."
            members = {"original_status": kept.status}
            return Deny(Reason.RESPONSE_NOT_RETAINED, detail, headers=(_REPLAYED,), members=members)
        return Answer(Response(kept.status, [*kept.headers, _REPLAYED], kept.body))

    def _counted(self, result: str, verdict: Verdict) -> Verdict:
        self._telemetry.count(Metric.IDEMPOTENCY, result)
        return verdict


_REUSED = Deny(Reason.IDEMPOTENCY_KEY_REUSED, "Send another key with another request, or the same request again.")
_IN_USE = Deny(
    Reason.IDEMPOTENCY_KEY_IN_USE, "Wait for the answer to the first request, then ask again.", headers=(_RETRY_AFTER,)
)
_IN_DOUBT = Deny(
    Reason.OUTCOME_UNKNOWN,
    "Ask again with the same key until the outcome is known; do not send the request under another key.",
    headers=(_RETRY_AFTER,),
)
