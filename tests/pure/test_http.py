from __future__ import annotations

import pytest

from gateway.pure.http import caller_fields, has_no_body, request_head, response_head, response_headers

CLAIMS = [
    *("Host", "Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Upgrade"),
    *("Transfer-Encoding", "Content-Length", "Expect", "Forwarded", "X-Forwarded-For", "X-Forwarded-Client-Cert"),
    *("X-Gateway-Subject", "Pangate-Subject", "Client-Cert", "Client-Cert-Chain", "X-Real-IP", "X-Client-IP"),
    *("X-Request-Id", "traceparent", "tracestate", "True-Client-IP", "X-Original-URL", "X-Envoy-External-Address"),
    *("X-Original-Host", "X-Rewrite-URL", "Remote-User", "X-Remote-User", "X-User", "X-User-Id", "X-Auth-Request-User"),
    *(
        "X-Authenticated-Userid",
        "X-WebAuth-User",
        "X-Consumer-Username",
        "X-MS-Client-Principal-Name",
        "SSL-Client-Verify",
    ),
    *("X-SSL-Client-S-DN", "X-Goog-Authenticated-User-Email", "X-Amzn-Oidc-Identity", "Cf-Access-Jwt-Assertion"),
]


# --- what is sent on ----------------------------------------------------------------------------------------------


def test_target_and_fields_are_forwarded_byte_for_byte() -> None:
    target = "/v1/caf%C3%A9?a=%2F&card[number]=x"
    sent = request_head("POST", target, ((b"aCCept", b"a/b"), (b"X-Own", b"1,  2")), drop=frozenset(), add=())
    assert sent == b"POST " + target.encode() + b" HTTP/1.1\r\naCCept: a/b\r\nX-Own: 1,  2\r\n"


@pytest.mark.parametrize(
    "name",
    CLAIMS,
)
def test_a_client_frames_nothing_and_claims_no_identity(name: str) -> None:
    for spelling in (name, name.upper(), name.lower()):
        sent = request_head("GET", "/", ((spelling.encode(), b"admin"), (b"X-Own", b"1")), drop=frozenset(), add=())
        assert sent == b"GET / HTTP/1.1\r\nX-Own: 1\r\n"


def test_consumed_fields_are_dropped_and_ours_are_added_last() -> None:
    sent = request_head("GET", "/", ((b"Authorization", b"x"),), drop={b"authorization"}, add=(b"Pangate-Subject: me",))
    assert sent == b"GET / HTTP/1.1\r\nPangate-Subject: me\r\n"


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\nb", b"a\rb"])
def test_no_value_breaks_out_of_its_line(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", (), drop=frozenset(), add=(b"X: " + value,))
    with pytest.raises(ValueError, match="line break"):
        response_head(200, ((b"X", value),), length=0, close=False)


@pytest.mark.parametrize(
    ("san", "told"),
    [
        ("spiffe://shop.example/checkout", b"URI=spiffe://shop.example/checkout"),
        ("dns:api.partner.example", b"DNS=api.partner.example"),
        ("urn:a;Hash=b,c", b'URI="urn:a;Hash=b,c"'),
        ('urn:a"\\b', b'URI="urn:a\\"\\\\b"'),
    ],
)
def test_a_service_is_told_of_the_certificate_that_was_vouched_for_and_no_name_says_more(san: str, told: bytes) -> None:
    lines = caller_fields("default", "i|alice", "192.0.2.7", "api.example", "https", san, bytes(32))
    assert lines[-1] == b"X-Forwarded-Client-Cert: Hash=" + b"00" * 32 + b";" + told
    assert len(caller_fields("default", "i|alice", "192.0.2.7", "api.example", "https")) == len(lines) - 1


# --- what is answered ---------------------------------------------------------------------------------------------


def test_of_an_upstreams_answer_only_what_is_end_to_end_passes() -> None:
    passed = response_headers(
        [
            (b"Content-Type", b"a/b"),
            (b"Content-Length", b"5"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Connection", b"keep-alive, X-Hop"),
            (b"X-Hop", b"1"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Proxy-Authenticate", b"x"),
            (b"Server", b"shop/1.2"),
            (b"Pangate-Subject", b"admin"),
            (b"X-Request-Id", b"theirs"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ]
    )
    assert passed == [(b"Content-Type", b"a/b"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]


def test_an_answers_head_carries_the_framing_it_is_told() -> None:
    assert response_head(200, ((b"A", b"1"),), length=3, close=False) == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 3\r\n\r\n"
    )
    assert response_head(299, (), length=None, chunked=True, close=True) == (
        b"HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "status", "expected"), [("HEAD", 200, True), ("GET", 204, True), ("GET", 304, True), ("GET", 200, False)]
)
def test_some_answers_end_with_their_head(method: str, status: int, expected: bool) -> None:
    assert has_no_body(method, status) is expected
