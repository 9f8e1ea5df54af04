from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.server.tls import not_after, read_certificates, server_context
from tests.certificates import Authority, Pair, private_pem


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.server()


def test_a_context_offers_nothing_old_and_resumes_nothing(authority: Authority, pair: Pair) -> None:
    context = server_context(pair.certificate, pair.key)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    wanted = ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    assert context.options & wanted == wanted
    assert all(suite["aead"] for suite in context.get_ciphers())


@pytest.mark.parametrize(
    ("asked", "mode"), [("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)]
)
def test_client_certificates_are_asked_for_as_configured(
    authority: Authority, pair: Pair, asked: str, mode: ssl.VerifyMode
) -> None:
    assert server_context(pair.certificate, pair.key, authority.file, asked).verify_mode is mode  # type: ignore[arg-type]


def test_where_certificates_are_asked_for_no_two_connections_share_a_context_of_tls_1_2(
    authority: Authority, pair: Pair
) -> None:
    context = server_context(pair.certificate, pair.key, authority.file, "optional")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_certificate_and_key_are_read_once(authority: Authority, tmp_path: Path) -> None:
    """Also for the contexts of single connections: a half replaced pair on the disk is never served."""
    pair = Authority(tmp_path).server()
    context = server_context(pair.certificate, pair.key, authority.file, "optional")
    pair.certificate.unlink()
    pair.key.unlink()
    dialing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialing.check_hostname, dialing.verify_mode = False, ssl.CERT_NONE
    dialing.maximum_version = ssl.TLSVersion.TLSv1_2
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = dialing.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.version() == server.version() == "TLSv1.2"


def test_asking_for_certificates_needs_an_authority(pair: Pair) -> None:
    with pytest.raises(ValueError, match="client_ca"):
        server_context(pair.certificate, pair.key, None, "required")


def complaint(certificate: Path, key: Path, ca: Path | None = None) -> str:
    with pytest.raises(ValueError, match=r".+") as raised:
        server_context(certificate, key, ca, "none")
    return str(raised.value)


def test_every_complaint_names_its_file(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    missing, junk, locked = tmp_path / "missing.pem", tmp_path / "junk.pem", tmp_path / "locked.key"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"passphrase"))
    other = authority.server("other")
    expired = authority.server("expired", starts=3, lives=timedelta(days=-1))
    assert complaint(missing, pair.key) == f"{missing}: No such file or directory"
    assert complaint(junk, pair.key) == f"{junk}: holds no PEM certificate that can be read"
    assert complaint(pair.certificate, missing) == f"{missing}: No such file or directory"
    assert complaint(pair.certificate, junk) == f"{junk}: holds no unencrypted PEM private key that can be read"
    assert complaint(pair.certificate, locked) == f"{locked}: is encrypted; give the key without a passphrase"
    assert complaint(pair.certificate, other.key) == f"{other.key}: is not the key of {pair.certificate}"
    assert complaint(expired.certificate, expired.key) == f"{expired.certificate}: the certificate has expired"
    assert complaint(pair.certificate, pair.key, junk) == f"{junk}: holds no PEM certificate that can be read"


def test_the_expiry_is_that_of_the_leaf(pair: Pair) -> None:
    assert not_after(pair.certificate) == read_certificates(pair.certificate)[0].not_valid_after_utc.timestamp()
