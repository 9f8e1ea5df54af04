"""Proofs of possession (DPoP, RFC 9449): that whoever sends an access token holds the key that it is bound to.

A proof is made for one request. It says which (method and URI), with which token and when, and carries the key that it
is signed with; the token names that key by its thumbprint. Checks are numbered as in section 4.3; the first, that there
is one DPoP field, is the listener's. What is cheap is asked before the signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import Jwk, Jws, encode_base64url, is_private, read_jwk, read_jws, read_object, thumbprint

ID_LENGTH: Final = 255
NONCE_BYTES: Final = 16

_MEMBERS = frozenset({"typ", "alg", "jwk"})
_ID = re.compile(rf"[\x20-\x7e]{{1,{ID_LENGTH}}}")
_URI = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?"
    r"(/(?:[!-$&-~]|%[0-9A-Fa-f]{2})*)?"
)
_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proof must be made for: a request, its access token, and the key (`cnf.jkt`) that the token is bound to.

    `uri` is the request's own, without its query.
    """

    method: str
    uri: str
    token: str = field(repr=False)
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Which algorithms may sign a proof, for how long it is good, and by how much clocks may differ (seconds)."""

    algorithms: Set[str]
    max_age: float
    leeway: float


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that was found good for its request. It is good once: `id` is what must not come again."""

    id: str
    nonce: str | None


def judge_proof(text: str, asked: Asked, policy: Policy, now: float) -> Proof:
    """Read a proof and judge it, its nonce and its use before excepted. Raises Refused PROOF_INVALID."""
    jws, key, claims = _read(text, policy.algorithms)
    if claims.get("htm") != asked.method:  # (8)
        _invalid("The claim htm must be the method of this request.")
    if not _same(claims.get("htu"), asked.uri):  # (9)
        _invalid("The claim htu must be the URI of this request, without query and fragment.")
    _check_time(claims, policy, now)  # (11)
    if claims.get("ath") != encode_base64url(hashlib.sha256(asked.token.encode()).digest()):  # (12)
        _invalid("The claim ath must be the SHA-256 of the access token, in base64url.")
    jti, nonce = claims.get("jti"), claims.get("nonce")
    if not isinstance(jti, str) or _ID.fullmatch(jti) is None:  # (3)
        _invalid(f"The claim jti must be text of 1 to {ID_LENGTH} ASCII characters.")
    if "nonce" in claims and not isinstance(nonce, str):
        _invalid("The claim nonce must be text.")
    if not hmac.compare_digest(thumbprint(jws.header["jwk"]), asked.thumbprint):  # (12)
        _invalid("Sign the proof with the key that the access token is bound to.")
    if not jws.signed_by(key.key):  # (6)
        _invalid("The proof's signature is not good.")
    used = hashlib.sha256(f"{asked.thumbprint}.{jti}".encode()).hexdigest()
    return Proof(used, nonce)


def nonce_of(key: bytes, slot: int) -> str:
    """The nonce of a slot of time, which nobody without the secret key can make ahead of its time (section 8)."""
    return encode_base64url(hmac.digest(key, slot.to_bytes(8, "big"), "sha256")[:NONCE_BYTES])


def is_fresh(nonce: str, key: bytes, slot: int) -> bool:
    """Is it the nonce of this slot, or of the one before?"""
    return any(hmac.compare_digest(nonce.encode(), nonce_of(key, each).encode()) for each in (slot, slot - 1))


def normal_uri(text: str) -> str | None:
    """A URI without query and fragment, as RFC 3986 sections 6.2.2 and 6.2.3 make it comparable; None if it is none."""
    found = _URI.fullmatch(re.split("[?#]", text, maxsplit=1)[0])
    if found is None:
        return None
    scheme, host, port, path = found[1].lower(), found[2].lower(), found[3], found[4] or "/"
    authority = host if not port or int(port) == _PORTS.get(scheme) else f"{host}:{int(port)}"
    return f"{scheme}://{authority}{_without_dots(_ESCAPE.sub(_normal_escape, path))}"


def _read(text: str, algorithms: Set[str]) -> tuple[Jws, Jwk, Mapping[str, Any]]:
    """(2) to (5) and (7): a JWT of the right type, signed by a public key of its own that fits its algorithm."""
    try:
        jws = read_jws(text, _MEMBERS)
        claims = read_object(jws.payload)
    except ValueError:
        _invalid("Send a signed JWT in compact form whose header has no members but typ, alg and jwk.")
    member, typ = jws.header.get("jwk"), jws.header.get("typ")
    if not isinstance(typ, str) or typ.lower() != "dpop+jwt":
        _invalid("The proof must be of type dpop+jwt.")
    if jws.algorithm not in algorithms:
        _invalid(f"Sign the proof with one of {', '.join(sorted(algorithms))}.")
    if not isinstance(member, dict) or is_private(member):
        _invalid("The header's jwk must be a public key; replace a key whose private half was sent.")
    key = read_jwk(member)
    if key is None or jws.algorithm not in key.algorithms:
        _invalid("The header's jwk must be a key for the proof's algorithm, RSA from 2048 bits on.")
    return jws, key, claims


def _check_time(claims: Mapping[str, Any], policy: Policy, now: float) -> None:
    """A proof is young, whatever else it says of itself (RFC 9449 section 11.1); what it does say it is held to."""
    for name in ("iat", "exp", "nbf"):
        if type(claims.get(name, 0)) is not int:
            _invalid(f"The claim {name} must be a whole number of seconds.")
    issued = claims.get("iat", 0)
    earliest = max(issued, claims.get("nbf", issued)) - policy.leeway
    latest = min(issued + policy.max_age, claims.get("exp", issued + policy.max_age) + policy.leeway)
    if not earliest <= now < latest:
        _invalid("Make the proof when the request is sent, by a clock that is right.")


def _same(uri: object, ours: str) -> bool:
    if uri == ours:
        return True
    normal = normal_uri(uri) if isinstance(uri, str) else None
    return normal is not None and normal == normal_uri(ours)


def _normal_escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if _UNRESERVED.fullmatch(character) else f"%{found[1].upper()}"


def _without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, for a path that begins with a slash."""
    if "/." not in path:
        return path
    kept: list[str] = []
    *inner, last = path.split("/")[1:]
    for segment in inner:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if last == "..":
        kept = kept[:-1]
    return "/" + "/".join([*kept, "" if last in {".", ".."} else last])


def _invalid(detail: str) -> NoReturn:
    raise Refused(Reason.PROOF_INVALID, detail)
