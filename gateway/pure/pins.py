"""Public key pins: the very keys that an upstream may have, whoever vouches for them (RFC 7469 section 2.4).

A pin is `sha256/` and the base64 of the SHA-256 of the certificate's SubjectPublicKeyInfo, so that a certificate
renewed for the same key still fits.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_PREFIX: Final = "sha256/"


def read_pin(text: str) -> bytes:
    """The 32 bytes that a pin stands for. Raises ValueError with a sentence for the operator."""
    try:
        digest = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size or write_pin(digest) != text:
        raise ValueError("a pin is sha256/ and the base64 of the 32 bytes of a public key's SHA-256")
    return digest


def write_pin(digest: bytes) -> str:
    return _PREFIX + base64.b64encode(digest).decode()


def key_digest(certificate: bytes) -> bytes:
    """SHA-256 of the public key in a DER certificate."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
