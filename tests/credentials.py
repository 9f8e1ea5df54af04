"""What callers present in tests: tokens of an issuer, certificates of an authority, good ones and every kind of bad."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.pure.jose import ALGORITHMS, encode_base64url, thumbprint

NOW = 1_800_000_000
ISSUER = "https://idp.example"
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

Claims = Mapping[str, Any]


def private_key(algorithm: str, which: int = 0) -> Any:
    """A private key; the same one for the same arguments."""
    return _private_key(algorithm, which)


_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@functools.cache
def _private_key(algorithm: str, _which: int) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def jwk(algorithm: str, kid: str | None = None, which: int = 0, **members: Any) -> dict[str, Any]:
    """The public JWK of `private_key`; a member given as None is left out."""
    make: Any = {"ES": ECAlgorithm, "Ed": OKPAlgorithm}.get(algorithm[:2], RSAAlgorithm)
    public = make.to_jwk(private_key(algorithm, which).public_key(), as_dict=True)
    public.pop("key_ops", None)
    public = {**public, "kid": kid, "alg": algorithm, "use": "sig", **members}
    return {name: value for name, value in public.items() if value is not None}


def jwk_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good access token; a claim given as None is left out."""
    good = {
        "iss": ISSUER,
        "aud": "payments",
        "sub": "partner-1",
        "client_id": "client-1",
        "scope": "payments:read payments:write",
        "jti": "token-1",
        "iat": NOW - 60,
        "exp": NOW + 300,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def spell(value: Any) -> str:
    """A part of a token: JSON of the value, or the bytes as they are, in base64url."""
    return encode_base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def sign(header: Any, payload: Any, algorithm: str = "ES256", which: int = 0) -> str:
    """A token whose signature is good, whatever header and payload say."""
    signed = f"{spell(header)}.{spell(payload)}"
    signature = ALGORITHMS[algorithm].sign(signed.encode(), private_key(algorithm, which))
    return f"{signed}.{encode_base64url(signature)}"


def token(algorithm: str = "ES256", header: Claims | None = None, **changes: Any) -> str:
    """A good access token of RFC 9068, but for what is said to be different."""
    head = {"alg": algorithm, "typ": "at+jwt", "kid": algorithm, **(header or {})}
    return sign({name: value for name, value in head.items() if value is not None}, claims(**changes), algorithm)


URI = "https://api.example/v1/payments"


def key_thumbprint(algorithm: str = "ES256", which: int = 0) -> str:
    """RFC 7638, of `private_key`."""
    return thumbprint(jwk(algorithm, which=which))


def bound_token(algorithm: str = "ES256", which: int = 0, **changes: Any) -> str:
    """A good access token that is bound to `private_key`."""
    return token(**{"cnf": {"jkt": key_thumbprint(algorithm, which)}, **changes})


def proof(
    access_token: str, algorithm: str = "ES256", which: int = 0, header: Claims | None = None, **changes: Any
) -> str:
    """A good DPoP proof for a POST to `URI`, but for what is said to be different; None leaves a member out."""
    public = jwk(algorithm, which=which, alg=None, use=None)
    head = {"typ": "dpop+jwt", "alg": algorithm, "jwk": public, **(header or {})}
    ath = encode_base64url(hashlib.sha256(access_token.encode()).digest())
    good = {"jti": "proof-1", "htm": "POST", "htu": URI, "iat": NOW, "ath": ath}
    said = {name: value for name, value in {**good, **changes}.items() if value is not None}
    return sign({name: value for name, value in head.items() if value is not None}, said, algorithm, which)


def signed_with_sha1(der: bytes, authority: Authority) -> bytes:
    """The same certificate, signed anew with ECDSA over SHA-1; no library makes these any more."""
    return _signed_anew(x509.load_der_x509_certificate(der).tbs_certificate_bytes, authority, _SHA1)


def crl_with_sha1(der: bytes, authority: Authority) -> bytes:
    """The same revocation list, signed anew with ECDSA over SHA-1."""
    return _signed_anew(x509.load_der_x509_crl(der).tbs_certlist_bytes, authority, _SHA1)


def crl_without_end(der: bytes, authority: Authority) -> bytes:
    """The same revocation list, signed anew, but without the time of the next one."""
    content = x509.load_der_x509_crl(der).tbs_certlist_bytes
    end = content.index(_UTC_TIME, content.index(_UTC_TIME) + 1)
    return _signed_anew(content[:end] + content[end + 15 :], authority, _SHA256)


def serial_of(der: bytes) -> int:
    """The serial number of a certificate."""
    return x509.load_der_x509_certificate(der).serial_number


_SHA256 = bytes.fromhex("300a06082a8648ce3d040302"), hashes.SHA256()
_SHA1 = bytes.fromhex("300906072a8648ce3d0401"), hashes.SHA1()
_UTC_TIME = b"\x17\x0d"


def _signed_anew(sequence: bytes, authority: Authority, algorithm: tuple[bytes, hashes.SHA1 | hashes.SHA256]) -> bytes:
    name, digest = algorithm
    content = sequence[2 if sequence[1] < 0x80 else 2 + sequence[1] - 0x80 :].replace(_SHA256[0], name)
    signed = _sequence(content)
    signature = authority.key.sign(hashlib.new(digest.name, signed).digest(), ec.ECDSA(Prehashed(digest)))
    return _sequence(signed + name + b"\x03" + bytes([len(signature) + 1, 0]) + signature)


def _sequence(content: bytes) -> bytes:
    size = len(content)
    length = b"\x82" + size.to_bytes(2, "big") if size > 0xFF else b"\x81" + bytes([size])
    return b"\x30" + (length if size > 0x7F else bytes([size])) + content


def general_name(text: str) -> x509.GeneralName:
    if ":" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "partners", **choices: Any) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_certificate(name, name, key, key, ca=True, **choices), key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def subordinate(self, name: str, **choices: Any) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return Authority(self._issue(name, key, ca=True, **choices), key)

    def client(self, *names: str, **choices: Any) -> bytes:
        """The DER of a client certificate with these SANs."""
        key = choices.pop("key", None) or private_key("ES256", 7)
        issued = self._issue("", key, **{"names": names, "usages": [CLIENT_AUTH], **choices})
        return issued.public_bytes(serialization.Encoding.DER)

    def crl(
        self,
        *serials: int,
        begins: float = NOW - 60,
        ends: float = NOW + 3600,
        partial: bool = False,
        encoding: serialization.Encoding = serialization.Encoding.PEM,
    ) -> bytes:
        """The list of these revoked serial numbers; `partial` says that it is not all of them."""
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.certificate.subject, last_update=_date(begins), next_update=_date(ends)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, _date(begins)).build()
            builder = builder.add_revoked_certificate(entry)
        if partial:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(encoding)

    def _issue(self, name: str, key: Any, **choices: Any) -> x509.Certificate:
        issuer = self.certificate.subject.rdns[0].rfc4514_string().removeprefix("CN=")
        return _certificate(name, issuer, self.key, key, **choices)


def _date(when: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(when, dt.UTC)


def _certificate(
    name: str,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: Any,
    *,
    ca: bool = False,
    names: tuple[str, ...] = (),
    usages: list[x509.ObjectIdentifier] | None = None,
    begins: float = NOW - 3600,
    ends: float = NOW + 3600,
    path_length: int | None = None,
    permitted: list[x509.GeneralName] | None = None,
    excluded: list[x509.GeneralName] | None = None,
    serial: int | None = None,
    key_usage: Mapping[str, bool] | None = None,
    signs_lists: bool = True,
) -> x509.Certificate:
    def subject(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

    usage: dict[str, bool] = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usage |= {
        "digital_signature": not ca,
        "encipher_only": False,
        "decipher_only": False,
        "crl_sign": ca and signs_lists,
        "key_cert_sign": ca,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_date(begins))
        .not_valid_after(_date(ends))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, **(key_usage or {})}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(general_name, names))), critical=not name)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if permitted or excluded:
        builder = builder.add_extension(x509.NameConstraints(permitted, excluded), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())
