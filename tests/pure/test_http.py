from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.http import (
    Head,
    Header,
    HeadLimits,
    admit,
    has_no_body,
    request_head,
    response_head,
    response_headers,
)

HOST: Header = (b"Host", b"api.example")
CLAIMS = [
    *("Host", "Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Upgrade"),
    *("Transfer-Encoding", "Content-Length", "Expect", "Forwarded", "X-Forwarded-For", "X-Forwarded-Client-Cert"),
    *("X-Gateway-Subject", "Pangate-Subject", "Client-Cert", "Client-Cert-Chain", "X-Real-IP", "X-Client-IP"),
    *("X-Request-Id", "traceparent", "tracestate", "True-Client-IP", "X-Original-URL", "X-Envoy-External-Address"),
]


def head(*fields: Header, method: str = "GET", target: str = "/v1/payments", version: tuple[int, int] = (1, 1)) -> Head:
    return admit(method, target, version, (HOST, *fields))


def refusal(*fields: Header, **line: object) -> Reason:
    with pytest.raises(Refused) as refused:
        head(*fields, **line)  # type: ignore[arg-type]
    return refused.value.reason


# --- what is let in -----------------------------------------------------------------------------------------------


def test_a_plain_request_is_let_in() -> None:
    admitted = admit("GET", "/v1/payments?limit=10", (1, 1), ((b"host", b"API.example:8443"), (b"Accept", b"*/*")))
    assert admitted == Head("/v1/payments", "limit=10", "api.example:8443", "api.example", 0, False, False)
    assert not admitted.has_body


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1/payments/",
        "/v1/payments/pay_123",
        "/.well-known/jwks.json",
        "/a/..b/c",
        "/caf%C3%A9",
        "/a%20b/x@y:z,(1)",
        "/v1/charges?expand[]=a&expand[]=b&metadata[k]=v%20w",
        "/v1?cursor=abc%3D&empty=&flag",
        "/v1?expand%5B%5D=a&expand%5B%5D=b",
    ],
)
def test_a_canonical_target_is_let_in(target: str) -> None:
    path, _, query = target.partition("?")
    admitted = head(target=target)
    assert (admitted.path, admitted.query) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "http://api.example/v1",
        "v1/payments",
        "?a=1",
        "//v1",
        "/v1//x",
        "/v1/x//",
        "/..",
        "/.",
        "/v1/./x",
        "/v1/../x",
        "/v1/%2e%2e/x",
        "/v1/.%2E/x",
        "/v1%2fx",
        "/v1%5cx",
        "/v1\\x",
        "/v1%00",
        "/v1%0d%0a",
        "/v1%7f",
        "/v1/%41dmin",
        "/v1/%7euser",
        "/v1/%252e",
        "/v1/x;a=b",
        "/v1/x%3ba",
        "/v1/x%3fa",
        "/v1/x%23a",
        "/v1#x",
        "/v1/%zz",
        "/v1/%",
        "/v1/%u002e",
        "/v1/%c0%af",
        "/v1/%e9",
        "/v1/%EF%BC%8E",
        "/v1/%E2%80%AE",
        "/v1/%C2%A0",
        "/v1/e%CC%81",
        "/v1/\u00e9",
        "/v1/a b",
        "/v1/\x7f",
        '/v1/"x"',
        "/v1?a=1&a=2",
        "/v1?a=1;b=2",
        "/v1?a=%00",
        "/v1?a=%0a",
        "/v1?%61=1",
        "/v1?a=%zz",
        "/v1?a=%ff",
        "/v1?a=1#x",
        "/v1?access_token=x",
    ],
)
def test_a_target_with_a_second_spelling_is_refused(target: str) -> None:
    assert refusal(target=target) is Reason.TARGET_NOT_CANONICAL


def test_a_target_is_bounded() -> None:
    head(target="/" + "a" * 7999)
    assert refusal(target="/" + "a" * 8000) is Reason.TARGET_TOO_LONG


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_path_that_is_let_in_has_no_other_spelling(text: str) -> None:
    """Decoding and encoding again, as some upstreams do, finds the same segments."""
    from urllib.parse import quote, unquote

    try:
        admitted = head(target="/" + text)
    except Refused:
        return
    decoded = [unquote(segment) for segment in admitted.path.split("/")]
    assert all(segment not in {".", ".."} and not set(segment) & set("/\\;?#%\0\r\n") for segment in decoded)
    again = "/".join(quote(segment, safe="!$&'()*+,=:@~") for segment in decoded)
    assert unquote(again) == unquote(admitted.path)
    assert "" not in decoded[1:-1]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "QUERY", ""])
def test_only_methods_with_known_meaning_are_let_in(method: str) -> None:
    assert refusal(method=method) is Reason.METHOD_NOT_SUPPORTED


@pytest.mark.parametrize("version", [(0, 9), (2, 0), (1, 2), (3, 0)])
def test_only_http_1_is_spoken(version: tuple[int, int]) -> None:
    assert refusal(version=version) is Reason.MALFORMED_REQUEST


def test_a_client_of_http_1_0_gets_one_answer_per_connection() -> None:
    assert head(version=(1, 0)).close
    assert not head((b"Expect", b"100-continue"), method="POST", version=(1, 0)).expects_continue


# --- host ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"api.example", "api.example"),
        (b"API.Example:443", "api.example"),
        (b"127.0.0.1:8443", "127.0.0.1"),
        (b"[::1]:8443", "[::1]"),
        (b"localhost", "localhost"),
        (b"3scale.example", "3scale.example"),
    ],
)
def test_routes_see_the_host_without_its_port(value: bytes, name: str) -> None:
    assert admit("GET", "/", (1, 1), ((b"Host", value),)).name == name


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a@b",
        b"a b",
        b"a,b",
        b"a/b",
        b"a:80:90",
        b"a:0",
        b"a:65536",
        b"a:",
        b":80",
        b"a..b",
        b".a",
        b"a.",
        b"-a",
        b"a-",
        b"a.-b",
        b"a_b",
        b"2130706433",
        b"127.1",
        b"1.2.3.256",
        b"0x7f000001",
        b"[::1",
        b"[:::1]",
        b"[1.2.3.4]",
        b"a%2eb",
        b"a" * 300,
    ],
)
def test_a_host_that_names_no_host_is_refused(value: bytes) -> None:
    with pytest.raises(Refused) as refused:
        admit("GET", "/", (1, 1), ((b"Host", value),))
    assert refused.value.reason is Reason.HOST_INVALID


def test_a_missing_host_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        admit("GET", "/", (1, 1), ())
    assert refused.value.reason is Reason.HOST_INVALID


# --- fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [b"X_Role", b"X.Role", b"X Role", b"X-Role ", b"\tX", b"", b"X--Role", b"X-", b"-X", b"X\xff", b"X:", b'"X"'],
)
def test_a_name_that_could_pass_for_another_is_refused(name: bytes) -> None:
    assert refusal((name, b"1")) is Reason.HEADER_INVALID


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), *range(127, 256)])
def test_values_are_printable_ascii(byte: int) -> None:
    assert refusal((b"X-A", b"a" + bytes([byte]))) is Reason.HEADER_INVALID


def test_a_value_may_hold_tabs_and_spaces() -> None:
    head((b"X-A", b"a\tb c"))


@pytest.mark.parametrize(
    "name", [b"Authorization", b"DPoP", b"Content-Type", b"Idempotency-Key", b"Signature", b"Cookie", b"Host", b"X-Own"]
)
def test_a_field_that_is_no_list_comes_once(name: bytes) -> None:
    assert refusal((name, b"a"), (name.upper(), b"a")) is Reason.HEADER_INVALID


def test_list_fields_may_come_on_several_lines() -> None:
    head((b"Accept", b"a/b"), (b"accept", b"c/d"), (b"traceparent", b"x"), (b"Traceparent", b"y"))


def test_fields_are_bounded_in_number_and_size() -> None:
    limits = HeadLimits(fields=3, field=40, total=60)
    admit("GET", "/", (1, 1), (HOST, (b"A", b"1"), (b"B", b"2")), limits)
    for fields in [
        (HOST, (b"A", b"1"), (b"B", b"2"), (b"C", b"3")),
        (HOST, (b"A", b"1" * 40)),
        (HOST, (b"A", b"1" * 20), (b"B", b"2" * 20)),
    ]:
        with pytest.raises(Refused) as refused:
            admit("GET", "/", (1, 1), fields, limits)
        assert refused.value.reason is Reason.HEADERS_TOO_LARGE


@pytest.mark.parametrize(
    "field",
    [
        (b"Upgrade", b"websocket"),
        (b"HTTP2-Settings", b"AAMAAABk"),
        (b"Trailer", b"X"),
        (b"Connection", b"upgrade"),
        (b"Connection", b"close, authorization"),
        (b"Connection", b""),
        (b"X-HTTP-Method-Override", b"DELETE"),
    ],
)
def test_fields_that_change_how_others_are_read_are_refused(field: Header) -> None:
    assert refusal(field) is Reason.HEADER_INVALID


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"br", b""])
def test_encoded_bodies_are_refused(coding: bytes) -> None:
    assert refusal((b"Content-Encoding", coding), method="POST") is Reason.CONTENT_ENCODING


def test_connection_close_is_heard() -> None:
    assert head((b"Connection", b"Keep-Alive, Close")).close
    assert not head((b"Connection", b"keep-alive")).close


def test_the_only_expectation_is_100_continue() -> None:
    assert head((b"Expect", b"100-Continue"), method="POST").expects_continue
    assert refusal((b"Expect", b"200-ok")) is Reason.EXPECTATION_FAILED


# --- framing ------------------------------------------------------------------------------------------------------


def test_a_body_is_framed_by_length_or_by_chunks() -> None:
    assert head((b"Content-Length", b"12"), method="POST").length == 12
    chunked = head((b"Transfer-Encoding", b"Chunked"), method="POST")
    assert chunked.length is None
    assert chunked.has_body
    assert head(method="POST").length == 0


@pytest.mark.parametrize(
    "fields",
    [
        ((b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")),
        ((b"Transfer-Encoding", b"gzip, chunked"),),
        ((b"Transfer-Encoding", b"chunked, chunked"),),
        ((b"Transfer-Encoding", b"identity"),),
        ((b"Transfer-Encoding", b""),),
        ((b"Content-Length", b""),),
        ((b"Content-Length", b"+5"),),
        ((b"Content-Length", b"-0"),),
        ((b"Content-Length", b"5, 5"),),
        ((b"Content-Length", b"0x5"),),
        ((b"Content-Length", b"9" * 17),),
    ],
)
def test_ambiguous_framing_is_refused(fields: tuple[Header, ...]) -> None:
    assert refusal(*fields, method="POST") is Reason.MALFORMED_REQUEST


def test_http_1_0_has_no_chunks() -> None:
    assert refusal((b"Transfer-Encoding", b"chunked"), method="POST", version=(1, 0)) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_methods_without_body_take_none(method: str) -> None:
    head((b"Content-Length", b"0"), method=method)
    assert refusal((b"Content-Length", b"1"), method=method) is Reason.BODY_NOT_ALLOWED
    assert refusal((b"Transfer-Encoding", b"chunked"), method=method) is Reason.BODY_NOT_ALLOWED


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
    sent = request_head(
        "GET", "/", ((b"Authorization", b"x"),), drop={b"authorization"}, add=((b"Pangate-Subject", b"me"),)
    )
    assert sent == b"GET / HTTP/1.1\r\nPangate-Subject: me\r\n"


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\nb", b"a\rb"])
def test_no_value_breaks_out_of_its_line(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", (), drop=frozenset(), add=((b"X", value),))
    with pytest.raises(ValueError, match="line break"):
        response_head(200, ((b"X", value),), length=0, close=False)


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
