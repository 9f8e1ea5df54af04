from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import AccessToken, Expected, Profile, Scheme, credentials, judge_claims
from gateway.pure.jose import Jws, SignedToken, encode_base64url, read_token
from tests.credentials import ISSUER, NOW, claims, sign, token

RFC9068 = Expected(Profile.RFC9068, ISSUER, frozenset({"payments", "payments-eu"}), 10.0, 86_400.0)
JWT = Expected(Profile.JWT, ISSUER, frozenset({"payments"}), 10.0, 86_400.0)
JWS = Jws("ES256", {}, b"", b"", b"")
CERTIFICATE = b"DER of a certificate"
THUMBPRINT = encode_base64url(hashlib.sha256(CERTIFICATE).digest())


def judge(expected: Expected = RFC9068, typ: str | None = "at+jwt", **changes: Any) -> AccessToken:
    return judge_claims(SignedToken(JWS, "a", typ, claims(**changes)), expected)


def refusal(*arguments: Any, **changes: Any) -> Reason | None:
    try:
        judge(*arguments, **changes)
    except Refused as refused:
        return refused.reason
    return None


# --- what a token says


def test_a_good_token_gives_its_claims_scopes_and_times() -> None:
    found = judge()
    assert found.claims == claims()
    assert found.scopes == {"payments:read", "payments:write"}
    assert (found.valid_from, found.valid_until) == (NOW - 60 - 10, NOW + 300 + 10)
    assert found.issued == NOW - 60
    assert (found.certificate, found.key) == (None, None)


def test_nobody_can_change_the_claims_of_a_token_for_those_who_come_after() -> None:
    with pytest.raises(TypeError):
        judge().claims["sub"] = "somebody else"  # type: ignore[index]


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_rfc9068_takes_access_tokens(typ: str) -> None:
    assert refusal(RFC9068, typ) is None


@pytest.mark.parametrize(
    "typ", [None, "", "JWT", "at+jwt ", "AT+JWT\n", "id_token", "dpop+jwt", "logout+jwt", "application/jwt", "at-jwt"]
)
def test_rfc9068_takes_no_other_type(typ: str | None) -> None:
    assert refusal(RFC9068, typ) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(("typ", "taken"), [(None, True), ("JWT", True), ("jwt", True), ("at+jwt", False), ("", False)])
def test_profile_jwt_takes_typ_jwt_or_none(typ: str | None, taken: bool) -> None:
    assert (refusal(JWT, typ) is None) == taken


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "iat", "sub", "client_id", "jti"])
@pytest.mark.parametrize("value", [None, [], {}, True, "", 1.5, ["a", 1]])
def test_rfc9068_needs_each_claim_in_its_type(name: str, value: Any) -> None:
    assert refusal(**{name: value}) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "client_id", "jti"])
def test_an_identifier_is_no_number(name: str) -> None:
    assert refusal(**{name: 1}) is Reason.TOKEN_INVALID


def test_profile_jwt_needs_no_client_id_and_no_jti_but_refuses_malformed_ones() -> None:
    assert refusal(JWT, None, client_id=None, jti=None) is None
    assert refusal(JWT, None, jti=[1]) is Reason.TOKEN_INVALID
    assert refusal(JWT, None, client_id="") is Reason.TOKEN_INVALID
    assert refusal(JWT, None, sub=None) is Reason.TOKEN_INVALID
    assert refusal(JWT, None, iat=None) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("name", ["sub", "client_id", "jti"])
@pytest.mark.parametrize("value", ["a\r\nX-Role: admin", "a\0", "\x7f", "caf\xe9", "a" * 256, "\u202e"])
def test_an_identifier_that_could_break_out_of_a_header_or_a_log_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["1800000100", True, NOW + 0.5, float(NOW), [NOW], {}, -1])
def test_a_time_is_a_whole_number(name: str, value: Any) -> None:
    assert refusal(**{name: value}) is Reason.TOKEN_INVALID


def test_a_claim_of_null_is_not_a_claim_left_out() -> None:
    for name in ("nbf", "cnf", "azp", "scope"):
        signed = read_token(sign({"alg": "ES256", "typ": "at+jwt"}, {**claims(), name: None}))
        with pytest.raises(Refused):
            judge_claims(signed, RFC9068)


@pytest.mark.parametrize("issuer", ["https://other.example", f"{ISSUER}/", ISSUER.upper(), f" {ISSUER}", [ISSUER]])
def test_the_issuer_is_exact(issuer: Any) -> None:
    assert refusal(iss=issuer) is Reason.TOKEN_INVALID


@pytest.mark.parametrize("audience", ["payments", ["payments"], ["payments", "payments-eu"]])
def test_the_audience_is_one_of_ours(audience: Any) -> None:
    assert refusal(aud=audience) is None


@pytest.mark.parametrize(
    "audience", ["other", "payment", "payments2", "Payments", ["payments", "other"], [["payments"]], {"payments": 1}]
)
def test_an_audience_that_is_not_ours_alone_is_refused(audience: Any) -> None:
    assert refusal(aud=audience) is Reason.TOKEN_INVALID


def test_a_token_may_not_live_longer_than_the_cap() -> None:
    assert refusal(iat=NOW, exp=NOW + 86_400) is None
    assert refusal(iat=NOW, exp=NOW + 86_401) is Reason.TOKEN_INVALID


def test_azp_names_the_client() -> None:
    assert refusal(azp="client-1") is None
    assert refusal(azp="client-2") is Reason.TOKEN_INVALID
    assert refusal(JWT, None, client_id=None, azp="client-2") is None


@pytest.mark.parametrize("scope", [["payments:write"], 7, "a  b", " a", "a ", 'a"b', "a\\b", "a\tb", {}])
def test_rfc9068_takes_scopes_as_words_alone(scope: Any) -> None:
    assert refusal(scope=scope) is Reason.TOKEN_INVALID


def test_a_token_without_scopes_has_none() -> None:
    assert judge(scope=None).scopes == judge(scope="").scopes == frozenset()


def test_profile_jwt_takes_scopes_in_the_spellings_of_issuers() -> None:
    assert judge(JWT, None, scope="a b").scopes == {"a", "b"}
    assert judge(JWT, None, scope=["a", "b"]).scopes == {"a", "b"}
    assert judge(JWT, None, scope=None, scp="a b").scopes == {"a", "b"}
    assert judge(JWT, None, scope=None, scp=["a", "b"]).scopes == {"a", "b"}
    assert refusal(JWT, None, scope=["a", 1]) is Reason.TOKEN_INVALID


def test_where_scope_is_given_scp_adds_nothing() -> None:
    assert judge(JWT, None, scope="a", scp=["b"]).scopes == {"a"}
    assert judge(scp=["b"]).scopes == {"payments:read", "payments:write"}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["iss", "aud", "sub", "client_id", "jti", "iat", "nbf", "exp", "scope", "scp", "cnf", "azp"])


@given(st.dictionaries(names, values), st.sampled_from([RFC9068, JWT]))
def test_judging_any_claims_raises_nothing_but_a_refusal(changes: dict[str, Any], expected: Expected) -> None:
    signed = SignedToken(JWS, None, "at+jwt" if expected is RFC9068 else None, {**claims(), **changes})
    try:
        found = judge_claims(signed, expected)
    except Refused:
        return
    assert found.claims["iss"] == ISSUER
    assert found.valid_until - found.valid_from <= 86_400 + 20


# --- what is asked at every use


def at(when: float, **changes: Any) -> Reason | None:
    try:
        judge(**changes).check_time(when)
    except Refused as refused:
        return refused.reason
    return None


def test_a_token_is_good_until_it_expires_give_or_take_the_leeway() -> None:
    assert at(NOW + 309.9) is None
    assert at(NOW + 310) is Reason.TOKEN_EXPIRED


def test_a_token_issued_a_little_in_the_future_is_good_and_one_far_in_the_future_is_not() -> None:
    assert at(NOW, iat=NOW + 10) is None
    assert at(NOW, iat=NOW + 11) is Reason.TOKEN_INVALID
    assert at(NOW, iat=NOW + 61) is Reason.TOKEN_INVALID
    assert at(NOW, nbf=NOW + 10) is None
    assert at(NOW, nbf=NOW + 11) is Reason.TOKEN_INVALID
    assert at(NOW + 1, nbf=NOW + 11) is None


def bound(cnf: Any, certificate: bytes | None, *, required: bool = False) -> bool:
    try:
        judge(cnf=cnf).check_certificate(certificate, required=required)
    except Refused as refused:
        return refused.reason is not Reason.TOKEN_INVALID
    return True


def test_a_bound_token_passes_with_its_certificate_alone() -> None:
    for required in (False, True):
        assert bound({"x5t#S256": THUMBPRINT}, CERTIFICATE, required=required)
        assert not bound({"x5t#S256": THUMBPRINT}, b"DER of another", required=required)
        assert not bound({"x5t#S256": THUMBPRINT}, None, required=required)


def test_where_binding_is_required_a_bearer_token_is_refused() -> None:
    assert bound(None, CERTIFICATE)
    assert not bound(None, CERTIFICATE, required=True)


@pytest.mark.parametrize(
    "confirmation",
    [
        {},
        [],
        "x",
        {"jkt": "a"},
        {"jkt": None},
        {"kid": "a"},
        {"x5t#S256": THUMBPRINT, "jkt": "a"},
        {"x5t#S256": THUMBPRINT, "kid": "a"},
        {"x5t#S256": [THUMBPRINT]},
        {"x5t#S256": ""},
        {"x5t#S256": THUMBPRINT + "="},
        {"x5t#S256": hashlib.sha256(CERTIFICATE).hexdigest()},
        {"x5t#S256": "\xe9" * 43},
        {"x5t": THUMBPRINT},
    ],
)
def test_any_other_confirmation_is_refused(confirmation: Any) -> None:
    assert not bound(confirmation, CERTIFICATE)
    assert not bound(confirmation, None)


JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    ("confirmation", "scheme", "taken"),
    [
        (None, Scheme.BEARER, True),
        ({"x5t#S256": THUMBPRINT}, Scheme.BEARER, True),
        ({"jkt": JKT}, Scheme.DPOP, True),
        ({"jkt": JKT, "x5t#S256": THUMBPRINT}, Scheme.DPOP, True),
        ({"jkt": JKT}, Scheme.BEARER, False),
        ({"jkt": JKT, "x5t#S256": THUMBPRINT}, Scheme.BEARER, False),
        (None, Scheme.DPOP, False),
        ({"x5t#S256": THUMBPRINT}, Scheme.DPOP, False),
    ],
)
def test_a_token_bound_to_a_key_is_no_bearers_and_no_other_comes_by_dpop(
    confirmation: Any, scheme: Scheme, taken: bool
) -> None:
    found = judge(cnf=confirmation)
    with nullcontext() if taken else pytest.raises(Refused, match="token_invalid"):
        found.check_scheme(scheme)


def test_a_token_bound_twice_needs_its_certificate_too() -> None:
    both = {"jkt": JKT, "x5t#S256": THUMBPRINT}
    assert bound(both, CERTIFICATE)
    assert not bound(both, None)


@pytest.mark.parametrize("value", [None, "", 7, ["a"], {"a": 1}, True])
def test_a_claim_that_a_route_requires_is_text(value: Any) -> None:
    expected = replace(RFC9068, required=frozenset({"account"}))
    assert refusal(expected, account="acct-1") is None
    assert refusal(expected, account=value) is Reason.TOKEN_INVALID
    signed = SignedToken(JWS, "a", "at+jwt", {**claims(), "account": value})
    with pytest.raises(Refused, match="account"):
        judge_claims(signed, expected)


def test_all_needed_scopes_must_be_there() -> None:
    found = judge(scope="a b")
    found.check_scopes(frozenset())
    found.check_scopes({"a", "b"})
    with pytest.raises(Refused) as caught:
        found.check_scopes({"a", "c"})
    assert caught.value.reason is Reason.SCOPE_INSUFFICIENT


# --- where a token stands in a request


def reason_of(authorization: str | None = None, query: str = "") -> Reason | None:
    try:
        credentials(authorization, query)
    except Refused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    ("scheme", "read"),
    [
        ("Bearer", Scheme.BEARER),
        ("bearer", Scheme.BEARER),
        ("BEARER", Scheme.BEARER),
        ("DPoP", Scheme.DPOP),
        ("dpop", Scheme.DPOP),
    ],
)
def test_the_scheme_has_no_case(scheme: str, read: Scheme) -> None:
    assert credentials(f"{scheme} a.b-c_d", "") == (read, "a.b-c_d")


@pytest.mark.parametrize("authorization", [None, "Basic dXNlcjpwYXNz", "", "a.b.c"])
def test_without_credentials_a_token_is_asked_for(authorization: str | None) -> None:
    assert reason_of(authorization) is Reason.TOKEN_REQUIRED


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Bearer  a",
        "Bearer\ta",
        "Bearer a ",
        "Bearer a b",
        "Bearer a, Bearer b",
        "Bearer a,b",
        "Bearer Bearer a",
        "Bearer a\n",
        "Bearer caf\xe9",
        "Bearer \u212aey\u017f",
        "Bearera",
        "DPoP",
        "DPoP a DPoP b",
        "DPoP Bearer a",
        "Bearer a, DPoP a",
    ],
)
def test_malformed_credentials_are_refused(authorization: str) -> None:
    assert reason_of(authorization) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "query", ["access_token=a", "x=1&access_token=a", "access_token", "%61ccess_token=a", "x;access_token=a"]
)
def test_a_token_in_the_query_is_refused_even_beside_a_good_one(query: str) -> None:
    assert reason_of("Bearer a", query=query) is Reason.TOKEN_MISPLACED
    assert reason_of(query=query) is Reason.TOKEN_MISPLACED


def test_other_parameters_of_the_query_are_let_be() -> None:
    assert reason_of("Bearer a", query="token=1&x_access_token=2&q=access_token") is None


@given(st.none() | st.text(), st.text())
def test_looking_for_a_token_raises_nothing_but_a_refusal(authorization: str | None, query: str) -> None:
    found = reason_of(authorization, query)
    assert found in {None, Reason.TOKEN_REQUIRED, Reason.TOKEN_INVALID, Reason.TOKEN_MISPLACED}


def test_no_refusal_quotes_what_the_token_says() -> None:
    with pytest.raises(Refused) as caught:
        judge_claims(read_token(token(sub="canary\r\n")), RFC9068)
    assert "canary" not in str(caught.value)
