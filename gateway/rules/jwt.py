"""`kind: jwt`: only callers with an access token of the issuer, for this audience, with the scopes of the route."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from gateway.exchange import Exchange
from gateway.ports import Clock, Header, KeySet, Ports, Soon, Telemetry, VerifyKey
from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import AccessToken, Expected, Profile, bearer, judge_claims
from gateway.pure.jose import read_token
from gateway.pure.lru import Lru
from gateway.pure.metrics import Metric
from gateway.pure.units import Duration, FileOrUrl
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict

_REMEMBERED: Final = 4096
_MAX_LEEWAY: Final = 60.0

Word = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]


class Settings(RuleSettings):
    """`profile` rfc9068 takes access tokens of RFC 9068 only, jwt any signed JWT. Durations are seconds.

    `algorithms` RS256 is for issuers that cannot do better, and for profile jwt. `bound_to: mtls` refuses tokens that
    are not bound to a client certificate; the binding of a token that has one is checked in any case.
    """

    kind: Literal["jwt"]
    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)]
    jwks: FileOrUrl
    scopes: tuple[Word, ...] = ()
    bound_to: Literal["mtls"] | None = None
    profile: Literal["rfc9068", "jwt"] = "rfc9068"
    algorithms: Annotated[tuple[Literal["PS256", "ES256", "EdDSA", "RS256"], ...], Field(min_length=1)] = (
        "PS256",
        "ES256",
        "EdDSA",
    )
    leeway: Duration = 10.0
    max_lifetime: Duration = 86_400.0
    forward: bool = False


class Jwt(Rule):
    """Writes `exchange.claims` and `exchange.subject`, and uses up the Authorization field unless told not to."""

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True

    def __init__(self, settings: Settings, keys: KeySet, clock: Clock, telemetry: Telemetry) -> None:
        audience = settings.audience
        self._expected = Expected(
            profile=Profile(settings.profile),
            issuer=settings.issuer,
            audience=frozenset([audience] if isinstance(audience, str) else audience),
            leeway=settings.leeway,
            max_lifetime=settings.max_lifetime,
        )
        self._algorithms = tuple(dict.fromkeys(settings.algorithms))
        self._scopes = frozenset(settings.scopes)
        self._bound = settings.bound_to is not None
        self._forward = settings.forward
        self._keys = keys
        self._clock = clock
        self._telemetry = telemetry
        self._verified: Lru[str, tuple[AccessToken, VerifyKey]] = Lru(_REMEMBERED)

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Jwt:  # noqa: ARG003
        if settings.profile == "rfc9068" and "RS256" in settings.algorithms:
            raise ValueError("RS256 needs profile: jwt; rfc9068 takes PS256, ES256 and EdDSA")
        if settings.leeway > _MAX_LEEWAY:
            raise ValueError("leeway is at most 60s; set the clocks right instead")
        try:
            keys = ports.key_sets.open(settings.jwks)
        except ValueError as error:
            raise ValueError(f"jwks: {error}") from error
        return cls(settings, keys, ports.clock, ports.telemetry)

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        request = exchange.request
        try:
            text = bearer(request.field(b"authorization"), request.query)
        except Refused as refused:
            return self._denied(refused)
        known = self._verified.get(text)
        if known is not None and self._keys.find(known[1].kid, known[1].algorithm) is known[1]:
            self._telemetry.count(Metric.TOKEN_CACHE, "hit")
            return self._admit(exchange, known[0])
        self._telemetry.count(Metric.TOKEN_CACHE, "miss")
        return self._first_seen(exchange, text)

    async def _first_seen(self, exchange: Exchange, text: str) -> Verdict:
        try:
            token = await self._verify(text)
        except Refused as refused:
            return self._denied(refused)
        return self._admit(exchange, token)

    def _admit(self, exchange: Exchange, token: AccessToken) -> Verdict:
        """What is asked of a verified token at every use."""
        try:
            token.check_time(self._clock.now())
            token.check_binding(exchange.request.peer.certificate, required=self._bound)
            token.check_scopes(self._scopes)
        except Refused as refused:
            return self._denied(refused)
        exchange.claims, exchange.subject = token.claims, token.principal
        if not self._forward:
            exchange.consumed.add(b"authorization")
        return PASS

    def _denied(self, refused: Refused) -> Deny:
        return Deny(refused.reason, refused.detail, headers=self._challenge(refused.reason))

    async def _verify(self, text: str) -> AccessToken:
        signed = read_token(text)
        key = await self._key(signed.kid, signed.algorithm)
        if not signed.signed_by(key.key):
            raise Refused(Reason.TOKEN_INVALID, "The token's signature is not good.")
        token = judge_claims(signed, self._expected)
        self._verified.put(text, (token, key))
        return token

    async def _key(self, kid: str | None, algorithm: str) -> VerifyKey:
        if algorithm not in self._algorithms:
            raise Refused(Reason.TOKEN_INVALID, "The token is signed with an algorithm that this route does not take.")
        key = self._find(kid, algorithm)
        if key is None:
            await self._keys.refresh()
            key = self._find(kid, algorithm)
        if key is None:
            raise Refused(Reason.TOKEN_INVALID, "The token is signed with a key that its issuer does not publish.")
        return key

    def _find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The key decides the algorithm (RFC 8725 section 3.1): one that fits several of ours is bound to none."""
        fitting = [key for ours in self._algorithms if (key := self._keys.find(kid, ours)) is not None]
        return fitting[0] if len(fitting) == 1 and fitting[0].algorithm == algorithm else None

    def _challenge(self, reason: Reason) -> tuple[Header, ...]:
        """RFC 6750 section 3: what kind of credentials would do."""
        challenge = _CHALLENGES.get(reason)
        if challenge is None:
            return ()
        if reason is Reason.SCOPE_INSUFFICIENT:
            challenge += f', scope="{" ".join(sorted(self._scopes))}"'
        return ((b"WWW-Authenticate", challenge.encode("ascii")),)


_CHALLENGES: Final = {
    Reason.TOKEN_REQUIRED: "Bearer",
    Reason.TOKEN_MISPLACED: 'Bearer error="invalid_request"',
    Reason.TOKEN_INVALID: 'Bearer error="invalid_token"',
    Reason.TOKEN_EXPIRED: 'Bearer error="invalid_token"',
    Reason.SCOPE_INSUFFICIENT: 'Bearer error="insufficient_scope"',
}
