from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.certificates import (
    CERTIFICATE_BYTES,
    ClientAuthority,
    arrange,
    compile_san,
    read_fingerprint,
)
from gateway.pure.errors import Reason, Refused
from tests.credentials import NOW, SERVER_AUTH, Authority, signed_with_sha1

PARTNERS = Authority.make()
TRUSTED = ClientAuthority(PARTNERS.pem, NOW)
PARTNER = "spiffe://shop.example/partner"


def refused(der: bytes, authority: ClientAuthority = TRUSTED, now: float = NOW) -> bool:
    try:
        authority.vouch(der, now)
    except Refused as refusal:
        return refusal.reason is Reason.CERTIFICATE_INVALID
    return False


# --- names


@pytest.mark.parametrize(
    ("pattern", "allowed", "not_allowed"),
    [
        (PARTNER, [PARTNER], [f"{PARTNER}/x", f"{PARTNER}s", "spiffe://shop.example/Partner", "dns:partner"]),
        (
            "spiffe://shop.example/*",
            [PARTNER, "spiffe://shop.example/a"],
            ["spiffe://shop.example", "spiffe://shop.example/", "spiffe://shop.example/a/b", "spiffe://shopXexample/a"],
        ),
        (
            "spiffe://shop.example/ns/*/sa/pay",
            ["spiffe://shop.example/ns/eu/sa/pay"],
            ["spiffe://shop.example/ns/eu/x/sa/pay", "spiffe://shop.example/ns//sa/pay"],
        ),
        (
            "spiffe://shop.example/**",
            [PARTNER, "spiffe://shop.example/a/b/c"],
            ["spiffe://shop.example", "spiffe://evil.example/a", "spiffe://shop.example.evil/a"],
        ),
        ("dns:API.partner.example", ["dns:api.partner.example"], ["dns:x.api.partner.example", "api.partner.example"]),
        (
            "dns:*.partner.example",
            ["dns:api.partner.example"],
            ["dns:partner.example", "dns:a.b.partner.example", "dns:*.partner.example", "dns:.partner.example"],
        ),
        ("urn:partner:7", ["urn:partner:7"], ["urn:partner:77", "dns:urn"]),
    ],
)
def test_a_pattern_allows_names_as_a_whole(pattern: str, allowed: list[str], not_allowed: list[str]) -> None:
    compiled = compile_san(pattern)
    assert [name for name in allowed + not_allowed if compiled.fullmatch(name)] == allowed


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "**",
        "partner",
        "spiffe://*/partner",
        "spiffe://*.example/partner",
        "*://shop.example/a",
        "spiffe://shop.example/a*",
        "spiffe://shop.example/**/a",
        "spiffe://shop.example/***",
        "spiffe://shop example/a",
        "dns:",
        "dns:*",
        "dns:a.*.example",
        "dns:*x.example",
        "dns:a..b",
        "dns:-a.example",
    ],
)
def test_what_would_allow_more_than_it_says_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError):
        compile_san(pattern)


@given(st.text(st.sampled_from("ab*/.:-") | st.characters()))
def test_compiling_any_text_gives_a_pattern_or_a_value_error(text: str) -> None:
    try:
        compiled = compile_san(f"spiffe://a.example/{text}")
    except ValueError:
        return
    if "*" not in text:
        assert compiled.fullmatch(f"spiffe://a.example/{text}")
        assert not compiled.fullmatch(f"spiffe://a.example/{text}x")


def test_an_allowed_name_comes_first_and_the_others_follow() -> None:
    names = ("dns:a.example", PARTNER, "dns:b.example")
    assert arrange(names, [compile_san("spiffe://shop.example/*")]) == (PARTNER, "dns:a.example", "dns:b.example")
    assert arrange(names, [compile_san("spiffe://other.example/*")]) is None
    assert arrange(names, []) == names


def test_a_fingerprint_is_read_as_tools_print_it() -> None:
    digest = hashlib.sha256(b"a").digest()
    assert read_fingerprint(digest.hex()) == digest
    assert read_fingerprint(digest.hex(":").upper()) == digest


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 63, "a" * 40, "٠" * 64])
def test_what_is_not_a_sha256_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError):
        read_fingerprint(text)


# --- authorities


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"garbage",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        PARTNERS.pem[: len(PARTNERS.pem) // 2],
    ],
)
def test_an_authority_that_is_not_there_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="holds no certificate"):
        ClientAuthority(pem, NOW)


def test_a_certificate_that_cannot_issue_is_no_authority() -> None:
    leaf = x509.load_der_x509_certificate(PARTNERS.client(PARTNER))
    with pytest.raises(ValueError, match="not of a certificate authority"):
        ClientAuthority(PARTNERS.pem + leaf.public_bytes(Encoding.PEM), NOW)


def test_an_authority_that_has_expired_is_refused() -> None:
    with pytest.raises(ValueError, match="expired"):
        ClientAuthority(PARTNERS.pem, NOW + 3601)


# --- certificates


def test_a_good_certificate_gives_names_fingerprint_and_validity() -> None:
    der = PARTNERS.client(PARTNER, "API.partner.example", "192.0.2.1", begins=NOW - 7, ends=NOW + 9)
    found = TRUSTED.vouch(der, NOW)
    assert found.names == (PARTNER, "dns:api.partner.example")
    assert found.fingerprint == hashlib.sha256(der).digest()
    assert (found.not_before, found.not_after) == (NOW - 7, NOW + 9)


def test_validity_ends_with_the_first_certificate_of_the_chain() -> None:
    found = TRUSTED.vouch(PARTNERS.client(PARTNER, begins=NOW - 9000, ends=NOW + 9000), NOW)
    assert (found.not_before, found.not_after) == (NOW - 3600, NOW + 3600)


def test_time_is_judged_at_every_use() -> None:
    found = TRUSTED.vouch(PARTNERS.client(PARTNER, ends=NOW + 9), NOW)
    found.check_time(NOW + 9)
    for when in (NOW + 10, NOW - 3601):
        with pytest.raises(Refused):
            found.check_time(when)


def test_an_intermediate_of_the_bundle_may_issue() -> None:
    intermediate = PARTNERS.subordinate("intermediate")
    assert refused(intermediate.client(PARTNER))
    assert not refused(intermediate.client(PARTNER), ClientAuthority(PARTNERS.pem + intermediate.pem, NOW))


@pytest.mark.parametrize(
    "choices",
    [
        {"ends": NOW - 1},
        {"begins": NOW + 1},
        {"usages": [SERVER_AUTH]},
        {"usages": None},
        {"usages": [x509.OID_OCSP_SIGNING]},
        {"key_usage": {"digital_signature": False, "key_encipherment": True}},
        {"key_usage": {"crl_sign": True}},
        {"key_usage": {"key_cert_sign": True}},
        {"ca": True},
        {"key": ec.generate_private_key(ec.SECP192R1())},
        {"key": rsa.generate_private_key(65537, 1024)},
        {"key": ed448.Ed448PrivateKey.generate()},
        {"names": ()},
        {"names": ("192.0.2.1",)},
        {"names": (PARTNER, "spiffe://shop.example/other")},
        {"names": (PARTNER, "https://shop.example/")},
        {"names": ("spiffe://shop.example",)},
        {"names": ("spiffe://shop.example/",)},
        {"names": ("spiffe://shop.example//partner",)},
        {"names": ("spiffe://shop.example/../partner",)},
        {"names": ("spiffe://shop.example/partner?x",)},
        {"names": ("spiffe://shop.example/partner#x",)},
        {"names": ("spiffe://user@shop.example/partner",)},
        {"names": ("spiffe://shop.example:443/partner",)},
        {"names": ("SPIFFE://shop.example/partner",)},
        {"names": ("spiffe://SHOP.example/partner",)},
        {"names": ("spiffe://shop.example/" + "a" * 2048,)},
        {"names": ("https://shop.example/\r\nX-Role: admin",)},
    ],
)
def test_a_certificate_not_fit_to_say_who_calls_is_refused(choices: dict[str, Any]) -> None:
    assert refused(PARTNERS.client(**{"names": (PARTNER,), **choices}))


def test_a_certificate_of_another_authority_of_the_same_name_is_refused() -> None:
    assert refused(Authority.make().client(PARTNER))


def test_limits_of_an_authority_are_kept() -> None:
    flat = Authority.make(path_length=0)
    deep = flat.subordinate("deep")
    assert refused(deep.client(PARTNER), ClientAuthority(flat.pem, NOW))
    narrow = Authority.make(permitted=[x509.DNSName("good.example")])
    assert refused(narrow.client("api.bad.example"), ClientAuthority(narrow.pem, NOW))
    assert not refused(narrow.client("api.good.example"), ClientAuthority(narrow.pem, NOW))


def test_a_signature_over_sha1_is_refused() -> None:
    der = signed_with_sha1(PARTNERS.client(PARTNER), PARTNERS)
    algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    assert algorithm is not None
    assert algorithm.name == "sha1"
    assert refused(der)


def test_a_certificate_of_an_unknown_version_is_refused_by_callers_and_as_authority() -> None:
    version = bytes.fromhex("a003020102")
    der = PARTNERS.client(PARTNER).replace(version, bytes.fromhex("a003020101"), 1)
    assert refused(der)
    authority = PARTNERS.certificate.public_bytes(Encoding.DER).replace(version, bytes.fromhex("a003020101"), 1)
    pem = base64.encodebytes(authority)
    with pytest.raises(ValueError, match="malformed"):
        ClientAuthority(b"-----BEGIN CERTIFICATE-----\n" + pem + b"-----END CERTIFICATE-----\n", NOW)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("position", range(0, 400, 7))
def test_every_region_of_a_certificate_is_signed(position: int) -> None:
    der = bytearray(PARTNERS.client(PARTNER))
    der[position] ^= 0x80
    assert refused(bytes(der))


def test_a_flipped_bit_is_refused() -> None:
    der = bytearray(PARTNERS.client(PARTNER))
    der[-5] ^= 1
    assert refused(bytes(der))


def test_a_certificate_beyond_its_bound_is_refused() -> None:
    assert refused(PARTNERS.client(*(f"h{n}.{'a' * 60}.example" for n in range(CERTIFICATE_BYTES // 70))))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.binary())
def test_any_bytes_are_refused_and_nothing_else_is_raised(der: bytes) -> None:
    assert refused(der)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_certificate_is_refused_and_nothing_else_is_raised(position: int, damage: bytes) -> None:
    good = PARTNERS.client(PARTNER)
    der = good[:position] + damage + good[position + len(damage) :]
    assert der == good or refused(der)


def constrained(**subtrees: str) -> tuple[Authority, ClientAuthority]:
    """An authority that may issue only for some names, or for all but some."""
    made = Authority.make("constrained", **{kind: [x509.DNSName(name)] for kind, name in subtrees.items()})
    return made, ClientAuthority(made.pem, NOW)


@pytest.mark.parametrize("name", ["*.partner.example", "api.partner.example", "*.api.partner.example"])
def test_cve_2026_34073_69248_no_wildcard_gets_around_what_an_authority_may_not_issue_for(name: str) -> None:
    """`*.partner.example` is also the name that is excluded. Who calls has a name, and no pattern of names."""
    made, trusted = constrained(excluded="api.partner.example")
    assert refused(made.client(name), trusted)
    assert not refused(made.client("web.partner.example"), trusted)
    made, trusted = constrained(permitted="api.partner.example")
    assert refused(made.client(name), trusted) is (name != "api.partner.example")
    assert refused(PARTNERS.client("*.partner.example"))


def test_cve_2026_69249_authorities_that_vouch_for_one_another_are_not_followed_without_end() -> None:
    """Paths between them are many more than they are; a caller's certificate that none of them signed is refused."""
    crowd = [Authority.make("crowd") for _ in range(12)]
    links = [one.subordinate("crowd") for one in crowd for _ in range(3)]
    trusted = ClientAuthority(b"".join(each.pem for each in (*crowd, *links)), NOW)
    assert refused(Authority.make("crowd").client(PARTNER), trusted)
    assert not refused(crowd[0].client(PARTNER), trusted)
