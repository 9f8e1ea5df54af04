from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.certificates import ClientAuthority
from gateway.pure.crls import RevokedCertificates, read_crls
from gateway.pure.errors import Reason, Refused
from tests.credentials import NOW, Authority, crl_with_sha1, crl_without_end, serial_of

PARTNERS = Authority.make()
TRUSTED = ClientAuthority(PARTNERS.pem, NOW)
PARTNER = "spiffe://shop.example/partner"
REVOKED, HONEST = PARTNERS.client(PARTNER), PARTNERS.client(PARTNER)


def listing(*certificates: bytes, by: Authority = PARTNERS, **choices: Any) -> bytes:
    return by.crl(*map(serial_of, certificates), **choices)


def read(raw: bytes, trusted: ClientAuthority = TRUSTED) -> RevokedCertificates:
    return read_crls(raw, trusted.certificates, NOW)


def refusal(
    listed: RevokedCertificates, der: bytes, trusted: ClientAuthority = TRUSTED, now: float = NOW
) -> Reason | None:
    try:
        listed.check(trusted.vouch(der, NOW), now)
    except Refused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_listed_certificate_is_revoked_and_its_siblings_are_not(encoding: Encoding) -> None:
    listed = read(listing(REVOKED, encoding=encoding))
    assert refusal(listed, REVOKED) is Reason.CERTIFICATE_REVOKED
    assert refusal(listed, HONEST) is None


def test_an_empty_list_revokes_nothing() -> None:
    assert refusal(read(listing()), HONEST) is None


def test_after_its_next_update_a_list_says_nothing_about_those_it_did_not_name() -> None:
    listed = read(listing(REVOKED, ends=NOW + 9))
    assert refusal(listed, HONEST, now=NOW + 8) is None
    assert refusal(listed, HONEST, now=NOW + 9) is Reason.REVOCATIONS_UNAVAILABLE
    assert refusal(listed, REVOKED, now=NOW + 9) is Reason.CERTIFICATE_REVOKED


def test_a_certificate_whose_issuer_gave_no_list_is_not_known_to_be_good() -> None:
    other = Authority.make("others")
    both = ClientAuthority(PARTNERS.pem + other.pem, NOW)
    listed = read(listing(), both)
    assert refusal(listed, HONEST, both) is None
    assert refusal(listed, other.client(PARTNER), both) is Reason.REVOCATIONS_UNAVAILABLE


def test_the_lists_of_several_authorities_stand_in_one_file_and_serials_are_of_their_issuer() -> None:
    other = Authority.make("others")
    both = ClientAuthority(PARTNERS.pem + other.pem, NOW)
    listed = read(listing(REVOKED) + b"\n" + other.crl(), both)
    twin = other.client(PARTNER, serial=serial_of(REVOKED))
    assert refusal(listed, REVOKED, both) is Reason.CERTIFICATE_REVOKED
    assert refusal(listed, twin, both) is None


def test_authorities_of_one_name_are_told_apart_by_their_keys() -> None:
    renewed = Authority.make()
    both = ClientAuthority(PARTNERS.pem + renewed.pem, NOW)
    listed = read(listing(REVOKED) + renewed.crl(), both)
    assert refusal(listed, REVOKED, both) is Reason.CERTIFICATE_REVOKED
    assert refusal(listed, renewed.client(PARTNER, serial=serial_of(REVOKED)), both) is None


def test_a_revoked_authority_takes_those_it_issued_with_it() -> None:
    lower = PARTNERS.subordinate("lower")
    both = ClientAuthority(PARTNERS.pem + lower.pem, NOW)
    certificate = lower.client(PARTNER)
    assert refusal(read(listing() + lower.crl(), both), certificate, both) is None
    gone = read(PARTNERS.crl(lower.certificate.serial_number) + lower.crl(), both)
    assert refusal(gone, certificate, both) is Reason.CERTIFICATE_REVOKED


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "no certificate revocation list"),
        (b"garbage", "no certificate revocation list"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "malformed"),
        (listing()[:-60], "malformed"),
        (PARTNERS.pem, "no certificate revocation list"),
        (listing(by=Authority.make("others")), "no authority of ca signed"),
        (listing(by=Authority.make()), "no authority of ca signed"),
        (listing(ends=NOW), "not of now"),
        (listing(begins=NOW + 1), "not of now"),
        (listing(partial=True), "complete one"),
        (crl_without_end(listing(encoding=Encoding.DER), PARTNERS), "when the next one comes"),
        (crl_with_sha1(listing(encoding=Encoding.DER), PARTNERS), "no authority of ca signed"),
        (listing() + listing(by=Authority.make("others")), "no authority of ca signed"),
    ],
)
def test_a_file_that_is_not_sound_is_refused_with_a_sentence(raw: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(raw)


def test_an_authority_that_may_not_sign_lists_signs_none() -> None:
    mute = Authority.make(signs_lists=False)
    with pytest.raises(ValueError, match="no authority of ca signed"):
        read(mute.crl(), ClientAuthority(mute.pem, NOW))


@given(st.binary())
def test_reading_any_bytes_raises_nothing_but_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read(raw)
