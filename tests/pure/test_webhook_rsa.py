from __future__ import annotations

import datetime as dt
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.pure.webhook_rsa import read_pinned, rsa_key, rsa_signed

NOW = 1_800_000_000
KEY = rsa.generate_private_key(65537, 2048)
OWNER = re.compile("[a-z]+")


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
    at = dt.datetime.fromtimestamp(NOW, dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(at).not_valid_after(at + dt.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_signature_holds_for_its_message_its_key_and_its_digest_alone() -> None:
    good, other = KEY.sign(b"a", PKCS1v15(), hashes.SHA256()), KEY.sign(b"a", PKCS1v15(), hashes.SHA1())
    assert rsa_signed(KEY.public_key(), good, b"a")
    assert not rsa_signed(KEY.public_key(), good, b"b")
    assert not rsa_signed(KEY.public_key(), other, b"a")
    assert not rsa_signed(rsa.generate_private_key(65537, 2048).public_key(), good, b"a")


@pytest.mark.parametrize(("after", "valid"), [(-1, False), (0, True), (86_400, True), (86_401, False)])
def test_a_pinned_certificate_signs_while_it_is_valid(after: int, valid: bool) -> None:
    pinned = read_pinned(b"shop\n" + pem(), OWNER, "")
    assert pinned.owner == "shop"
    assert pinned.signed(KEY.sign(b"a", PKCS1v15(), hashes.SHA256()), b"a", NOW + after) is valid


@pytest.mark.parametrize(
    "secret",
    [b"", b"shop", b"SHOP\n" + pem(), pem(), b"shop\ntext", b"shop\n" + pem(ec.generate_private_key(ec.SECP256R1()))],
    ids=range(6),
)
def test_a_secret_that_is_no_owner_with_its_certificate_is_refused_in_the_words_that_are_given(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"^as expected$"):
        read_pinned(secret, OWNER, "as expected")


def test_a_key_that_is_weak_or_of_another_kind_is_refused() -> None:
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(ValueError, match="2048"):
            rsa_key(key.public_key())
