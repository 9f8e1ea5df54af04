"""Who calls, by access token: what a token must say, and what is asked of it anew at every use.

The signature and the claims of a token are judged once; its time, its binding, its revocation and its scopes at every
use, because a connection and a cache outlive them.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote_plus

from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import SignedToken, encode_base64url

IDENTIFIER_LENGTH: Final = 255

_CREDENTIALS = re.compile(r"(?i:(bearer)|dpop) ([A-Za-z0-9._~+/-]+=*)")
_CONFIRMATIONS = frozenset({"x5t#S256", "jkt"})
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_IDENTIFIER = re.compile(rf"[\x20-\x7e]{{1,{IDENTIFIER_LENGTH}}}")
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


class Profile(enum.Enum):
    """What kind of token an issuer makes: access tokens of RFC 9068, or any JWT (RFC 7519)."""

    RFC9068 = "rfc9068"
    JWT = "jwt"


_TYPES: Final[Mapping[Profile, Set[str | None]]] = {
    Profile.RFC9068: {"at+jwt", "application/at+jwt"},
    Profile.JWT: {None, "jwt"},
}
_IDENTIFIERS: Final[Mapping[Profile, Set[str]]] = {
    Profile.RFC9068: {"sub", "client_id", "jti"},
    Profile.JWT: {"sub"},
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a route asks of a token. `leeway` and `max_lifetime` are seconds; `required` claims must be text."""

    profile: Profile
    issuer: str
    audience: frozenset[str]
    leeway: float
    max_lifetime: float
    required: frozenset[str] = frozenset()


class Scheme(enum.Enum):
    """How a token is presented: to whoever bears it (RFC 6750), or with a proof of possession (RFC 9449)."""

    BEARER = "Bearer"
    DPOP = "DPoP"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token whose signature and claims were found good. Times are Unix seconds, leeway included in the last two."""

    claims: Mapping[str, Any] = field(repr=False)
    principal: str
    """Who it speaks of: `iss|sub`."""
    scopes: frozenset[str]
    issued: int
    valid_from: float
    valid_until: float
    certificate: str | None = field(repr=False)
    """Thumbprint of the certificate it is bound to (`cnf` member `x5t#S256`, RFC 8705 section 3.1), or None."""
    key: str | None = field(repr=False)
    """Thumbprint of the key it is bound to (`cnf` member `jkt`, RFC 9449 section 6.1), or None."""
    kid: str | None
    """By which its issuer names the key that signed it."""

    def check_time(self, now: float) -> None:
        """Raises Refused TOKEN_EXPIRED or TOKEN_INVALID (not valid yet)."""
        if now >= self.valid_until:
            raise Refused(Reason.TOKEN_EXPIRED, "Get a new access token; this one has expired.")
        if now < self.valid_from:
            raise _invalid("The token is not valid yet; check the clock of its issuer.")

    def check_scheme(self, scheme: Scheme) -> None:
        """A token that is bound to a key is never a bearer's, and no other comes with a proof (RFC 9449 section 7.2).

        Raises Refused TOKEN_INVALID.
        """
        if (self.key is not None) is not (scheme is Scheme.DPOP):
            raise _invalid("Send a token that is bound to a key as Authorization: DPoP, any other as Bearer.")

    def check_certificate(self, certificate: bytes | None, *, required: bool) -> None:
        """A bound token passes only on a connection with its certificate (DER), whether or not that is `required`.

        Raises Refused TOKEN_INVALID.
        """
        if self.certificate is None:
            if required:
                raise _invalid("Get a token that is bound to your client certificate (RFC 8705).")
            return
        ours = None if certificate is None else encode_base64url(hashlib.sha256(certificate).digest())
        if ours is None or not hmac.compare_digest(ours.encode(), self.certificate.encode()):
            raise _invalid("Send the token on a connection with the client certificate that it is bound to.")

    def check_scopes(self, needed: Set[str]) -> None:
        """Raises Refused SCOPE_INSUFFICIENT."""
        if not needed <= self.scopes:
            detail = f"This route needs the scopes: {' '.join(sorted(needed))}."
            raise Refused(Reason.SCOPE_INSUFFICIENT, detail)


def challenge(schemes: Iterable[Scheme], error: str = "", scopes: Sequence[str] = ()) -> bytes:
    """What kind of credentials would do, for each scheme (RFC 6750 section 3, RFC 9449 section 7.1)."""
    parameters = [f'error="{error}"'] if error else []
    if scopes:
        parameters.append(f'scope="{" ".join(scopes)}"')
    return ", ".join(f"{scheme.value} {', '.join(parameters)}".rstrip() for scheme in schemes).encode("ascii")


def credentials(authorization: str | None, query: str) -> tuple[Scheme, str]:
    """How a request presents its token (RFC 6750 section 2.1), given its one Authorization field and its query.

    Raises Refused TOKEN_REQUIRED, TOKEN_INVALID (malformed credentials) or TOKEN_MISPLACED (in the query).
    """
    if query and any(unquote_plus(pair.partition("=")[0]) == "access_token" for pair in re.split("[&;]", query)):
        detail = "Send the token in the Authorization header; a URL ends up in logs, so replace this token."
        raise Refused(Reason.TOKEN_MISPLACED, detail)
    found = None if authorization is None else _CREDENTIALS.fullmatch(authorization)
    if found is not None:
        return Scheme.BEARER if found[1] else Scheme.DPOP, found[2]
    if authorization is None or not authorization.lower().startswith(("bearer", "dpop")):
        raise Refused(Reason.TOKEN_REQUIRED, "Send an access token: Authorization: Bearer, one space, the token.")
    raise _invalid("Send one Authorization header: the scheme, one space, one token.")


def judge_claims(token: SignedToken, expected: Expected) -> AccessToken:
    """Judge what a token with a good signature says (RFC 9068 section 4, RFC 8725), all but the present time.

    Raises Refused TOKEN_INVALID.
    """
    claims, profile = token.claims, expected.profile
    if (token.typ.lower() if token.typ is not None else None) not in _TYPES[profile]:
        raise _invalid("The token is of another type than this route takes.")
    if claims.get("iss") != expected.issuer:
        raise _invalid("The token is from another issuer.")
    _check_audience(claims.get("aud"), expected.audience)
    _check_identifiers(claims, _IDENTIFIERS[profile])
    if not all(isinstance(claims.get(name), str) and claims[name] for name in expected.required):
        raise _invalid(f"The token must have the claims, as text: {', '.join(sorted(expected.required))}.")
    issued, not_before = (_time(claims, name) for name in ("iat", "nbf"))
    expires = _time(claims, "exp")
    if issued is None or expires is None:
        raise _invalid("The token must say when it was issued and when it expires.")
    if expires - issued > expected.max_lifetime:
        raise _invalid("The token lives longer than this route allows.")
    certificate, key = _confirmation(claims)
    return AccessToken(
        claims=MappingProxyType(dict(claims)),
        principal=f"{claims['iss']}|{claims['sub']}",
        scopes=_scopes(claims, profile),
        issued=issued,
        valid_from=max(issued, not_before or 0) - expected.leeway,
        valid_until=expires + expected.leeway,
        certificate=certificate,
        key=key,
        kid=token.kid,
    )


def _check_audience(audience: object, ours: frozenset[str]) -> None:
    """We are the audience, and nobody else is: a token that opens two doors can be carried from one to the other."""
    named = audience if isinstance(audience, list) else [audience]
    if not named or not all(isinstance(name, str) and name in ours for name in named):
        raise _invalid("The token must be for this audience alone.")


def _check_identifiers(claims: Mapping[str, Any], required: Set[str]) -> None:
    """Identifiers are printable ASCII: they are written into header fields, keys and logs."""
    for name in ("sub", "client_id", "jti", "azp"):
        value = claims.get(name)
        if name not in claims and name not in required:
            continue
        if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
            raise _invalid(f"The claim {name} must be text of at most {IDENTIFIER_LENGTH} ASCII characters.")
    if "azp" in claims and claims.get("client_id", claims["azp"]) != claims["azp"]:
        raise _invalid("The claims azp and client_id must name the same client.")


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if name not in claims:
        return None
    if type(value) is not int or value < 0:
        raise _invalid(f"The claim {name} must be a whole number of seconds.")
    return value


def _scopes(claims: Mapping[str, Any], profile: Profile) -> frozenset[str]:
    """`scope`, words with one space between (RFC 8693 section 4.2); profile jwt also takes `scp`, and lists."""
    name = "scp" if profile is Profile.JWT and "scope" not in claims else "scope"
    value = claims.get(name, "")
    if isinstance(value, list) and profile is Profile.JWT and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    if value == "":
        return frozenset()
    if not isinstance(value, str) or _SCOPES.fullmatch(value) is None:
        raise _invalid(f"The claim {name} must be words with one space between.")
    return frozenset(value.split(" "))


def _confirmation(claims: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Thumbprints of the certificate and of the key that a token is bound to (RFC 7800), SHA-256 in base64url."""
    if "cnf" not in claims:
        return None, None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or not confirmation or not confirmation.keys() <= _CONFIRMATIONS:
        raise _invalid("The token is bound in a way that this route cannot check.")
    if not all(isinstance(value, str) and _THUMBPRINT.fullmatch(value) for value in confirmation.values()):
        raise _invalid("The thumbprints in cnf must be SHA-256 in base64url.")
    return confirmation.get("x5t#S256"), confirmation.get("jkt")


def _invalid(detail: str) -> Refused:
    return Refused(Reason.TOKEN_INVALID, detail)
