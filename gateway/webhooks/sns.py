"""Amazon SNS: `Signature` within the message, RSA (PKCS #1 v1.5, SHA-256) over its members in their order.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The secret is the ARN of the
topic and, from the next line on, the certificate that SNS signs with, in PEM: nothing is fetched from where a message
says that it is. Anybody can have SNS sign messages of a topic of his own, so the topic must be this one. Signature
version 1 (SHA-1) is not taken. A subscription is never confirmed here: the backend gets the message, and decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from gateway.pure.webhook_macs import base64_signature
from gateway.pure.webhook_rsa import read_pinned
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
    written_time,
)

_REPEATED: Final = 3600.0
"""Seconds for which SNS repeats a message, with the time of the first."""
_TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
_CERTIFICATE: Final = re.compile(r"https://sns\.[a-z0-9-]{3,}\.amazonaws\.com(?:\.cn)?/[A-Za-z0-9_-]+\.pem")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_EXPECTED: Final = "a secret of SNS is the topic's ARN, and on the next lines the certificate in PEM"
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


def parse_secret(secret: bytes) -> bytes:
    """The topic's ARN and the certificate. Raises ValueError."""
    read_pinned(secret, _TOPIC, _EXPECTED)
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
        pinned = read_pinned(secret, _TOPIC, _EXPECTED)
        if pinned.owner == message["TopicArn"] and pinned.signed(signature or b"", canonical, arrival.received_at):
            check_fresh(written_time(message["Timestamp"]), arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
            return Verified(message["MessageId"], Coverage.FULL, index)
    raise mismatch()


def _canonical(message: dict[str, Any], names: Sequence[str]) -> bytes:
    """Name and value of each member, on lines of their own; a notification's subject may be absent."""
    there = [name for name in names if name != "Subject" or message.get(name) is not None]
    if not all(isinstance(message.get(name), str) for name in there) or _ID.fullmatch(message["MessageId"]) is None:
        raise malformed("Send a message of SNS with all of its members, as texts.")
    if any("\n" in message[name] for name in there if name != "Message"):
        raise malformed("Send line feeds in Message alone: what is signed then has one reading.")
    return "".join(f"{name}\n{message[name]}\n" for name in there).encode("utf-8", "surrogatepass")
