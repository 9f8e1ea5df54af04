"""JOSE, read strictly: one value has one spelling, and a key has one use.

Where RFC 7515 and RFC 7517 leave room for two readings, this refuses: padding and stray bits in base64url, duplicate
members, other encodings than UTF-8, header parameters that point at keys or change what is signed (RFC 8725).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

from gateway.pure import json_reader
from gateway.pure.errors import Reason, Refused

TOKEN_BYTES: Final = 8 * 1024
JWK_SET_BYTES: Final = 512 * 1024
JWK_SET_KEYS: Final = 32
RSA_BITS: Final = range(2048, 8193)

ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384, ec.SECP384R1),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512, ec.SECP521R1),
    "EdDSA": OKPAlgorithm(),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
}
"""All that can be verified. Each takes a public key only: there is no `none` and no HMAC to be confused with."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def decode_base64url(text: str) -> bytes:
    """Bytes of unpadded base64url whose unused bits are zero (RFC 7515 section 2). Raises ValueError."""
    if _BASE64URL.fullmatch(text) is None:
        raise ValueError("not unpadded base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def encode_base64url(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def read_object(raw: bytes) -> dict[str, Any]:
    """A JSON object that every parser reads the same way (`json_reader`). Raises ValueError."""
    try:
        value = json_reader.read(raw)
    except Refused as refused:
        raise ValueError(refused.detail) from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - it is input, not a mistake of the caller
    return value


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS, read but not verified: nothing in it may be believed before `signed_by` said so."""

    algorithm: str
    header: Mapping[str, Any]
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def signed_by(self, key: Any) -> bool:
        """Is the signature good? `key` is a public key that is bound to `algorithm` (see `Jwk`)."""
        verified: bool = ALGORITHMS[self.algorithm].verify(self.signing_input, key, self.signature)
        return verified

    def of(self, payload: bytes) -> Jws:
        """The same signature, of a payload that was sent by itself (RFC 7515 appendix F)."""
        head, _, _ = self.signing_input.partition(b".")
        return replace(self, payload=payload, signing_input=b".".join((head, encode_base64url(payload).encode())))


def read_jws(text: str, members: Set[str] = _HEADER_MEMBERS, limit: int = TOKEN_BYTES) -> Jws:
    """Read the compact form (RFC 7515 section 7.1). The header has no other members than these, and always `alg`.

    The payload may be empty. Raises ValueError: longer than `limit`, not the one spelling, or an algorithm that is none
    of ours.
    """
    if len(text) > limit:
        raise ValueError("too long")
    header_part, payload_part, signature_part = text.split(".")
    header = read_object(decode_base64url(header_part))
    if not header.keys() <= members:
        raise ValueError("header member not allowed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError("algorithm not allowed")
    return Jws(
        algorithm=algorithm,
        header=header,
        payload=decode_base64url(payload_part) if payload_part else b"",
        signing_input=f"{header_part}.{payload_part}".encode("ascii"),
        signature=decode_base64url(signature_part),
    )


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A JWS of JSON claims, no more to be believed than its `jws`."""

    jws: Jws
    kid: str | None
    typ: str | None
    claims: Mapping[str, Any] = field(repr=False)


def read_token(text: str) -> SignedToken:
    """Read a JWT in compact form. Raises Refused TOKEN_INVALID, and nothing else."""
    try:
        jws = read_jws(text)
        if not all(isinstance(value, str) for value in jws.header.values()):
            raise ValueError("header members are text")
        return SignedToken(jws, jws.header.get("kid"), jws.header.get("typ"), read_object(jws.payload))
    except ValueError:
        detail = "Send a signed JWT in compact form whose header has no members but alg, typ and kid."
        raise Refused(Reason.TOKEN_INVALID, detail) from None


@dataclass(frozen=True, slots=True)
class Jwk:
    """A public key and what it may verify: one algorithm, or all of RSA where the key names none."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any


def read_jwk_set(raw: bytes) -> tuple[Jwk, ...]:
    """The keys of a JWK set (RFC 7517 section 5) that verify what we accept; others, such as `oct`, are left out.

    Raises ValueError with a sentence for the operator: not a set, too large, private, two keys with one id, none left.
    """
    if len(raw) > JWK_SET_BYTES:
        raise ValueError(f"a JWK set has at most {JWK_SET_BYTES} bytes")
    try:
        members = read_object(raw).get("keys")
    except ValueError as error:
        raise ValueError("a JWK set is a JSON object in UTF-8 without duplicate members") from error
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ValueError("a JWK set has a list of objects named keys")
    if len(members) > JWK_SET_KEYS:
        raise ValueError(f"a JWK set has at most {JWK_SET_KEYS} keys")
    members = [_with_leading_zeros(member) for member in members]
    if any(is_private(member) for member in members):
        raise ValueError("the JWK set holds a private key; replace that key, and publish public ones only")
    keys = tuple(key for member in members if (key := read_jwk(member)) is not None)
    named = [key.kid for key in keys if key.kid is not None]
    if len(set(named)) != len(named):
        raise ValueError("two keys of the JWK set have the same kid")
    if not keys:
        raise ValueError(f"the JWK set holds no key for any of {', '.join(ALGORITHMS)}")
    return keys


def _with_leading_zeros(member: Mapping[str, Any]) -> Mapping[str, Any]:
    """Coordinates in full length (RFC 7518 section 6.2.1.2): who publishes sets may cut zeros off, as TrueLayer did."""
    length = _COORDINATES.get(str(member.get("crv")))
    if length is None:
        return member
    full = dict(member)
    for name in ("x", "y"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            full[name] = encode_base64url(decode_base64url(member[name]).rjust(length, b"\0"))
    return full


def is_private(member: Mapping[str, Any]) -> bool:
    """Does a JWK give away the private half of its key?"""
    return not _PRIVATE_MEMBERS.isdisjoint(member)


def read_jwk(member: Mapping[str, Any]) -> Jwk | None:
    """One key (RFC 7517), or None if it is of no use here: made for something else, too weak, or malformed."""
    kid, use, operations = member.get("kid"), member.get("use", "sig"), member.get("key_ops", ["verify"])
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if "kid" in member and not isinstance(kid, str):
        return None
    kty, crv = member.get("kty"), member.get("crv")
    if not isinstance(kty, str) or not isinstance(crv, str | None) or (kty, crv) not in _KEY_TYPES:
        return None
    possible, load = _KEY_TYPES[kty, crv]
    algorithms = tuple(name for name in possible if name == member.get("alg", name))
    try:
        key = load(member) if algorithms else None
    except (KeyError, TypeError, ValueError):
        return None
    return Jwk(kid, algorithms, key) if key is not None else None


def thumbprint(member: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint (RFC 7638) of a JWK that `read_jwk` took: it names the key and nothing else of the JWK."""
    needed = {name: member[name] for name in _THUMBPRINT_MEMBERS[member["kty"]]}
    text = json.dumps(needed, separators=(",", ":"), sort_keys=True)
    return encode_base64url(hashlib.sha256(text.encode()).digest())


def _on_curve(curve: ec.EllipticCurve) -> Callable[[Mapping[str, Any]], ec.EllipticCurvePublicKey]:
    length = (curve.key_size + 7) // 8

    def load(member: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
        point = b"\x04" + b"".join(_exactly(length, member[name]) for name in ("x", "y"))
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)

    return load


def _ed25519(member: Mapping[str, Any]) -> ed25519.Ed25519PublicKey:
    return ed25519.Ed25519PublicKey.from_public_bytes(_exactly(32, member["x"]))


def _rsa(member: Mapping[str, Any]) -> rsa.RSAPublicKey | None:
    modulus, exponent = (int.from_bytes(decode_base64url(member[name]), "big") for name in ("n", "e"))
    # A long exponent makes each verification slow; those in use are 3 and 65537.
    if modulus.bit_length() not in RSA_BITS or exponent.bit_length() > 32 or _is_roca(modulus):
        return None
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _is_roca(modulus: int) -> bool:
    """Was it made by the library whose keys can be factored (CVE-2017-15361)? Those are powers of 65537 modulo each of
    these primes; of others one in 2^27 looks so.
    """
    return all(modulus % prime in powers for prime, powers in _POWERS.items())


def _powers(prime: int) -> frozenset[int]:
    found, value = {1}, 65537 % prime
    while value not in found:
        found.add(value)
        value = value * 65537 % prime
    return frozenset(found)


_POWERS: Final = {
    prime: _powers(prime)
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}  # fmt: skip


def _exactly(length: int, text: str) -> bytes:
    raw = decode_base64url(text)
    if len(raw) != length:
        raise ValueError("coordinate of the wrong length")
    return raw


_KEY_TYPES: Final[Mapping[tuple[str, str | None], tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]]] = {
    ("EC", "P-256"): (("ES256",), _on_curve(ec.SECP256R1())),
    ("EC", "P-384"): (("ES384",), _on_curve(ec.SECP384R1())),
    ("EC", "P-521"): (("ES512",), _on_curve(ec.SECP521R1())),
    ("OKP", "Ed25519"): (("EdDSA",), _ed25519),
    ("RSA", None): (("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"), _rsa),
}
"""By `kty` and `crv`: the algorithms that a key can be for, and how to load it."""
_COORDINATES: Final = {"P-256": 32, "P-384": 48, "P-521": 66}
"""Bytes of one, by curve."""
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
