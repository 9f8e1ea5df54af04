"""`kind: jwt`: only callers with an access token of the issuer, for this audience, with the scopes of the route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from gateway.exchange import Exchange
from gateway.ports import Clock, Header, Ports, Soon, Telemetry, Watched, settled, then
from gateway.pure.boundaries import Identity
from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import AccessToken, Expected, Profile, Scheme, challenge, credentials, judge_claims
from gateway.pure.jose import read_token
from gateway.pure.lru import Lru
from gateway.pure.metrics import Metric
from gateway.pure.revocations import Revocations, read_revocations
from gateway.pure.units import Duration, FileOrUrl, PathRef
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.verifying import KeySet, VerifyKey, sought

_REMEMBERED: Final = 4096
_MAX_LEEWAY: Final = 60.0

Algorithm = Literal[
    "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512"
]  # fmt: skip
Word = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]


class Settings(RuleSettings):
    """`profile` rfc9068 takes access tokens of RFC 9068 only, jwt any signed JWT. Durations are seconds.

    Algorithms RS256 and its like are for issuers that cannot do better, and for profile jwt. `bound_to` refuses tokens
    that are not bound to a client certificate (mtls) or to a key (dpop: proved to the rule of that kind behind this
    one); a binding that a token has is checked in any case. `require` names claims that must be there, as text.
    `revocations` is a list of tokens that do not pass any more; it may be replaced at any time.
    """

    kind: Literal["jwt"]
    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)]
    jwks: FileOrUrl
    scopes: tuple[Word, ...] = ()
    require: tuple[Word, ...] = ()
    revocations: PathRef | None = None
    bound_to: Literal["mtls", "dpop"] | None = None
    profile: Literal["rfc9068", "jwt"] = "rfc9068"
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("PS256", "ES256", "EdDSA")
    leeway: Duration = 10.0
    max_lifetime: Duration = 86_400.0
    forward: bool = False

    def identifies(self, identity: Identity) -> bool:
        """A subject of the issuer."""
        return identity.issuer == self.issuer


class Jwt(Rule):
    """Writes `exchange.claims` and `exchange.subject`, and uses up the Authorization field unless told not to."""

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True
    finds_scopes = True

    def __init__(
        self,
        settings: Settings,
        keys: KeySet,
        revocations: Watched[Revocations] | None,
        schemes: Sequence[Scheme],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        audience = settings.audience
        self._expected = Expected(
            profile=Profile(settings.profile),
            issuer=settings.issuer,
            audience=frozenset([audience] if isinstance(audience, str) else audience),
            leeway=settings.leeway,
            max_lifetime=settings.max_lifetime,
            required=frozenset(settings.require),
        )
        self._algorithms = tuple(dict.fromkeys(settings.algorithms))
        self._scopes = frozenset(settings.scopes)
        self._bound = settings.bound_to == "mtls"
        self._forward = settings.forward
        self._schemes = schemes
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._telemetry = telemetry
        self._verified: Lru[str, tuple[AccessToken, VerifyKey]] = Lru(_REMEMBERED)

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> Jwt:
        old = [name for name in settings.algorithms if name.startswith("RS")]
        if settings.profile == "rfc9068" and old:
            raise ValueError(f"{old[0]} needs profile: jwt; rfc9068 takes the PS, the ES and EdDSA")
        if settings.leeway > _MAX_LEEWAY:
            raise ValueError("leeway is at most 60s; set the clocks right instead")
        proved = any(rule.kind == "dpop" for rule in place.later)
        if settings.bound_to == "dpop" and not proved:
            raise ValueError("bound_to: dpop needs a rule of kind dpop behind this one, which checks the proofs")
        try:
            keys = ports.key_sets.open(settings.jwks)
        except ValueError as error:
            raise ValueError(f"jwks: {error}") from error
        revocations = None
        if settings.revocations is not None:
            try:
                revocations = ports.files.watch(settings.revocations, "revocations", read_revocations)
            except ValueError as error:
                raise ValueError(f"revocations: {error}") from error
        bearer, dpop = settings.bound_to != "dpop", proved
        schemes = [scheme for scheme, taken in ((Scheme.BEARER, bearer), (Scheme.DPOP, dpop)) if taken]
        return cls(settings, keys, revocations, schemes, ports.clock, ports.telemetry)

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        request = exchange.request
        try:
            scheme, text = credentials(request.field(b"authorization"), request.query)
            if scheme not in self._schemes:
                raise Refused(Reason.TOKEN_INVALID, f"Send the token as Authorization: {self._schemes[0].value}.")
        except Refused as refused:
            return self._denied(refused)
        known = self._verified.get(text)
        if known is not None and self._keys.find(known[1].kid, known[1].algorithm) is known[1]:
            self._telemetry.count(Metric.TOKEN_CACHE, "hit")
            return self._admit(exchange, known[0], scheme)
        self._telemetry.count(Metric.TOKEN_CACHE, "miss")
        return self._first_seen(exchange, text, scheme)

    async def _first_seen(self, exchange: Exchange, text: str, scheme: Scheme) -> Verdict:
        try:
            token = await self._verify(text)
        except Refused as refused:
            return self._denied(refused)
        return await settled(self._admit(exchange, token, scheme))

    def _admit(self, exchange: Exchange, token: AccessToken, scheme: Scheme) -> Soon[Verdict]:
        if self._revocations is None:
            return self._judge(exchange, token, scheme, None)
        return then(self._revocations.current(), lambda revoked: self._judge(exchange, token, scheme, revoked))

    def _judge(self, exchange: Exchange, token: AccessToken, scheme: Scheme, revoked: Revocations | None) -> Verdict:
        """What is asked of a verified token at every use."""
        try:
            token.check_time(self._clock.now())
            if revoked is not None:
                revoked.check(token)
            token.check_scheme(scheme)
            token.check_certificate(exchange.request.peer.certificate, required=self._bound)
            token.check_scopes(self._scopes)
        except Refused as refused:
            return self._denied(refused)
        exchange.claims, exchange.subject, exchange.scopes = token.claims, token.principal, token.scopes
        if not self._forward:
            exchange.consumed.add(b"authorization")
        return PASS

    def _denied(self, refused: Refused) -> Deny:
        return Deny(refused.reason, refused.detail, headers=self._challenge(refused.reason))

    async def _verify(self, text: str) -> AccessToken:
        signed = read_token(text)
        key = await self._key(signed.kid, signed.jws.algorithm)
        if not signed.jws.signed_by(key.key):
            raise Refused(Reason.TOKEN_INVALID, "The token's signature is not good.")
        token = judge_claims(signed, self._expected)
        self._verified.put(text, (token, key))
        return token

    async def _key(self, kid: str | None, algorithm: str) -> VerifyKey:
        if algorithm not in self._algorithms:
            raise Refused(Reason.TOKEN_INVALID, "The token is signed with an algorithm that this route does not take.")
        key = await sought(self._keys, lambda: self._find(kid, algorithm))
        if key is None:
            raise Refused(Reason.TOKEN_INVALID, "The token is signed with a key that its issuer does not publish.")
        return key

    def _find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The key decides the algorithm (RFC 8725 section 3.1): one that fits several of ours is bound to none."""
        fitting = [key for ours in self._algorithms if (key := self._keys.find(kid, ours)) is not None]
        return fitting[0] if len(fitting) == 1 and fitting[0].algorithm == algorithm else None

    def _challenge(self, reason: Reason) -> tuple[Header, ...]:
        error = _ERRORS.get(reason)
        if error is None:
            return ()
        scopes = sorted(self._scopes) if reason is Reason.SCOPE_INSUFFICIENT else ()
        return ((b"WWW-Authenticate", challenge(self._schemes, error, scopes)),)


_ERRORS: Final = {
    Reason.TOKEN_REQUIRED: "",
    Reason.TOKEN_MISPLACED: "invalid_request",
    Reason.TOKEN_INVALID: "invalid_token",
    Reason.TOKEN_EXPIRED: "invalid_token",
    Reason.TOKEN_REVOKED: "invalid_token",
    Reason.SCOPE_INSUFFICIENT: "insufficient_scope",
}
"""Error codes of challenges (RFC 6750 section 3.1); none where no credentials were shown."""
