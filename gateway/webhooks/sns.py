"""Amazon SNS: `Signature` within the message, RSA (PKCS #1 v1.5) over its members in their order.

Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The secret is the ARN of the
topic and, from the next line on, the certificate that SNS signs with, in PEM: nothing is fetched from where a message
says that it is. Anybody can have SNS sign messages of a topic of his own, so the topic must be this one. Version 1 of
the signature (SHA-1) is taken only where it is asked for by name. A subscription is never confirmed here: the backend
gets the message, and decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from pydantic import Field

from gateway.pure.webhook_macs import base64_signature
from gateway.pure.webhook_rsa import read_pinned
from gateway.pure.webhooks import (
    MAX_SECRETS,
    Arrival,
    Coverage,
    ProviderSettings,
    Verified,
    check_fresh,
    malformed,
    mismatch,
    missing,
    signed_object,
    written_time,
)
from gateway.verifying import KeySets

_REPEATED: Final = 3600.0
"""Seconds for which SNS repeats a message, with the time of the first."""
_TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
_CERTIFICATE: Final = re.compile(r"https://sns\.[a-z0-9-]{3,}\.amazonaws\.com(?:\.cn)?/[A-Za-z0-9_-]+\.pem")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_EXPECTED: Final = "a secret of SNS is the topic's ARN, and on the next lines the certificate in PEM"
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_DIGESTS: Final[Mapping[str, HashAlgorithm]] = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - where it is asked for by name
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


def parse_secret(secret: bytes) -> bytes:
    """The topic's ARN and the certificate. Raises ValueError."""
    read_pinned(secret, _TOPIC, _EXPECTED)
    return secret


class Settings(ProviderSettings):
    """The `SignatureVersion` of the topic: 1 signs a SHA-1, for which two messages can be made to fit one signature."""

    signature_versions: Annotated[tuple[Literal["1", "2"], ...], Field(min_length=1)] = ("2",)


def provision(settings: Settings, key_sets: KeySets) -> Sns:  # noqa: ARG001 - nothing is fetched
    """Judges by the settings and the secrets."""
    return Sns({version: _DIGESTS[version] for version in settings.signature_versions})


@dataclass(frozen=True, slots=True)
class Sns:
    """Judges messages of these versions of the signature, by the digest of each."""

    digests: Mapping[str, HashAlgorithm]

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        """Raises `Refused`."""
        message = signed_object(arrival.body)
        text = message.get("Signature")
        if not isinstance(text, str) or not text:
            raise missing("Signature")
        names, digest = _SIGNED.get(str(message.get("Type"))), self.digests.get(str(message.get("SignatureVersion")))
        address = message.get("SigningCertURL")
        if names is None or digest is None or not isinstance(address, str):
            raise malformed("Set the topic's SignatureVersion to 2.")
        if _CERTIFICATE.fullmatch(address) is None:
            raise malformed("Sign by a certificate of SNS's own address.")
        canonical, signature = _canonical(message, names), base64_signature(text)
        for index, secret in enumerate(keys[:MAX_SECRETS] if signature else ()):
            pinned, at = read_pinned(secret, _TOPIC, _EXPECTED), arrival.received_at
            if pinned.owner == message["TopicArn"] and pinned.signed(signature or b"", canonical, at, digest):
                sent = written_time(message["Timestamp"])
                check_fresh(sent, arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
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
