"""kind: signature - only messages that were signed (RFC 9421), lately, once, with all that matters in the signature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.exchange import Exchange, Request
from gateway.ports import Ports, ReadSecret, Soon, Unavailable, is_pending, settled
from gateway.pure.boundaries import Identity
from gateway.pure.errors import Reason, Refused
from gateway.pure.message_signatures import (
    ECDSA_P256,
    ED25519,
    HMAC,
    RSA_PSS,
    Message,
    Signature,
    SignatureError,
    algorithm_of,
    check_component,
    check_digest,
    read_signatures,
    signature_base,
    verify,
)
from gateway.pure.units import Duration, FileOrUrl, SecretRef
from gateway.rule import PASS, Deny, Place, Rule, RuleSettings, Stage, Verdict
from gateway.verifying import KeySet

_JOSE: Final = {"EdDSA": ED25519, "ES256": ECDSA_P256, "PS512": RSA_PSS}
"""The same algorithms, as JWK sets name them."""
_SECRET_BYTES: Final = 32
_NONCE: Final = range(8, 256)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_DIGEST: Final = '"content-digest"'
_CREDENTIALS: Final = {b"authorization": '"authorization"', b"dpop": '"dpop"'}
"""A signature that leaves them out could be sent on with somebody else's (FAPI 2.0 HTTP Signatures)."""
_OURS: Final = (b"signature", b"signature-input", b"content-digest")

KeyId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


def _spelled(component: str) -> str:
    return component if component.startswith('"') else f'"{component}"'


def _coverable(component: str) -> str:
    try:
        check_component(_spelled(component))
    except ValueError:
        raise ValueError(
            'expected a component that requests have, such as "@path" or "@query-param";name="id"'
        ) from None
    return component


Component = Annotated[
    str,
    Field(pattern=r'^(@?[a-z0-9-]+|"@?[a-z0-9-]+"(;[a-z]+(="[^"]*")?)*)$'),
    AfterValidator(_coverable),
]


class KeySettings(BaseModel):
    """A key by its id: a public key in PEM, or a shared secret of 32 bytes or more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: KeyId
    algorithm: Literal["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "hmac-sha256"]
    key: SecretRef


class Settings(RuleSettings):
    """Keys are those of `keys`, then those of `jwks`. Every signature covers `components`, the digest of the body, and
    Authorization and DPoP, each where there is one. Times are seconds: how old a signature may be, and how far ahead of
    our clock. With a `tag`, signatures of other tags are not looked at. `name` stands before a key's id in the
    principal.
    """

    kind: Literal["signature"]
    jwks: FileOrUrl | None = None
    keys: tuple[KeySettings, ...] = ()
    components: Annotated[tuple[Component, ...], Field(min_length=1)] = ("@method", "@target-uri")
    max_age: Annotated[Duration, Field(gt=0, le=3600)] = 300.0
    leeway: Annotated[Duration, Field(le=60)] = 10.0
    nonce: Literal["required", "optional"] = "required"
    tag: KeyId | None = None
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] = "signature"
    forward: bool = False

    @model_validator(mode="after")
    def _with_keys(self) -> Settings:
        if not self.keys and self.jwks is None:
            raise ValueError("needs keys, or jwks")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have the same id")
        return self

    def identifies(self, identity: Identity) -> bool:
        """A key, by its id behind `name`."""
        return identity.issuer == self.name


@dataclass(frozen=True, slots=True)
class _Key:
    """A key bound to one algorithm."""

    algorithm: str
    key: Any


class MessageSignature(Rule):
    """Writes `exchange.subject` where no access token did: `NAME|KEYID`.

    The head is judged before the body is read, and the nonce is used up last: what does not hold uses up nothing.
    """

    stage = Stage.IDENTIFY
    per_route = False
    reportable = True

    def __init__(self, settings: Settings, keys: Mapping[str, _Key], jwks: KeySet | None, ports: Ports) -> None:
        self.needs_shared = True
        self._settings = settings
        self._keys = keys
        self._jwks = jwks
        self._clock = ports.clock
        self._shared = ports.shared
        self._required = frozenset(map(_spelled, settings.components))
        self._remembered = settings.max_age + settings.leeway
        self._headers = ((b"WWW-Authenticate", b"Signature"), (b"Accept-Signature", _wanted(settings)))

    @classmethod
    def provision(cls, settings: Settings, ports: Ports, place: Place) -> MessageSignature:  # noqa: ARG003
        keys = {key.id: _load(key, ports.read_secret) for key in settings.keys}
        try:
            jwks = None if settings.jwks is None else ports.key_sets.open(settings.jwks)
        except ValueError as error:
            raise ValueError(f"jwks: {error}") from error
        return cls(settings, keys, jwks, ports)

    # --- the head

    def on_request(self, exchange: Exchange) -> Soon[Verdict]:
        request = exchange.request
        try:
            signature = self._chosen(request)
            self._check_coverage(signature, request)
            self._check_times(signature)
            kid = self._key_id(signature)
        except Refused as refused:
            return self._denied(refused)
        key = self._keys.get(kid) or self._published(kid)
        if key is None and self._jwks is not None:
            return self._fetched(exchange, signature, kid, self._jwks)
        return self._verified(exchange, signature, key)

    async def _fetched(self, exchange: Exchange, signature: Signature, kid: str, jwks: KeySet) -> Verdict:
        await jwks.refresh()
        return self._verified(exchange, signature, self._published(kid))

    def _published(self, kid: str) -> _Key | None:
        """The key decides the algorithm: one that fits several of ours is bound to none."""
        if self._jwks is None:
            return None
        fitting = [(ours, key) for jose, ours in _JOSE.items() if (key := self._jwks.find(kid, jose)) is not None]
        return _Key(fitting[0][0], fitting[0][1].key) if len(fitting) == 1 else None

    def _chosen(self, request: Request) -> Signature:
        """The one signature that is for us."""
        given, raw = request.field(b"signature-input"), request.field(b"signature")
        if given is None and raw is None:
            raise Refused(Reason.MESSAGE_SIGNATURE_REQUIRED, "Sign the request as Accept-Signature says (RFC 9421).")
        try:
            signatures = read_signatures(given or "", raw or "")
        except SignatureError as error:
            _invalid(str(error))
        tag = self._settings.tag
        ours = [s for s in signatures if s.text("tag") == tag] if tag is not None else signatures
        if len(ours) != 1:
            _invalid("Send exactly one signature for this route; the tag tells which one it is.")
        return ours[0]

    def _check_coverage(self, signature: Signature, request: Request) -> None:
        covered = frozenset(signature.components)
        required = self._required | {_DIGEST} if request.body is not None else self._required
        required |= {spelled for name, spelled in _CREDENTIALS.items() if request.field(name) is not None}
        if not required <= covered:
            _invalid(f"Cover these components: {' '.join(sorted(required))}.")

    def _check_times(self, signature: Signature) -> None:
        now, created, expires = self._clock.now(), signature.time("created"), signature.time("expires")
        if created is None:
            _invalid("Say when the signature was created.")
        if not now - self._settings.max_age <= created <= now + self._settings.leeway:
            _expired("Sign the request anew when it is sent, with a clock that is right.")
        if expires is not None and (expires <= created or expires <= now):
            _expired("Send the request before its signature expires.")

    def _key_id(self, signature: Signature) -> str:
        nonce = signature.text("nonce")
        if nonce is None and self._settings.nonce == "required":
            _invalid("Send a nonce with the signature.")
        if nonce is not None and len(nonce) not in _NONCE:
            _invalid(f"Send a nonce of {_NONCE.start} to {_NONCE.stop - 1} characters.")
        kid = signature.text("keyid")
        if kid is None:
            _invalid("Say by keyid which key has signed.")
        return kid

    def _verified(self, exchange: Exchange, signature: Signature, key: _Key | None) -> Verdict:
        try:
            if key is None or signature.text("alg") not in (None, key.algorithm):
                _invalid("Sign with a key that is known here, by the algorithm that it is for.")
            base = signature_base(_message(exchange.request), signature.input)
            if not verify(key.algorithm, key.key, base, signature.raw):
                _invalid("The signature does not hold: sign the request as it is sent.")
        except SignatureError as error:
            return self._denied(Refused(Reason.MESSAGE_SIGNATURE_INVALID, str(error)))
        except Refused as refused:
            return self._denied(refused)
        exchange.signature = signature
        return PASS

    # --- the body

    def on_body(self, exchange: Exchange) -> Soon[Verdict]:
        signature: Signature | None = exchange.signature
        if signature is None:  # refused, in report mode
            return PASS
        digest = exchange.request.field(b"content-digest")
        try:
            if digest is not None:
                check_digest(digest, exchange.body or b"")
        except SignatureError as error:
            return Deny(Reason.CONTENT_DIGEST_INVALID, str(error))
        nonce = signature.text("nonce")
        if nonce is None:
            return self._admitted(exchange, signature)
        try:
            first = self._shared.first_use((self._use(exchange, signature, nonce),), self._remembered)
        except Unavailable:
            return _UNAVAILABLE
        if is_pending(first):
            return self._admitted_later(exchange, signature, first)
        return self._admitted_once(exchange, signature, bool(first))

    async def _admitted_later(self, exchange: Exchange, signature: Signature, first: Soon[bool]) -> Verdict:
        try:
            return self._admitted_once(exchange, signature, await settled(first))
        except Unavailable:
            return _UNAVAILABLE

    def _admitted_once(self, exchange: Exchange, signature: Signature, first: bool) -> Verdict:
        if first:
            return self._admitted(exchange, signature)
        detail = "Sign the request anew, with a nonce that was not used before."
        return self._denied(Refused(Reason.MESSAGE_REPLAYED, detail))

    def _use(self, exchange: Exchange, signature: Signature, nonce: str) -> str:
        said = "\0".join((exchange.tenant, self._settings.name, signature.text("keyid") or "", nonce))
        return "signature:" + hashlib.sha256(said.encode()).hexdigest()

    def _admitted(self, exchange: Exchange, signature: Signature) -> Verdict:
        exchange.subject = exchange.subject or f"{self._settings.name}|{signature.text('keyid')}"
        if not self._settings.forward:
            exchange.consumed.update(_OURS)
        return PASS

    def _denied(self, refused: Refused) -> Deny:
        return Deny(refused.reason, refused.detail, headers=self._headers)


_UNAVAILABLE = Deny(Reason.REPLAYS_UNAVAILABLE, "Try again in a moment.", headers=((b"Retry-After", b"1"),))


def _invalid(detail: str) -> NoReturn:
    raise Refused(Reason.MESSAGE_SIGNATURE_INVALID, detail)


def _expired(detail: str) -> NoReturn:
    raise Refused(Reason.MESSAGE_SIGNATURE_EXPIRED, detail)


def _wanted(settings: Settings) -> bytes:
    """What to sign, and with which parameters (RFC 9421 section 5.1)."""
    components = dict.fromkeys((*map(_spelled, settings.components), _DIGEST))
    parameters = ";created;keyid" + (";nonce" if settings.nonce == "required" else "")
    tag = f';tag="{settings.tag}"' if settings.tag is not None else ""
    return f"sig1=({' '.join(components)}){parameters}{tag}".encode()


def _message(request: Request) -> Message:
    return Message(
        method=request.method,
        scheme=request.scheme,
        authority=request.host.removesuffix(_DEFAULT_PORTS[request.scheme]),
        path=request.path,
        query=request.query,
        headers=request.headers,
    )


def _load(settings: KeySettings, read_secret: ReadSecret) -> _Key:
    """Raises ValueError with a sentence for the operator."""
    raw = read_secret(settings.key)
    if settings.algorithm == HMAC:
        if len(raw) < _SECRET_BYTES:
            raise ValueError(f"keys: the secret {settings.id} has fewer than {_SECRET_BYTES} bytes")
        return _Key(HMAC, raw)
    try:
        key = load_pem_public_key(raw)
        fits = algorithm_of(key) == settings.algorithm
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"keys: {settings.id} is no public key in PEM for {settings.algorithm}")
    return _Key(settings.algorithm, key)
