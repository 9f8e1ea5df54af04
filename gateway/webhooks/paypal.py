"""PayPal: `PAYPAL-TRANSMISSION-SIG`, RSA (PKCS #1 v1.5, SHA-256) over `id|time|webhook id|CRC-32 of the body`.

Source: https://developer.paypal.com/api/rest/webhooks/rest. The secret is the id of the webhook and, from the next
line on, the certificate that PayPal signs with, in PEM: nothing is fetched from where a delivery says that it is. A
CRC-32 is no digest, bodies can be made to fit one: the id of the transmission, which is signed, is the key, so that
another body under it is a conflict. PayPal repeats a delivery for three days, with the time of the first.
"""

from __future__ import annotations

import datetime as dt
import re
import zlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.pure.webhook_macs import base64_signature
from gateway.pure.webhooks import (
    MAX_SECRETS,
    Arrival,
    Coverage,
    Verified,
    check_fresh,
    lone_field,
    malformed,
    mismatch,
    missing,
)

_REPEATED: Final = 4 * 86_400.0
"""Seconds."""
_BITS: Final = range(2048, 8193)
_WEBHOOK: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_CERTIFICATE: Final = re.compile(r"https://api(?:\.sandbox)?\.paypal\.com/v1/notifications/certs/[A-Za-z0-9_-]+")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_FIELDS: Final = ("sig", "id", "time", "cert-url", "auth-algo")


def parse_secret(secret: bytes) -> bytes:
    """The webhook's id and the certificate. Raises ValueError."""
    _read(secret)
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`."""
    names = {
        part: f"paypal-{part if part in ('cert-url', 'auth-algo') else f'transmission-{part}'}" for part in _FIELDS
    }
    said = {part: lone_field(arrival, name) for part, name in names.items()}
    absent = next((name for part, name in names.items() if not said[part]), None)
    if absent is not None:
        raise missing(absent)
    if said["auth-algo"] != "SHA256withRSA" or _CERTIFICATE.fullmatch(said["cert-url"]) is None:
        raise malformed("Sign with SHA256withRSA, by a certificate of PayPal's own address.")
    if _ID.fullmatch(said["id"]) is None or _TIME.fullmatch(said["time"]) is None:
        raise malformed("Send the id and the time of the transmission as PayPal writes them.")
    signature = base64_signature(said["sig"])
    before, after = f"{said['id']}|{said['time']}|".encode(), b"|%d" % zlib.crc32(arrival.body)
    for index, secret in enumerate(keys[:MAX_SECRETS] if signature else ()):
        if _signed(secret, signature or b"", (before, after), arrival.received_at):
            check_fresh(_unix(said["time"]), arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
            return Verified(said["id"], Coverage.PARTIAL, index)
    raise mismatch()


def _signed(secret: bytes, signature: bytes, around: tuple[bytes, bytes], now: float) -> bool:
    """By this certificate, while it is valid."""
    webhook, certificate, key = _read(secret)
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        return False
    try:
        key.verify(signature, webhook.join(around), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _read(secret: bytes) -> tuple[bytes, x509.Certificate, RSAPublicKey]:
    webhook, _, pem = secret.partition(b"\n")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if _WEBHOOK.fullmatch(webhook) is None or not isinstance(key, RSAPublicKey) or key.key_size not in _BITS:
        raise ValueError(_EXPECTED)
    return webhook, certificate, key


def _unix(text: str) -> float:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise malformed("Send the time of the transmission as PayPal writes it.") from None


_EXPECTED: Final = "a secret of PayPal is the webhook's id, and on the next lines the certificate in PEM"
