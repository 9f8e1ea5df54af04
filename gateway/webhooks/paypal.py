"""PayPal: `PAYPAL-TRANSMISSION-SIG`, RSA (PKCS #1 v1.5, SHA-256) over `id|time|webhook id|CRC-32 of the body`.

Source: https://developer.paypal.com/api/rest/webhooks/rest. The secret is the id of the webhook and, from the next
line on, the certificate that PayPal signs with, in PEM: nothing is fetched from where a delivery says that it is. A
CRC-32 is no digest, bodies can be made to fit one: the id of the transmission, which is signed, is the key, so that
another body under it is a conflict. PayPal repeats a delivery for three days, with the time of the first.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

from gateway.pure.webhook_macs import base64_signature
from gateway.pure.webhook_rsa import read_pinned
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
    written_time,
)

_REPEATED: Final = 4 * 86_400.0
"""Seconds."""
_WEBHOOK: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CERTIFICATE: Final = re.compile(r"https://api(?:\.sandbox)?\.paypal\.com/v1/notifications/certs/[A-Za-z0-9_-]+")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_EXPECTED: Final = "a secret of PayPal is the webhook's id, and on the next lines the certificate in PEM"
_FIELDS: Final = ("sig", "id", "time", "cert-url", "auth-algo")


def parse_secret(secret: bytes) -> bytes:
    """The webhook's id and the certificate. Raises ValueError."""
    read_pinned(secret, _WEBHOOK, _EXPECTED)
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
    if _ID.fullmatch(said["id"]) is None:
        raise malformed("Send the id of the transmission as PayPal writes it.")
    sent = written_time(said["time"])
    signature = base64_signature(said["sig"])
    for index, secret in enumerate(keys[:MAX_SECRETS] if signature else ()):
        pinned = read_pinned(secret, _WEBHOOK, _EXPECTED)
        message = f"{said['id']}|{said['time']}|{pinned.owner}|{zlib.crc32(arrival.body)}".encode()
        if pinned.signed(signature or b"", message, arrival.received_at):
            check_fresh(sent, arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
            return Verified(said["id"], Coverage.PARTIAL, index)
    raise mismatch()
