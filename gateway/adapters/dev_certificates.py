"""Certificates, keys and access tokens for development: what `pangate certs dev` writes and the demo presents."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm

from gateway.adapters.keys import generate_key
from gateway.pure.jose import encode_base64url

VALID: Final = dt.timedelta(days=30)
RENEW_BEFORE: Final = dt.timedelta(days=1)

ISSUER: Final = "https://idp.example"
AUDIENCE: Final = "payments"
TOKEN_SECONDS: Final = 3600

_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate to be made: `name` of its files, the authority that issues it, its SANs, and its purpose."""

    name: str
    authority: str
    sans: tuple[str, ...]
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH


AUTHORITIES: Final = ("partners-ca", "services-ca", "server-ca", "psp-ca")
SERVER_NAMES: Final = (
    *_LOCAL,
    "api.shop.example",
    "provider.egress.internal",
    "stripe.egress.internal",
    "psp.egress.internal",
)
CLIENTS: Final = (
    Leaf("partner", "partners-ca", ("spiffe://shop.example/partner",)),
    Leaf("stranger", "partners-ca", ("spiffe://stranger.example/x",)),
    Leaf("checkout", "services-ca", ("spiffe://shop.example/checkout",)),
    Leaf("shop", "services-ca", ("spiffe://shop.example/payments",)),
    Leaf("intruder", "services-ca", ("spiffe://intruder.example/x",)),
)
PROVIDER: Final = Leaf(
    "provider", "psp-ca", (*_LOCAL, "api.provider.example", "api.stripe.example"), ExtendedKeyUsageOID.SERVER_AUTH
)


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_dev_certificates(
    directory: Path, *, server_names: Sequence[str] = SERVER_NAMES, force: bool = False, now: float | None = None
) -> list[Path]:
    """Write what is missing, expires within a day or does not fit, or with `force` everything; return what was written.

    `vault.key` alone is never replaced: the cards sealed under it would be lost. `now` is Unix time. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    at = dt.datetime.fromtimestamp(time.time() if now is None else now, dt.UTC).replace(microsecond=0)
    server = Leaf("server", "server-ca", tuple(server_names), ExtendedKeyUsageOID.SERVER_AUTH)
    written: list[Path] = []
    authorities: dict[str, _Pair] = {}
    for name in AUTHORITIES:
        pair = None if force else _load(directory, name, at)
        if pair is None:
            pair = _authority(name, at)
            written += _save(directory, name, pair)
        authorities[name] = pair
    for leaf in (*CLIENTS, PROVIDER, server):
        issuer = authorities[leaf.authority]
        pair = None if force else _load(directory, leaf.name, at)
        if pair is None or not _fits(pair.certificate, leaf, issuer.certificate):
            written += _save(directory, leaf.name, _issue(leaf, issuer, at))
    return written + _token_issuer(directory, force) + _vault_key(directory)


def mint_token(
    directory: Path,
    claims: Mapping[str, Any] | None = None,
    *,
    certificate: Path | None = None,
    now: float | None = None,
) -> str:
    """An access token (RFC 9068) of the development issuer. `claims` override; None as a value leaves a claim out.

    `certificate` is a PEM file that the token is to be bound to (RFC 8705). Raises OSError if there is no issuer yet.
    """
    key = _private_key((directory / "jwt-issuer.key").read_bytes())
    issued = int(time.time() if now is None else now)
    content: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "partner-1",
        "client_id": "partner-1",
        "scope": "payments:write",
        "jti": secrets.token_urlsafe(16),
        "iat": issued,
        "exp": issued + TOKEN_SECONDS,
    }
    if certificate is not None:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        content["cnf"] = {"x5t#S256": encode_base64url(leaf.fingerprint(hashes.SHA256()))}
    content.update(claims or {})
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": _jwk(key)["kid"]})


def _authority(name: str, at: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Pangate development {name}")])
    builder = _builder(subject, subject, key.public_key(), at)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _issue(leaf: Leaf, issuer: _Pair, at: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    # The subject is empty, as a name counts only as SAN; RFC 5280 section 4.2.1.6 makes the SAN critical then.
    builder = _builder(x509.Name([]), issuer.certificate.subject, key.public_key(), at)
    builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_san, leaf.sans))), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([leaf.usage]), critical=False)
    builder = builder.add_extension(authority_key, critical=False)
    return _Pair(builder.sign(issuer.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - dt.timedelta(minutes=5))
        .not_valid_after(at + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _san(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(directory: Path, name: str, at: dt.datetime) -> _Pair | None:
    """A certificate and its key, if both are there, belong together and serve for another day."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
        key = _private_key((directory / f"{name}.key").read_bytes())
    except (OSError, ValueError):
        return None
    serves = certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc - RENEW_BEFORE
    return _Pair(certificate, key) if serves and certificate.public_key() == key.public_key() else None


def _fits(certificate: x509.Certificate, leaf: Leaf, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return list(names) == [_san(name) for name in leaf.sans]


def _save(directory: Path, name: str, pair: _Pair) -> list[Path]:
    certificate = pair.certificate.public_bytes(serialization.Encoding.PEM)
    return [
        _write(directory / f"{name}.key", _pem(pair.key), 0o600),
        _write(directory / f"{name}.pem", certificate, 0o644),
    ]


def _token_issuer(directory: Path, force: bool) -> list[Path]:
    secret, public = directory / "jwt-issuer.key", directory / "jwks.json"
    try:
        key = None if force else _private_key(secret.read_bytes())
    except (OSError, ValueError):
        key = None
    written = []
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        written.append(_write(secret, _pem(key), 0o600))
    jwks = (json.dumps({"keys": [_jwk(key)]}, indent=2) + "\n").encode()
    if not public.exists() or public.read_bytes() != jwks:
        written.append(_write(public, jwks, 0o644))
    return written


def _jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The public key as a JWK whose id is its thumbprint (RFC 7638)."""
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    canonical = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    kid = encode_base64url(hashlib.sha256(canonical.encode()).digest())
    return {**public, "kid": kid, "alg": "ES256", "use": "sig"}


def _vault_key(directory: Path) -> list[Path]:
    path = directory / "vault.key"
    return [] if path.exists() else [_write(path, generate_key().encode(), 0o600)]


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")  # noqa: TRY004 - the file is wrong, not the caller
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Write a file at once: whoever reads it sees the old content or the new, and never with wider permissions."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)
    return path
