"""An issuer, and the access tokens that it signs: each is signed once it says what it is to say."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.pure.jose import ALGORITHMS, encode_base64url

HOST, TARGET = "api.example", "/tokens"
ISSUER, AUDIENCE = "https://idp.example", "payments"
REVOKED, SCOPE = "revoked-1", "payments:write"
_WRONG_USE: dict[str, dict[str, Any]] = {"enc": {"use": "enc"}, "ops": {"key_ops": ["encrypt"]}}
ALGORITHM_OF = {
    "es": "ES256",
    "ed": "EdDSA",
    "ps": "PS256",
    "rs": "RS256",
    "enc": "ES256",
    "ops": "ES256",
    "weak": "PS256",
}
"""By the id of each key of the issuer; all from `enc` on must not be used."""
_USELESS = {"one": {"kty": "RSA", "e": "AQ"}, "off": {"kty": "EC", "crv": "P-256", "y": "AQ" * 21 + "Q"}}
"""Published too: an exponent that signs everything, a point that is on no curve."""
_ids = itertools.count()


@functools.cache
def key(kid: str) -> Any:
    """The private key of this id, made once."""
    algorithm = ALGORITHM_OF.get(kid, "ES256")
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if kid == "weak" else 2048)


def public_jwk(kid: str) -> dict[str, Any]:
    """The public half, without a word about what it is for."""
    make: Any = {"ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}.get(ALGORITHM_OF.get(kid, "ES256"), RSAAlgorithm)
    members: dict[str, Any] = make.to_jwk(key(kid).public_key(), as_dict=True)
    members.pop("key_ops", None)
    return members


def jwks() -> bytes:
    """What the gateway is given of the issuer."""
    keys = [{**public_jwk(kid), "kid": kid, "alg": alg, **_WRONG_USE.get(kid, {})} for kid, alg in ALGORITHM_OF.items()]
    likes = {"one": public_jwk("ps"), "off": public_jwk("es")}
    keys += [{**likes[kid], **members, "kid": kid} for kid, members in _USELESS.items()]
    return json.dumps({"keys": keys}).encode()


def revocations() -> bytes:
    """What the gateway is given of tokens that were revoked."""
    return json.dumps({"jti": [REVOKED], "sub": {"revoked": int(time.time()) + 3600}}).encode()


def spell(value: object) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    return encode_base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


@dataclass
class Draft:
    """A request with an access token that would pass."""

    kid: str = "es"
    header: dict[str, Any] = field(default_factory=lambda: {"typ": "at+jwt"})
    claims: dict[str, Any] = field(default_factory=dict)
    head: object = None
    """Instead of `header`."""
    payload: object = None
    """Instead of `claims`."""
    forge: Callable[[bytes], bytes] | None = None
    """Signs in place of the key."""
    spelling: Callable[[str], str] = str
    """Done to the token once it is signed."""
    credentials: str | None = "Bearer {}"
    query: str = "?account=a-1"
    body: str = ""
    fields: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        now = int(time.time())
        self.header |= {"alg": ALGORITHM_OF[self.kid], "kid": self.kid}
        self.claims |= {"iss": ISSUER, "aud": AUDIENCE, "sub": "partner-1", "client_id": "client-1", "account": "a-1"}
        self.claims |= {"scope": SCOPE}
        self.claims |= {"iat": now, "exp": now + 300, "jti": f"token-{next(_ids)}"}

    def sign_with(self, kid: str) -> None:
        self.kid = kid
        self.header |= {"alg": ALGORITHM_OF[kid], "kid": kid}

    def token(self) -> str:
        head = self.header if self.head is None else self.head
        signed = f"{spell(head)}.{spell(self.claims if self.payload is None else self.payload)}"
        if self.forge is not None:
            signature = self.forge(signed.encode())
        else:
            signature = ALGORITHMS[ALGORITHM_OF.get(self.kid, "ES256")].sign(signed.encode(), key(self.kid))
        return self.spelling(f"{signed}.{encode_base64url(signature)}")

    def bytes(self) -> bytes:
        token = self.token()
        lines = [f"POST {TARGET}{self.query.format(token)} HTTP/1.1", f"Host: {HOST}"]
        if self.credentials is not None:
            lines.append(f"Authorization: {self.credentials.format(token)}")
        body = self.body.format(token)
        if body:
            lines.append("Content-Type: application/x-www-form-urlencoded")
        head = "\r\n".join([*lines, *self.fields, f"Content-Length: {len(body)}", "", ""])
        return (head + body).encode("latin-1")
