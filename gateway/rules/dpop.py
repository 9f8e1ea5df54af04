"""`kind: dpop`: who sends an access token that is bound to a key must prove, for each request, that they hold the key.

Stands behind `jwt`, which judged the token and refuses one that came by the wrong scheme. A proof passes once: which
were used is remembered by the shared counters, for all gateways.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from gateway.exchange import Exchange
from gateway.ports import Clock, Header, Keys, Ports, Shared, Soon, Unavailable, settled
from gateway.pure.dpop import Asked, Policy, Proof, is_fresh, judge_proof, nonce_of, normal_uri
from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import Scheme, credentials
from gateway.pure.units import Duration
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_MAX_AGE: Final = 300.0
_MAX_LEEWAY: Final = 60.0
_MIN_NONCE: Final = 10.0
_KEY: Final = "pangate:dpop:"


class Settings(RuleSettings):
    """`max_age` and `leeway` are seconds. `nonce` makes callers put a nonce of ours into their proofs, which changes
    after that many seconds. `origin` is what callers take the gateway for, where something before it ends TLS.
    """

    kind: Literal["dpop"]
    algorithms: Annotated[tuple[Literal["PS256", "ES256", "EdDSA"], ...], Field(min_length=1)] = (
        "PS256",
        "ES256",
        "EdDSA",
    )
    max_age: Duration = 60.0
    leeway: Duration = 10.0
    nonce: Duration | None = None
    origin: str | None = None


class Dpop(Rule):
    """Asks nothing of a token that `jwt` let pass as a bearer's. A proof goes where its token goes: used up, or on."""

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True
    needs_principal = True

    def __init__(self, settings: Settings, clock: Clock, shared: Shared, nonces: _Nonces | None) -> None:
        self.needs_shared = True
        self._policy = Policy(frozenset(settings.algorithms), settings.max_age, settings.leeway)
        self._algorithms = " ".join(settings.algorithms)
        self._origin = settings.origin
        self._clock = clock
        self._shared = shared
        self._nonces = nonces
        self._keep = settings.max_age + 2 * settings.leeway
        """Seconds in which a proof could pass again; the clocks of gateways may differ too."""

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Dpop:
        if not any(rule.kind == "jwt" for rule in place.earlier):
            raise ValueError("needs a rule of kind jwt before this one: a proof belongs to an access token")
        if not settings.leeway < settings.max_age <= _MAX_AGE or settings.leeway > _MAX_LEEWAY:
            raise ValueError("max_age is more than leeway and at most 5m, leeway at most 60s: proofs are short-lived")
        if settings.origin is not None and normal_uri(settings.origin) != f"{settings.origin}/":
            raise ValueError("origin is https://HOST or https://HOST:PORT, in lower case and without a path")
        nonces = None if settings.nonce is None else _Nonces(ports.keys, ports.clock, settings.nonce)
        return cls(settings, ports.clock, ports.shared, nonces)

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        request = exchange.request
        try:
            scheme, token = credentials(request.field(b"authorization"), request.query)
            if scheme is Scheme.BEARER:
                return PASS
            proof = self._judged(exchange, token)
        except Refused as refused:
            return self._denied(refused)
        if self._nonces is not None and not self._nonces.is_fresh(exchange.tenant, proof.nonce):
            return self._ask_for_nonce(self._nonces.current(exchange.tenant))
        if b"authorization" in exchange.consumed:
            exchange.consumed.add(b"dpop")
        return self._use_up(proof)

    def on_response(self, exchange: Exchange) -> Verdict:
        if self._nonces is not None:
            assert exchange.response is not None
            exchange.response.headers.append((b"DPoP-Nonce", self._nonces.current(exchange.tenant).encode()))
        return PASS

    def _judged(self, exchange: Exchange, token: str) -> Proof:
        """Raises Refused."""
        request = exchange.request
        text = request.field(b"dpop")
        if text is None:
            raise Refused(Reason.PROOF_REQUIRED, "Send a proof for this request in the DPoP header (RFC 9449).")
        bound = (exchange.claims or {}).get("cnf", {}).get("jkt")
        if bound is None:
            raise Refused(Reason.PROOF_INVALID, "Send a token that is bound to the key of the proof.")
        origin = self._origin or f"{request.scheme}://{request.host}"
        asked = Asked(request.method, origin + request.path, token, bound)
        return judge_proof(text, asked, self._policy, self._clock.now())

    async def _use_up(self, proof: Proof) -> Verdict:
        try:
            first = await settled(self._shared.first_use([_KEY + proof.id], self._keep))
        except Unavailable:
            return Deny(Reason.REPLAYS_UNAVAILABLE, "Try again in a moment.", headers=((b"Retry-After", b"1"),))
        if first:
            return PASS
        return self._denied(Refused(Reason.PROOF_REPLAYED, "Make a new proof, with its own jti, for each request."))

    def _denied(self, refused: Refused) -> Deny:
        """RFC 9449 section 7.1."""
        challenge = f'DPoP error="invalid_dpop_proof", algs="{self._algorithms}"'
        return Deny(refused.reason, refused.detail, headers=((b"WWW-Authenticate", challenge.encode()),))

    def _ask_for_nonce(self, nonce: str) -> Deny:
        """RFC 9449 section 9."""
        challenge = f'DPoP error="use_dpop_nonce", algs="{self._algorithms}"'
        headers: tuple[Header, ...] = (
            (b"WWW-Authenticate", challenge.encode()),
            (b"DPoP-Nonce", nonce.encode()),
            (b"Cache-Control", b"no-store"),
        )
        detail = "Make a new proof with the nonce that DPoP-Nonce gives."
        return Deny(Reason.PROOF_NONCE_REQUIRED, detail, headers=headers)


class _Nonces:
    """Nonces of a tenant, the same in all gateways that have the same keys. Raises ValueError if there are none."""

    def __init__(self, keys: Keys, clock: Clock, seconds: float) -> None:
        if seconds < _MIN_NONCE:
            raise ValueError("nonce is at least 10s: a caller must have time to use it")
        try:
            keys.mac("", "nonce")
        except Unavailable:
            raise ValueError("nonce needs keys: {provider: file, key: file:PATH} in the configuration") from None
        self._keys = keys
        self._clock = clock
        self._seconds = seconds

    def current(self, tenant: str) -> str:
        return nonce_of(self._keys.mac(tenant, "nonce"), self._slot())

    def is_fresh(self, tenant: str, nonce: str | None) -> bool:
        return nonce is not None and is_fresh(nonce, self._keys.mac(tenant, "nonce"), self._slot())

    def _slot(self) -> int:
        return int(self._clock.now() // self._seconds)
