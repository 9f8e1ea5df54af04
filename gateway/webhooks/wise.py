"""Wise: `X-Signature-SHA256`, RSA (PKCS #1 v1.5, SHA-256) over the body, in base64.

The secret is the public key that Wise publishes. Source: https://docs.wise.com/features/webhooks-notifications/event-handling.
X-Delivery-Id is new at each attempt and not signed; the older X-Signature (SHA-1) is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.pure.webhook_macs import base64_signature, body_digest
from gateway.pure.webhook_rsa import rsa_key, rsa_signed
from gateway.pure.webhooks import MAX_SECRETS, Arrival, Coverage, Verified, mismatch, needed_field

HEADER = "x-signature-sha256"


def parse_secret(secret: bytes) -> bytes:
    """The published public key in PEM. Raises ValueError."""
    _load(secret)
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:  # noqa: ARG001 - no time is signed
    """Raises `Refused`."""
    text = needed_field(arrival, HEADER)
    signature = base64_signature(text)
    for index, pem in enumerate(keys[:MAX_SECRETS] if signature else ()):
        if rsa_signed(_load(pem), signature or b"", arrival.body):
            return Verified(body_digest(arrival.body), Coverage.BODY, index)
    raise mismatch()


def _load(pem: bytes) -> RSAPublicKey:
    return rsa_key(load_pem_public_key(pem))
