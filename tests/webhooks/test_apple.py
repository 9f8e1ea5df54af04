"""Notifications of Apple: by whose certificates, of which app and environment, and when."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.pure.errors import Reason
from gateway.pure.webhooks import Coverage, Verified
from gateway.webhooks import apple
from tests.webhooks.cases import (
    NOW,
    Published,
    arrive,
    expected,
    provisioned,
    replay_expecting,
    vectors,
    verdict,
)

LEAF_MARK: Final = "1.2.840.113635.100.6.11.1"
MIDDLE_MARK: Final = "1.2.840.113635.100.6.2.1"
SETTINGS: Final = {"bundle_id": "com.shop", "environment": "Production"}
PAYLOAD: Final[dict[str, Any]] = {
    "notificationType": "DID_RENEW",
    "notificationUUID": "0001",
    "signedDate": NOW * 1000,
    "data": {"bundleId": "com.shop", "environment": "Production", "appAppleId": 7},
}


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    name: str,
    by: Issued | None = None,
    mark: str | None = None,
    days: tuple[int, int] = (-100, 100),
    authority: bool = True,
    curve: ec.EllipticCurve | None = None,
) -> Issued:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = Issued(None, key) if by is None else by  # type: ignore[arg-type]
    at = dt.datetime.fromtimestamp(NOW, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + dt.timedelta(days=days[0]))
        .not_valid_after(at + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    if mark is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(mark), b"\x05\x00"), critical=False
        )
    return Issued(builder.sign(issuer.key, hashes.SHA256()), key)


ROOT: Final = issue("Root")
MIDDLE: Final = issue("Middle", ROOT, MIDDLE_MARK)
LEAF: Final = issue("Leaf", MIDDLE, LEAF_MARK, authority=False)


def notification(
    chain: Sequence[Issued] = (LEAF, MIDDLE, ROOT),
    payload: dict[str, Any] | None = None,
    key: Any = None,
    algorithm: str = "ES256",
    **header: Any,
) -> bytes:
    x5c = [base64.b64encode(issued.der).decode() for issued in chain]
    signer = key or chain[0].key
    text = jwt.encode(payload or PAYLOAD, signer, algorithm, headers={"x5c": x5c} | header)
    return json.dumps({"signedPayload": text}).encode()


async def deliver(body: bytes, roots: Sequence[Issued] = (ROOT,), at: float = NOW, **settings: Any) -> Any:
    verifier = provisioned("apple", SETTINGS | settings, Published(None))
    return await verdict(verifier, arrive(body, at=at), [apple.parse_secret(root.der) for root in roots])


@pytest.mark.parametrize("vector", vectors("apple"), ids=lambda vector: f"{vector['id']} {vector['case']}")
async def test_a_recorded_delivery_gets_its_verdict(vector: dict[str, Any]) -> None:
    assert await replay_expecting("apple", vector) == expected(vector)


async def test_a_notification_is_signed_whole_and_known_by_its_id() -> None:
    said = await deliver(notification())
    assert (said.key, said.coverage, said.secret, said.live) == ("0001", Coverage.FULL, 0, True)


async def test_any_of_the_roots_may_be_the_one() -> None:
    said = await deliver(notification(), (issue("Older"), ROOT))
    assert said.secret == 1


def forged() -> Sequence[Issued]:
    """All names and marks are as they should be; the root is somebody's own."""
    root = issue("Root")
    middle = issue("Middle", root, MIDDLE_MARK)
    return issue("Leaf", middle, LEAF_MARK, authority=False), middle, root


@pytest.mark.parametrize(
    "chain",
    [
        forged,
        lambda: (*forged()[:2], ROOT),
        lambda: (forged()[0], MIDDLE, ROOT),
        lambda: (LEAF, MIDDLE),
        lambda: (LEAF,),
        lambda: (LEAF, MIDDLE, ROOT, ROOT),
        lambda: (LEAF, ROOT, MIDDLE),
        lambda: (LEAF, ROOT, ROOT),
        lambda: (LEAF, MIDDLE, issue("Root")),
        lambda: (issue("Leaf", MIDDLE, authority=False), MIDDLE, ROOT),
        lambda: (issue("Leaf", MIDDLE, MIDDLE_MARK, authority=False), MIDDLE, ROOT),
        lambda: (issue("Leaf", MIDDLE, LEAF_MARK, (-50, -1), authority=False), MIDDLE, ROOT),
        lambda: (issue("Leaf", MIDDLE, LEAF_MARK, (1, 50), authority=False), MIDDLE, ROOT),
        lambda: (issue("Leaf", MIDDLE, LEAF_MARK), MIDDLE, ROOT),
        lambda: (issue("Leaf", ROOT, LEAF_MARK, authority=False), MIDDLE, ROOT),
        lambda: (issue("Leaf", unmarked := issue("Middle", ROOT), LEAF_MARK, authority=False), unmarked, ROOT),
        lambda: (
            issue("Leaf", late := issue("Middle", ROOT, MIDDLE_MARK, (-50, -1)), LEAF_MARK, authority=False),
            late,
            ROOT,
        ),
        lambda: (
            issue("Deep", plain := issue("Middle", ROOT, MIDDLE_MARK, authority=False), LEAF_MARK, authority=False),
            plain,
            ROOT,
        ),
    ],
    ids=range(18),
)
async def test_certificates_that_apple_did_not_issue_for_this_are_refused(chain: Callable[[], Any]) -> None:
    assert await deliver(notification(chain())) is Reason.SIGNATURE_INVALID


async def test_a_root_that_has_expired_vouches_for_nobody() -> None:
    root = issue("Root", days=(-100, -1))
    middle = issue("Middle", root, MIDDLE_MARK)
    chain = (issue("Leaf", middle, LEAF_MARK, authority=False), middle, root)
    assert await deliver(notification(chain), (root,)) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "body",
    [
        notification(key=ROOT.key),
        notification(key=issue("Other").key),
        notification((issue("Leaf", MIDDLE, LEAF_MARK, authority=False, curve=ec.SECP384R1()), MIDDLE, ROOT),
                     algorithm="ES384"),
        notification(key="a shared secret, which no chain leads to", algorithm="HS256"),
        notification(x5c=[]),
        notification(x5c="text"),
        notification(x5c=[1, 2, 3]),
        notification(x5c=["%%%", "%%%", "%%%"]),
        notification(x5c=[base64.urlsafe_b64encode(i.der).decode().rstrip("=") + "_-" for i in (LEAF, MIDDLE, ROOT)]),
        notification(jku="https://evil.example"),
        b'{"signedPayload":"a.b"}',
        b'{"signedPayload":"a.b.c.d"}',
        b'{"signedPayload":7}',
        notification().replace(b'"}', b'AA"}'),
    ],
    ids=range(14),
)  # fmt: skip
async def test_what_the_leaf_did_not_sign_is_refused(body: bytes) -> None:
    assert await deliver(body) is Reason.SIGNATURE_INVALID


async def test_a_payload_that_was_changed_is_refused() -> None:
    head, _, signature = json.loads(notification())["signedPayload"].split(".")
    other = json.loads(notification(payload=PAYLOAD | {"notificationType": "REFUND"}))["signedPayload"].split(".")[1]
    body = json.dumps({"signedPayload": f"{head}.{other}.{signature}"}).encode()
    assert await deliver(body) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ({"bundleId": "com.shop.evil"}, {}),
        ({"bundleId": None}, {}),
        ({"environment": "Sandbox"}, {}),
        ({"environment": None}, {}),
        ({}, {"environment": "Sandbox"}),
        ({}, {"app_apple_id": 8}),
        ({"appAppleId": None}, {"app_apple_id": 7}),
    ],
)
async def test_a_notification_of_another_app_or_environment_is_refused(
    data: dict[str, Any], settings: dict[str, Any]
) -> None:
    payload = PAYLOAD | {"data": PAYLOAD["data"] | data}
    assert await deliver(notification(payload=payload), **settings) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "subject",
    [
        {"summary": PAYLOAD["data"]},
        {"appData": PAYLOAD["data"]},
        {"externalPurchaseToken": {"bundleId": "com.shop", "externalPurchaseId": "af1"}},
    ],
)
async def test_app_and_environment_stand_where_the_kind_of_notification_has_them(subject: dict[str, Any]) -> None:
    payload = {name: value for name, value in PAYLOAD.items() if name != "data"} | subject
    assert isinstance(await deliver(notification(payload=payload)), Verified)


async def test_the_external_purchase_of_a_sandbox_is_none_of_real_money() -> None:
    token = {"bundleId": "com.shop", "externalPurchaseId": "SANDBOX_af1"}
    payload = {name: value for name, value in PAYLOAD.items() if name != "data"} | {"externalPurchaseToken": token}
    assert await deliver(notification(payload=payload)) is Reason.SIGNATURE_INVALID
    said = await deliver(notification(payload=payload), environment="Sandbox")
    assert said.live is False


@pytest.mark.parametrize("days", [-5, 1])
async def test_a_time_long_ago_or_to_come_is_stale(days: int) -> None:
    payload = PAYLOAD | {"signedDate": (NOW + days * 86_400) * 1000}
    assert await deliver(notification(payload=payload)) is Reason.DELIVERY_STALE


async def test_a_repetition_after_three_days_is_taken_and_is_the_same_however_it_is_signed() -> None:
    body = notification()
    first, again = await deliver(body), await deliver(notification(), at=NOW + 3 * 86_400)
    assert (first.key, first.content) == (again.key, again.content)
    assert body != notification()


async def test_what_stands_beside_the_payload_is_not_signed_and_not_taken() -> None:
    body = notification()[:-1] + b',"more":1}'
    assert await deliver(body) is Reason.DELIVERY_INVALID


@pytest.mark.parametrize("body", [b"{}", b'{"signedPayload":""}'])
async def test_without_a_payload_nothing_is_signed(body: bytes) -> None:
    assert await deliver(body) is Reason.SIGNATURE_REQUIRED


@pytest.mark.parametrize("lost", ["notificationUUID", "signedDate"])
async def test_a_notification_without_id_or_time_is_refused(lost: str) -> None:
    payload = {name: value for name, value in PAYLOAD.items() if name != lost}
    assert await deliver(notification(payload=payload)) is Reason.DELIVERY_INVALID


def test_a_secret_is_a_root_in_either_spelling_and_nothing_else() -> None:
    pem = ROOT.certificate.public_bytes(Encoding.PEM)
    assert apple.parse_secret(pem) == apple.parse_secret(ROOT.der) == ROOT.der
    for other in (b"", b"text", LEAF.der, b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match="root certificate"):
            apple.parse_secret(other)


def test_a_root_whose_der_ends_as_a_line_does_is_read_whole() -> None:
    root = next(made for made in iter(lambda: issue("Root"), None) if made.der.endswith(b"\n"))
    assert apple.parse_secret(root.der.removesuffix(b"\n")) == root.der
