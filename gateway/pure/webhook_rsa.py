"""RSA signatures of deliveries (PKCS #1 v1.5): by a public key, or a certificate that the operator pinned."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm

_BITS: Final = range(2048, 8193)
_SHA256: Final = SHA256()


def rsa_key(key: object) -> RSAPublicKey:
    """The key, if it is a public one of RSA and of 2048 to 8192 bits. Raises ValueError."""
    if not isinstance(key, RSAPublicKey) or key.key_size not in _BITS:
        raise ValueError("not a public RSA key of 2048 to 8192 bits")
    return key


def rsa_signed(key: RSAPublicKey, signature: bytes, message: bytes, digest: HashAlgorithm = _SHA256) -> bool:
    """Is the signature good?"""
    try:
        key.verify(signature, message, PKCS1v15(), digest)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """A provider's certificate, for what is `owner`'s: a webhook, a topic. Nothing is fetched, so nothing is believed
    of where a delivery says that its certificate is.
    """

    owner: str
    certificate: x509.Certificate = field(repr=False)
    key: RSAPublicKey = field(repr=False)

    def signed(self, signature: bytes, message: bytes, now: float, digest: HashAlgorithm = _SHA256) -> bool:
        """Is the signature good, and the certificate valid at this Unix time?"""
        begins, ends = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return begins.timestamp() <= now <= ends.timestamp() and rsa_signed(self.key, signature, message, digest)


def read_pinned(secret: bytes, owner: re.Pattern[str], expected: str) -> PinnedCertificate:
    """From a secret that is the owner on its first line, and then the certificate in PEM.

    Raises ValueError, which says `expected`.
    """
    name, _, pem = secret.partition(b"\n")
    text = name.decode("utf-8", "replace")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = rsa_key(certificate.public_key())
    except ValueError:
        raise ValueError(expected) from None
    if owner.fullmatch(text) is None:
        raise ValueError(expected)
    return PinnedCertificate(text, certificate, key)
