"""Amazon SNS: `Signature` within the message, RSA (PKCS #1 v1.5, SHA-256) over its members in their order.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The secret is the ARN of the
topic and, from the next line on, the certificate that SNS signs with, in PEM: nothing is fetched from where a message
says that it is. Anybody can have SNS sign messages of a topic of his own, so the topic must be this one. Signature
version 1 (SHA-1) is not taken. A subscription is never confirmed here: the backend gets the message, and decides.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any, Final

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
    malformed,
    mismatch,
    missing,
    signed_object,
)

_REPEATED: Final = 3600.0
"""Seconds for which SNS repeats a message, with the time of the first."""
_BITS: Final = range(2048, 8193)
_TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
_CERTIFICATE: Final = re.compile(r"https://sns\.[a-z0-9-]{3,}\.amazonaws\.com(?:\.cn)?/[A-Za-z0-9_-]+\.pem")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


def parse_secret(secret: bytes) -> bytes:
    """The topic's ARN and the certificate. Raises ValueError."""
    _read(secret)
    return secret


def verify(arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
    """Raises `Refused`."""
    message = signed_object(arrival.body)
    text = message.get("Signature")
    if not isinstance(text, str) or not text:
        raise missing("Signature")
    names = _SIGNED.get(str(message.get("Type")))
    address = message.get("SigningCertURL")
    if names is None or message.get("SignatureVersion") != "2" or not isinstance(address, str):
        raise malformed("Set the topic's SignatureVersion to 2.")
    if _CERTIFICATE.fullmatch(address) is None:
        raise malformed("Sign by a certificate of SNS's own address.")
    canonical, signature = _canonical(message, names), base64_signature(text)
    for index, secret in enumerate(keys[:MAX_SECRETS] if signature else ()):
        if _signed(secret, message["TopicArn"], signature or b"", canonical, arrival.received_at):
            check_fresh(_unix(message["Timestamp"]), arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
            return Verified(message["MessageId"], Coverage.FULL, index)
    raise mismatch()


def _canonical(message: dict[str, Any], names: Sequence[str]) -> bytes:
    """Name and value of each member, on lines of their own; a notification's subject may be absent."""
    there = [name for name in names if name != "Subject" or message.get(name) is not None]
    if not all(isinstance(message.get(name), str) for name in there) or _ID.fullmatch(message["MessageId"]) is None:
        raise malformed("Send a message of SNS with all of its members, as texts.")
    return "".join(f"{name}\n{message[name]}\n" for name in there).encode("utf-8", "surrogatepass")


def _signed(secret: bytes, topic: str, signature: bytes, canonical: bytes, now: float) -> bool:
    """For this topic, by this certificate, while it is valid."""
    ours, certificate, key = _read(secret)
    if ours != topic:
        return False
    if not certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp():
        return False
    try:
        key.verify(signature, canonical, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _read(secret: bytes) -> tuple[str, x509.Certificate, RSAPublicKey]:
    topic, _, pem = secret.partition(b"\n")
    name = topic.decode("utf-8", "replace")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if _TOPIC.fullmatch(name) is None or not isinstance(key, RSAPublicKey) or key.key_size not in _BITS:
        raise ValueError(_EXPECTED)
    return name, certificate, key


def _unix(text: str) -> float:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise malformed("Send the time of the message as SNS writes it.") from None


_EXPECTED: Final = "a secret of SNS is the topic's ARN, and on the next lines the certificate in PEM"
