"""Apple (App Store Server Notifications, version 2): `signedPayload`, a JWS (ES256) with its certificates (`x5c`).

Source: https://developer.apple.com/documentation/appstoreservernotifications and the checks of Apple's App Store Server
Library. The secret is Apple's root certificate (https://www.apple.com/certificateauthority, Apple Root CA - G3): the
certificates of a delivery are believed if they end there and are marked as those that sign for the App Store, for Apple
has others below the same root. Whether one was revoked is not asked. `notificationUUID` is the key; it is signed, and a
repetition may be signed anew. A delivery is repeated for three days, with the time of the first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from pydantic import Field

from gateway.pure.certificates import MALFORMED
from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import Jws, read_jws, read_object
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
    plain_base64,
    signed_object,
)
from gateway.verifying import KeySets

MEMBER: Final = "signedPayload"

_ALGORITHM: Final = "ES256"
_HEADER: Final = frozenset({"alg", "typ", "kid", "x5c"})
_PAYLOAD_MAX: Final = 256 * 1024
"""Characters: transactions within are signed themselves, each with its certificates."""
_REPEATED: Final = 4 * 86_400.0
"""Seconds."""
_LOST: Final = (b"", b"\n", b"\r", b"\r\n")
"""With what DER can end by chance, and what is taken off the end of a secret that is text."""
_SIGNS_RECEIPTS: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.11.1")
_ISSUES_SIGNERS: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.2.1")
_SUBJECTS: Final = ("data", "summary", "appData", "externalPurchaseToken")


class Settings(ProviderSettings):
    """Of which app, and from which environment; `app_apple_id` is asked of the live one alone, where it is named."""

    bundle_id: Annotated[str, Field(min_length=1)]
    environment: Literal["Production", "Sandbox"]
    app_apple_id: Annotated[int, Field(ge=1)] | None = None


def parse_secret(secret: bytes) -> bytes:
    """A root certificate, in PEM or DER. Raises ValueError."""
    for lost in _LOST:
        try:
            certificate = _load(secret + lost)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except MALFORMED:
            continue
        if constraints.ca:
            return certificate.public_bytes(Encoding.DER)
    raise ValueError("a secret of Apple is its root certificate, in PEM or DER")


def _load(secret: bytes) -> x509.Certificate:
    read = x509.load_pem_x509_certificate if b"-----BEGIN" in secret else x509.load_der_x509_certificate
    return read(secret)


def provision(settings: Settings, key_sets: KeySets) -> Apple:  # noqa: ARG001 - nothing is fetched
    """Judges by the settings, and by the roots that are the secrets."""
    return Apple(settings)


@dataclass(frozen=True, slots=True)
class Apple:
    """Judges the notifications of one app."""

    settings: Settings

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        """Raises `Refused`. The signed time may be four days old, for that long deliveries are repeated."""
        body = signed_object(arrival.body)
        if not body.get(MEMBER):
            raise missing(MEMBER)
        if body.keys() != {MEMBER}:
            raise Refused(Reason.DELIVERY_INVALID, f"Send {MEMBER} alone: nothing beside it is signed.")
        try:
            jws = read_jws(str(body[MEMBER]), _HEADER, _PAYLOAD_MAX)
            payload = read_object(jws.payload)
        except ValueError:
            raise malformed(f"Send {MEMBER} as a JWS.") from None
        index = _signer(jws, keys[:MAX_SECRETS], arrival.received_at)
        self._check_subject(payload)
        key, signed = payload.get("notificationUUID"), payload.get("signedDate")
        if not isinstance(key, str) or not 1 <= len(key) <= 255 or type(signed) is not int:
            raise Refused(Reason.DELIVERY_INVALID, "Send a notification with notificationUUID and signedDate.")
        check_fresh(signed / 1000, arrival, behind=max(tolerance, _REPEATED), ahead=tolerance)
        live = self.settings.environment == "Production"
        return Verified(key, Coverage.FULL, index, live, content=_kind(payload))

    def _check_subject(self, payload: Mapping[str, Any]) -> None:
        subject = next((value for name in _SUBJECTS if isinstance(value := payload.get(name), dict)), {})
        wanted = self.settings
        app = wanted.app_apple_id if wanted.environment == "Production" else None
        ours = subject.get("bundleId") == wanted.bundle_id and app in (None, subject.get("appAppleId"))
        if not ours or _environment(subject) != wanted.environment:
            raise malformed("Send notifications of the app and the environment that this endpoint is for.")


def _environment(subject: Mapping[str, Any]) -> object:
    """Tokens of external purchases say it by their id."""
    purchase = subject.get("externalPurchaseId")
    if isinstance(purchase, str):
        return "Sandbox" if purchase.startswith("SANDBOX") else "Production"
    return subject.get("environment")


def _kind(payload: Mapping[str, Any]) -> bytes:
    return f"{payload.get('notificationType')}.{payload.get('subtype')}".encode("utf-8", "surrogatepass")


def _signer(jws: Jws, roots: Sequence[bytes], now: float) -> int:
    """The index of the root that the signature goes back to. Raises `Refused`."""
    listed = jws.header.get("x5c")
    if jws.algorithm != _ALGORITHM or not isinstance(listed, list) or len(listed) != 3:
        raise malformed("Sign with ES256, and send the three certificates from the signer's to the root's.")
    chain = [plain_base64(text) if isinstance(text, str) and text.isascii() else None for text in listed]
    try:
        leaf, middle, root = (x509.load_der_x509_certificate(der or b"") for der in chain)
        index = roots.index(root.public_bytes(Encoding.DER))
        key = _vouched(leaf, middle, root, now)
    except (*MALFORMED, UnsupportedAlgorithm, verification.VerificationError):
        raise malformed("Sign by a certificate that Apple issued for the App Store, and that is valid now.") from None
    if not jws.signed_by(key):
        raise mismatch()
    return index


def _vouched(
    leaf: x509.Certificate, middle: x509.Certificate, root: x509.Certificate, now: float
) -> ec.EllipticCurvePublicKey:
    """The key of the leaf (RFC 5280 section 6, and Apple's marks). Raises ValueError, and what `x509` raises."""
    policy, either = verification.ExtensionPolicy, verification.Criticality.AGNOSTIC
    end = policy.permit_all().may_be_present(x509.BasicConstraints, either, _no_authority)
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    builder = verification.PolicyBuilder().store(verification.Store([root])).time(at).max_chain_depth(1)
    verifier = builder.extension_policies(ca_policy=policy.webpki_defaults_ca(), ee_policy=end).build_client_verifier()
    if verifier.verify(leaf, [middle]).chain != [leaf, middle, root]:
        raise ValueError("not one by another")
    if not root.not_valid_before_utc <= at <= root.not_valid_after_utc:
        raise ValueError("the root has expired")
    leaf.extensions.get_extension_for_oid(_SIGNS_RECEIPTS)
    middle.extensions.get_extension_for_oid(_ISSUES_SIGNERS)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a key for ES256")  # noqa: TRY004 - it is input, not a mistake of the caller
    return key


def _no_authority(
    _policy: verification.Policy, _leaf: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("an authority's certificate")
