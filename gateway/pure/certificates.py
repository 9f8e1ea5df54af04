"""Who calls, by client certificate: whom an authority vouches for, under which names, and which names a rule allows.

Names are Subject Alternative Names; the Common Name is never looked at. A URI is written as it is
(`spiffe://shop.example/checkout`), a DNS name as `dns:api.partner.example`, so that none can pass for the other.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.pure.errors import Reason, Refused

CERTIFICATE_BYTES: Final = 64 * 1024
CHAIN_DEPTH: Final = 4
"""Certificates between the leaf and the authority, at most."""

MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate or a list of revoked ones raises; they have no base in common."""
_RSA_BITS = 2048
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_DNS_PATTERN = re.compile(rf"dns:(\*\.)?{_LABEL}(?:\.{_LABEL})*")
_DNS_NAME = re.compile(rf"dns:{_LABEL}(?:\.{_LABEL})*")
"""Who calls is one host: a wildcard would be as many names as there are, excluded ones of its authority too."""
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+")
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_SPIFFE_LENGTH = 2048


def compile_san(pattern: str) -> re.Pattern[str]:
    """The names that a pattern allows, as an expression for `fullmatch`. Raises ValueError when it is no pattern.

    In the path of a URI `*` stands for one segment and a last `**` for one or more. A DNS pattern may begin with `*.`,
    which stands for one label.
    """
    if pattern.lower().startswith("dns:"):
        pattern = pattern.lower()
        found = _DNS_PATTERN.fullmatch(pattern)
        if found is None:
            raise ValueError(f"{pattern} is no DNS name; write dns:api.partner.example or dns:*.partner.example")
        return re.compile(rf"dns:{_LABEL}{re.escape(pattern[5:])}" if found[1] else re.escape(pattern))
    if _URI.fullmatch(pattern) is None:
        raise ValueError(f"{pattern} is no SAN; write spiffe://shop.example/* or dns:api.partner.example")
    segments = pattern.split("/")
    authority = 3 if pattern.partition(":")[2].startswith("//") else 1
    if any("*" in segment for segment in segments[:authority]):
        raise ValueError(f"{pattern}: only a segment of the path may be a wildcard")
    last = len(segments) - 1
    return re.compile("/".join(_segment(pattern, s, i == last) for i, s in enumerate(segments)))


def _segment(pattern: str, segment: str, last: bool) -> str:
    if segment == "*":
        return "[^/?#]+"
    if segment == "**" and last:
        return "[^/?#]+(?:/[^/?#]+)*"
    if "*" in segment:
        raise ValueError(f"{pattern}: * stands for a whole segment, ** for all segments at the end")
    return re.escape(segment)


def sans_overlap(one: str, other: str) -> bool:
    """Could one name be allowed by both patterns?"""
    if one.lower().startswith("dns:") and other.lower().startswith("dns:"):
        return _overlap(one.lower().removeprefix("dns:").split("."), other.lower().removeprefix("dns:").split("."))
    return _overlap(one.split("/"), other.split("/"))


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    if not one or not other:
        return not one and not other
    if "**" in (one[0], other[0]):
        return True
    return (one[0] == other[0] or "*" in (one[0], other[0])) and _overlap(one[1:], other[1:])


def arrange(names: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> tuple[str, ...] | None:
    """The names, those that a pattern allows first; None if it allows none. Without patterns all are allowed."""
    if not patterns:
        return tuple(names)
    allowed = [name for name in names if any(pattern.fullmatch(name) for pattern in patterns)]
    return (*allowed, *(name for name in names if name not in allowed)) if allowed else None


def read_fingerprint(text: str) -> bytes:
    """The SHA-256 of a certificate's DER from hexadecimal, with or without colons. Raises ValueError."""
    digits = text.replace(":", "")
    if re.fullmatch(r"[0-9A-Fa-f]{64}", digits) is None:
        raise ValueError(f"{text} is no fingerprint; write the SHA-256 of the certificate in 64 hexadecimal digits")
    return bytes.fromhex(digits)


Issued = tuple[bytes, int]
"""Whose key signed a certificate (SHA-256 of the public key), and under which serial number."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that an authority vouches for, from `not_before` to `not_after` (Unix seconds, of the chain)."""

    names: tuple[str, ...]
    fingerprint: bytes
    not_before: float
    not_after: float
    issued: tuple[Issued, ...]
    """This certificate, and those between it and the authority."""

    def check_time(self, now: float) -> None:
        """Raises Refused CERTIFICATE_INVALID. Asked at every request: a connection may outlive its certificate."""
        if not self.not_before <= now <= self.not_after:
            raise _invalid("Present a certificate that is valid now.")


class ClientAuthority:
    """The CA certificates that one rule trusts. Raises ValueError when the PEM has none that could issue now."""

    __slots__ = ("_store", "certificates")

    def __init__(self, pem: bytes, now: float) -> None:
        try:
            authorities = x509.load_pem_x509_certificates(pem)
            constraints = [_constraints(authority) for authority in authorities]
        except MALFORMED as error:
            raise ValueError("holds no certificate in PEM, or a malformed one") from error
        if not all(constraint is not None and constraint.ca for constraint in constraints):
            raise ValueError("holds a certificate that is not of a certificate authority")
        if all(authority.not_valid_after_utc.timestamp() < now for authority in authorities):
            raise ValueError("holds only certificates that have expired")
        self.certificates = tuple(authorities)
        self._store = verification.Store(authorities)

    def vouch(self, der: bytes, now: float) -> ClientCertificate:
        """The holder of a certificate that these authorities issued for client authentication.

        Path and extensions are judged by RFC 5280 (no CA as a leaf, no weak signature), keys are strong, the extended
        key usage must be present, and an SVID must be one (SPIFFE X509-SVID section 5). Raises Refused
        CERTIFICATE_INVALID.
        """
        try:
            if len(der) > CERTIFICATE_BYTES:
                raise ValueError("too large")
            leaf = x509.load_der_x509_certificate(der)
            chain = self._verifier(now).verify(leaf, []).chain
            if not all(_strong(link.public_key()) for link in chain):
                raise ValueError("a weak key")
            names = _names(leaf)
        except (*MALFORMED, verification.VerificationError):
            detail = "Present a valid certificate of an authority that this route trusts, made for client use."
            raise _invalid(detail) from None
        return ClientCertificate(
            names=names,
            fingerprint=hashlib.sha256(der).digest(),
            not_before=max(link.not_valid_before_utc.timestamp() for link in chain),
            not_after=min(link.not_valid_after_utc.timestamp() for link in chain),
            issued=tuple((key_id(issuer), link.serial_number) for link, issuer in pairwise(chain)),
        )

    def _verifier(self, now: float) -> verification.ClientVerifier:
        policy = verification.ExtensionPolicy
        either = verification.Criticality.AGNOSTIC
        leaf = (
            policy.webpki_defaults_ee()
            .require_present(x509.ExtendedKeyUsage, either, _made_for_clients)
            .may_be_present(x509.KeyUsage, either, _made_for_signing)
        )
        return (
            verification.PolicyBuilder()
            .store(self._store)
            .time(dt.datetime.fromtimestamp(now, dt.UTC))
            .max_chain_depth(CHAIN_DEPTH)
            .extension_policies(ca_policy=policy.webpki_defaults_ca(), ee_policy=leaf)
            .build_client_verifier()
        )


def key_id(certificate: x509.Certificate) -> bytes:
    """SHA-256 of a certificate's public key."""
    encoded = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).digest()


def _made_for_clients(_policy: verification.Policy, _leaf: x509.Certificate, usage: x509.ExtendedKeyUsage) -> None:
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("not made for client authentication")


def _made_for_signing(_policy: verification.Policy, _leaf: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign or usage.crl_sign):
        raise ValueError("made for something else than to sign a handshake")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _strong(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
    return isinstance(key, ed25519.Ed25519PublicKey)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if any(uri.lower().startswith("spiffe:") for uri in uris):
        # An SVID is one identity: a second URI would let its holder choose who to be.
        if len(uris) != 1 or len(uris[0]) > _SPIFFE_LENGTH or _SPIFFE_ID.fullmatch(uris[0]) is None:
            raise ValueError("not one SPIFFE id")
    elif not all(_URI.fullmatch(uri) for uri in uris):
        raise ValueError("not a URI")
    hosts = [f"dns:{host.lower()}" for host in names.get_values_for_type(x509.DNSName)]
    if not all(_DNS_NAME.fullmatch(host) for host in hosts):
        raise ValueError("not a DNS name")
    if not uris and not hosts:
        raise ValueError("names nobody")
    return (*uris, *hosts)


def _invalid(detail: str) -> Refused:
    return Refused(Reason.CERTIFICATE_INVALID, detail)
