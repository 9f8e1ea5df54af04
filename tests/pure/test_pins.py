from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.pins import key_digest, read_pin, write_pin
from tests.certificates import Authority


@given(st.binary(min_size=32, max_size=32))
def test_a_pin_that_was_written_is_read(digest: bytes) -> None:
    assert read_pin(write_pin(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256/",
        "A" * 43 + "=",
        "sha256/" + "A" * 43,
        "sha256/" + "A" * 44,
        "sha256/" + "A" * 42 + "B=",
        "sha256/" + "-" * 43 + "=",
        "SHA256/" + "A" * 43 + "=",
        "sha512/" + "A" * 43 + "=",
        "sha256/ " + "A" * 43 + "=",
    ],
)
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a pin is sha256/"):
        read_pin(text)


def test_the_digest_is_that_of_the_public_half_of_the_certificates_key(tmp_path: Path) -> None:
    pair = Authority(tmp_path).server()
    key = load_pem_private_key(pair.key.read_bytes(), password=None)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_digest(pair.der()) == hashlib.sha256(spki).digest()
