from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from gateway.pure.dpop import Asked, Policy, Proof, is_fresh, judge_proof, nonce_of, normal_uri
from gateway.pure.errors import Reason, Refused
from gateway.pure.jose import encode_base64url, thumbprint
from tests.credentials import NOW, URI, bound_token, jwk, key_thumbprint, proof, sign, spell

POLICY = Policy(frozenset({"ES256", "EdDSA", "PS256"}), 60.0, 10.0)
TOKEN = bound_token()
ASKED = Asked("POST", URI, TOKEN, key_thumbprint())


def judge(text: str, asked: Asked = ASKED, now: float = NOW) -> Proof:
    return judge_proof(text, asked, POLICY, now)


def refused(text: str, asked: Asked = ASKED, now: float = NOW) -> bool:
    try:
        judge(text, asked, now)
    except Refused as refusal:
        return refusal.reason is Reason.PROOF_INVALID
    return False


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
def test_a_good_proof_is_good(algorithm: str) -> None:
    token = bound_token(algorithm)
    asked = Asked("POST", URI, token, key_thumbprint(algorithm))
    assert judge(proof(token, algorithm), asked).nonce is None
    assert judge(proof(token, algorithm, nonce="n"), asked).nonce == "n"


# --- section 4.3, by number


@pytest.mark.parametrize("text", ["", "a.b.c", "not a proof", f"{proof(TOKEN)}, {proof(TOKEN)}", TOKEN])
def test_2_what_is_no_jwt_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize("claim", ["jti", "htm", "htu", "iat", "ath"])
@pytest.mark.parametrize("value", [None, "", 7.5, True, [], {}, ["a"]])
def test_3_each_claim_must_be_there_in_its_type(claim: str, value: Any) -> None:
    assert refused(proof(TOKEN, **{claim: value}))


@pytest.mark.parametrize("jti", ["", 7, "a" * 256, "caf\xe9", "a\0", "a\n"])
def test_3_an_id_is_short_text(jti: Any) -> None:
    assert refused(proof(TOKEN, jti=jti))
    assert judge(proof(TOKEN, jti="a" * 255))


@pytest.mark.parametrize("typ", [None, "jwt", "at+jwt", "dpop", "application/dpop+jwt", "dpop+jwt ", 1])
def test_4_the_type_is_that_of_a_proof(typ: Any) -> None:
    assert refused(proof(TOKEN, header={"typ": typ}))


def test_4_the_type_has_no_case() -> None:
    assert judge(proof(TOKEN, header={"typ": "DPoP+JWT"}))


@pytest.mark.parametrize("alg", [None, "none", "HS256", "RS256", "ES384", "ES256K", "", 1, ["ES256"]])
def test_5_the_algorithm_is_asymmetric_and_listed(alg: Any) -> None:
    assert refused(proof(TOKEN, header={"alg": alg}))


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "PS512"])
def test_5_an_algorithm_that_is_not_listed_is_refused_however_well_it_signs(algorithm: str) -> None:
    token = bound_token(algorithm)
    asked = Asked("POST", URI, token, key_thumbprint(algorithm))
    assert judge_proof(proof(token, algorithm), asked, dataclasses.replace(POLICY, algorithms={algorithm}), NOW)
    assert refused(proof(token, algorithm), asked)


def test_5_a_proof_signed_with_a_shared_secret_is_refused() -> None:
    head = {"typ": "dpop+jwt", "alg": "HS256", "jwk": {"kty": "oct", "k": spell(b"secret")}}
    unsigned = sign(head, {}).rpartition(".")[0]
    forged = f"{unsigned}.{encode_base64url(hmac.digest(b'secret', unsigned.encode(), 'sha256'))}"
    assert refused(forged)


def test_6_the_signature_is_of_the_key_in_the_header() -> None:
    assert refused(proof(TOKEN, which=1, header={"jwk": jwk("ES256", alg=None, use=None)}))
    assert refused(proof(TOKEN).rpartition(".")[0] + "." + encode_base64url(bytes(64)))


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth"])
def test_7_a_private_key_is_refused(member: str) -> None:
    assert refused(proof(TOKEN, header={"jwk": {**jwk("ES256", alg=None, use=None), member: spell(b"a")}}))


@pytest.mark.parametrize("method", ["GET", "post", "POST ", "", "PUT"])
def test_8_the_method_is_that_of_the_request(method: str) -> None:
    assert refused(proof(TOKEN, htm=method))


@pytest.mark.parametrize(
    "uri",
    [
        "http://api.example/v1/payments",
        "https://api.example/v1/payments/",
        "https://api.example/v1",
        "https://api.example/V1/payments",
        "https://other.example/v1/payments",
        "https://api.example.evil/v1/payments",
        "https://api.example:8443/v1/payments",
        "https://api.example@evil.example/v1/payments",
        "https://user@api.example/v1/payments",
        "//api.example/v1/payments",
        "/v1/payments",
        "api.example/v1/payments",
        "https:/api.example/v1/payments",
        "https://api.example/v1/payments;x",
        "https://api.example/v1%2Fpayments",
        "https://api.example/v1/payments\n",
        " https://api.example/v1/payments",
        "https://api.example\\v1/payments",
    ],
)
def test_9_the_uri_is_that_of_the_request(uri: str) -> None:
    assert refused(proof(TOKEN, htu=uri))


@pytest.mark.parametrize(
    "uri",
    [
        f"{URI}?amount=1",
        f"{URI}#here",
        f"{URI}?a=1#here",
        "HTTPS://API.example/v1/payments",
        "https://api.example:443/v1/payments",
        "https://api.example:/v1/payments",
        "https://api.example/v1/%70ayments",
        "https://api.example/v1/x/../payments",
        "https://api.example/./v1/payments",
    ],
)
def test_9_query_fragment_and_spelling_do_not_count(uri: str) -> None:
    assert judge(proof(TOKEN, htu=uri))


@pytest.mark.parametrize(("issued", "taken"), [(-59, True), (-60, False), (-61, False), (10, True), (11, False)])
def test_11_a_proof_is_young(issued: int, taken: bool) -> None:
    assert refused(proof(TOKEN, iat=NOW + issued)) is not taken


@pytest.mark.parametrize("claim", ["iat", "exp", "nbf"])
@pytest.mark.parametrize("value", [float(NOW), str(NOW), NOW + 0.5, True, [NOW]])
def test_11_a_time_is_a_whole_number(claim: str, value: Any) -> None:
    assert refused(proof(TOKEN, **{claim: value}))


def test_11_a_proof_is_held_to_what_it_says_of_its_time() -> None:
    assert judge(proof(TOKEN, exp=NOW + 1, nbf=NOW))
    assert refused(proof(TOKEN, exp=NOW - 10))
    assert refused(proof(TOKEN, nbf=NOW + 11))


def test_12_the_token_is_that_of_the_request() -> None:
    assert refused(proof(bound_token()))
    assert refused(proof(TOKEN, ath=hashlib.sha256(TOKEN.encode()).hexdigest()))
    padded = encode_base64url(hashlib.sha256(TOKEN.encode()).digest()) + "="
    assert refused(proof(TOKEN, ath=padded))


def test_12_the_key_is_the_one_that_the_token_is_bound_to() -> None:
    assert refused(proof(TOKEN, which=1))
    assert refused(proof(TOKEN), dataclasses.replace(ASKED, thumbprint=key_thumbprint(which=1)))


# --- keys and headers


@pytest.mark.parametrize("member", ["kid", "x5c", "jku", "x5u", "crit", "zip", "b64", "nonce", "cty"])
def test_a_header_has_no_other_members(member: str) -> None:
    assert refused(proof(TOKEN, header={member: ["exp"]}))


@pytest.mark.parametrize(
    "key",
    [
        None,
        "key",
        [],
        {},
        {"kty": "EC"},
        {"kty": "oct", "k": "c2VjcmV0"},
        jwk("ES256", use="enc"),
        jwk("ES256", key_ops=["sign"]),
        jwk("ES256", alg="ES384"),
        jwk("ES256", y=spell(b"\1" * 32)),
        jwk("EdDSA"),
        jwk("PS256"),
        RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True),
    ],
)
def test_a_key_that_is_not_fit_for_the_proof_is_refused(key: Any) -> None:
    assert refused(proof(TOKEN, header={"jwk": key}))


def test_a_key_may_be_written_as_browsers_write_it() -> None:
    exported = {**jwk("ES256", alg=None, use=None), "ext": True, "key_ops": ["verify"]}
    assert judge(proof(TOKEN, header={"jwk": exported}))


def test_a_short_rsa_key_is_refused_even_if_the_token_is_bound_to_it() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    public = RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True)
    assert refused(
        proof(TOKEN, "PS256", header={"jwk": public}), dataclasses.replace(ASKED, thumbprint=thumbprint(public))
    )


def test_a_thumbprint_is_that_of_the_standard() -> None:
    """RFC 7638 section 3.1; the members that say nothing of the key do not count."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    key = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_padding_gives_a_used_proof_no_second_spelling() -> None:
    head, said, signed = proof(TOKEN).split(".")
    for text in (f"{head}=.{said}.{signed}", f"{head}.{said}=.{signed}", f"{head}.{said}.{signed}=="):
        assert refused(text)


def test_a_proof_used_before_has_the_same_id_whatever_else_it_says() -> None:
    first = judge(proof(TOKEN)).id
    assert judge(proof(TOKEN, iat=NOW - 1)).id == first
    other = dataclasses.replace(ASKED, method="GET", uri="https://api.example/v2")
    assert judge(proof(TOKEN, htm="GET", htu=other.uri), other).id == first
    assert judge(proof(TOKEN, jti="proof-2")).id != first
    token = bound_token(which=1)
    assert judge(proof(token, which=1), Asked("POST", URI, token, key_thumbprint(which=1))).id != first


# --- anything


@given(st.text() | st.binary().map(lambda raw: ".".join([encode_base64url(raw)] * 3)))
def test_reading_any_text_raises_nothing_but_a_refusal(text: str) -> None:
    assert refused(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "jwk", "kid"]), values),
    st.dictionaries(st.sampled_from(["jti", "htm", "htu", "iat", "exp", "nbf", "ath", "nonce"]), values),
)
def test_judging_anything_signed_raises_nothing_but_a_refusal(header: dict[str, Any], said: dict[str, Any]) -> None:
    good = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk("ES256", alg=None, use=None)}
    claims = {"jti": "a", "htm": "POST", "htu": URI, "iat": NOW, "ath": json.loads("null")}
    assert refused(sign({**good, **header}, {**claims, **said}))


uris = st.from_regex(
    r"(?i)https?://[a-z][a-z0-9.-]{0,8}(:[0-9]{1,5})?(/([a-z0-9._~-]|%[0-9a-f]{2}){0,9}){0,4}", fullmatch=True
)


@given(uris)
def test_a_normal_uri_stays_as_it_is(uri: str) -> None:
    normal = normal_uri(uri)
    assert normal is not None
    assert normal_uri(normal) == normal
    assert "/../" not in normal
    assert "/./" not in normal


@given(st.text())
def test_normalising_any_text_gives_a_uri_or_none(text: str) -> None:
    normal_uri(text)
    assert normal_uri(f"https://a.example/\n{text}") is None


def test_a_path_above_the_root_is_the_root() -> None:
    assert normal_uri("https://a.example/../../b/./c/..") == "https://a.example/b/"
    assert normal_uri("https://a.example") == "https://a.example/"
    assert normal_uri("https://[2001:DB8::1]:0443/%7Ea%2f") == "https://[2001:db8::1]/~a%2F"


@pytest.mark.parametrize("path", ["%", "%zz", "%2", "%%32e", "a%"])
def test_an_escape_that_is_none_makes_no_uri(path: str) -> None:
    assert normal_uri(f"https://a.example/{path}") is None


# --- nonces

KEY = bytes(32)


def test_a_nonce_is_fresh_in_its_slot_and_in_the_next() -> None:
    nonce = nonce_of(KEY, 7)
    assert [slot for slot in range(1, 12) if is_fresh(nonce, KEY, slot)] == [7, 8]
    assert not is_fresh(nonce, b"\1" * 32, 7)


@given(st.text())
def test_no_text_of_somebody_else_is_a_nonce(text: str) -> None:
    assert not is_fresh(text, KEY, 7)
