"""Idempotency keys as they are written, requests as they are told apart, responses as they are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.replay import Kept, decode, encode, fingerprint, kept_headers, read_key, scope

SECRET = b"s" * 32
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)


@given(visible)
def test_a_key_is_the_same_bare_and_quoted(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key(quoted) == key
    if not key.startswith('"'):
        assert read_key(key) == key


@pytest.mark.parametrize(
    "value",
    [
        "",
        '""',
        "two words",
        '"two words"',
        "k" * 256,
        '"' + "k" * 256 + '"',
        "schlüssel",
        "tab\t",
        '"open',
        '"a"b"',
        '"a\\b"',
        '"a";p=1',
        "a, b",
    ],
)
def test_what_is_no_key_is_refused_without_quoting_it(value: str) -> None:
    with pytest.raises(Refused) as refused:
        read_key(value)
    assert refused.value.reason is Reason.IDEMPOTENCY_KEY_INVALID
    assert len(value) <= 2 or value not in refused.value.detail


def test_a_key_may_be_as_long_as_255_characters() -> None:
    assert read_key("k" * 255) == "k" * 255


requests = st.tuples(
    st.sampled_from(["POST", "PUT"]),
    st.sampled_from(["/a", "/ab"]),
    st.sampled_from(["", "x=1", "x=1&y=2", "x=12"]),
    st.sampled_from(["", "application/json"]),
    st.sampled_from([b"", b"2", b"&y=2", b"application/json"]),
)


@given(requests, requests)
def test_two_requests_have_one_fingerprint_only_if_they_are_the_same(
    one: tuple[str, str, str, str, bytes], other: tuple[str, str, str, str, bytes]
) -> None:
    assert (fingerprint(SECRET, *one) == fingerprint(SECRET, *other)) == (one == other)


def test_the_order_of_a_list_in_the_query_is_another_request() -> None:
    prints = {fingerprint(SECRET, "POST", "/", query, "", b"") for query in ("to[]=1&to[]=2", "to[]=2&to[]=1")}
    assert len(prints) == 2


def test_the_order_of_query_parameters_is_no_other_request() -> None:
    prints = {fingerprint(SECRET, "POST", "/", query, "", b"") for query in ("a=1&b=2", "b=2&a=1")}
    assert len(prints) == 1


def test_fingerprint_and_scope_cannot_be_computed_without_the_secret() -> None:
    other = b"t" * 32
    assert fingerprint(SECRET, "POST", "/", "", "", b"") != fingerprint(other, "POST", "/", "", "", b"")
    assert scope(SECRET, "p", "r", "k") != scope(other, "p", "r", "k")


@given(*[st.tuples(st.text("r|", max_size=2), st.sampled_from(["r", "rr"]), st.text("r|", max_size=2))] * 2)
def test_a_scope_belongs_to_one_principal_route_and_key(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (scope(SECRET, *one) == scope(SECRET, *other)) == (one == other)


headers = st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=9)), max_size=4).map(tuple)


@given(
    st.builds(Kept, st.integers(200, 499), headers, st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.text()))
)
def test_a_kept_response_comes_back_byte_for_byte(kept: Kept) -> None:
    assert decode(encode(kept)) == kept


def test_what_belongs_to_one_exchange_is_not_kept() -> None:
    kept = kept_headers(
        [
            (b"Content-Type", b"application/json"),
            (b"LOCATION", b"/v1/payments/1"),
            (b"Set-Cookie", b"session=1"),
            (b"WWW-Authenticate", b"Bearer"),
            (b"Authorization", b"Bearer x"),
            (b"Connection", b"close"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"2"),
            (b"Date", b"now"),
            (b"RateLimit", b'"a";r=1;t=1'),
        ]
    )
    assert kept == ((b"Content-Type", b"application/json"), (b"LOCATION", b"/v1/payments/1"))
