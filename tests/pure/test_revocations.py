from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import Expected, Profile, judge_claims
from gateway.pure.jose import Jws, SignedToken
from gateway.pure.revocations import Revocations, read_revocations
from tests.credentials import ISSUER, NOW, claims

EXPECTED = Expected(Profile.JWT, ISSUER, frozenset({"payments"}), 10.0, 86_400.0)


def revoked(listed: Revocations, kid: str | None = None, **changes: Any) -> bool:
    token = judge_claims(SignedToken(Jws("ES256", {}, b"", b"", b""), kid, "jwt", claims(**changes)), EXPECTED)
    try:
        listed.check(token)
    except Refused as refused:
        return refused.reason is Reason.TOKEN_REVOKED
    return False


def test_a_listed_token_is_revoked_and_its_siblings_are_not() -> None:
    listed = read_revocations(b'{"jti": ["token-1", "token-3"]}')
    assert revoked(listed)
    assert not revoked(listed, jti="token-2")
    assert not revoked(listed, jti=None)


def test_a_subjects_tokens_are_revoked_up_to_a_second() -> None:
    listed = read_revocations(json.dumps({"sub": {"partner-1": NOW}}).encode())
    assert revoked(listed, iat=NOW)
    assert not revoked(listed, iat=NOW + 1)
    assert not revoked(listed, sub="partner-2")


def test_all_tokens_of_a_key_are_revoked_and_those_of_no_other() -> None:
    listed = read_revocations(b'{"kid": ["leaked"]}')
    assert revoked(listed, "leaked")
    assert not revoked(listed, "other")
    assert not revoked(listed, None)


def test_an_empty_list_revokes_nothing() -> None:
    assert not revoked(read_revocations(b"{}"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'{"jti": "token-1"}',
        b'{"jti": [1]}',
        b'{"jti": ["a"], "jti": []}',
        b'{"kid": "a"}',
        b'{"kid": [null]}',
        b'{"sub": ["partner-1"]}',
        b'{"sub": {"partner-1": true}}',
        b'{"sub": {"partner-1": "now"}}',
        b'{"sub": {"partner-1": 1.5}}',
        b'{"sub": {"partner-1": -1}}',
        b'{"sub": {"a": 2, "a": 1}}',
        b'{"tokens": []}',
        b'{"jti": ["a"',
        b"[" * 100_000,
        '{"jti": ["a"]}'.encode("utf-16"),
        b'{"jti": ["\xff"]}',
    ],
)
def test_a_list_that_is_not_understood_is_refused_and_not_taken_for_an_empty_one(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_revocations(raw)


values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
members = st.sampled_from(["jti", "sub", "kid", "alg"])


@given(st.dictionaries(members, values | st.lists(values) | st.dictionaries(st.text(max_size=3), values)))
def test_whatever_is_read_is_a_list_that_can_be_asked(value: dict[str, Any]) -> None:
    try:
        listed = read_revocations(json.dumps(value).encode())
    except ValueError:
        return
    assert revoked(listed, jti="a") == ("a" in value.get("jti", []))


def test_a_list_does_not_show_whom_it_names() -> None:
    assert "token-1" not in repr(read_revocations(b'{"jti": ["token-1"], "sub": {"token-1": 1}}'))
