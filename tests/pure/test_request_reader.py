"""Heads of requests: what is let in has one reading, and everybody else reads it the same way."""

from __future__ import annotations

import asyncio
import contextlib
from unittest.mock import Mock

import httptools
import pytest
from aiohttp.http import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.head_syntax import split_target
from gateway.pure.http import Header
from gateway.pure.request_reader import Head, HeadLimits, check_unfinished, read_head

HOST: Header = (b"Host", b"api.example")


def raw_head(*fields: Header, method: str = "GET", target: str = "/v1/payments", version: str = "1.1") -> bytes:
    line = f"{method} {target} HTTP/{version}\r\n".encode()
    return line + b"".join(name + b": " + value + b"\r\n" for name, value in fields)


def head(*fields: Header, method: str = "GET", target: str = "/v1/payments", version: str = "1.1") -> Head:
    return read_head(raw_head(HOST, *fields, method=method, target=target, version=version), HeadLimits())


def refusal(*fields: Header, **line: str) -> Reason:
    with pytest.raises(Refused) as refused:
        head(*fields, **line)
    return refused.value.reason


def refusal_of(raw: bytes, limits: HeadLimits | None = None) -> Reason:
    with pytest.raises(Refused) as refused:
        read_head(raw, limits or HeadLimits())
    return refused.value.reason


# --- what is let in -----------------------------------------------------------------------------------------------


def test_a_plain_request_is_let_in() -> None:
    raw = b"GET /v1/payments?limit=10 HTTP/1.1\r\nhost:API.example:8443\r\nAccept: \t*/* \r\n"
    admitted = read_head(raw, HeadLimits())
    assert (admitted.method, admitted.target) == ("GET", "/v1/payments?limit=10")
    assert (admitted.path, admitted.query) == ("/v1/payments", "limit=10")
    assert (admitted.host, admitted.name) == ("api.example:8443", "api.example")
    assert admitted.headers == ((b"host", b"API.example:8443"), (b"Accept", b"*/*"))
    assert admitted.fields == {b"host": b"API.example:8443", b"accept": b"*/*"}
    assert (admitted.length, admitted.close, admitted.expects_continue, admitted.legacy) == (0, False, False, False)


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
        "/v1/%CC%81",
        "/v1/%E2%81%84x",
        "/v1/%E2%88%96x",
        "/v1/%20",
        "/v1/x%20",
        "/v1/%20x/y",
        '/v1/"x"',
        "/v1?a=%00",
        "/v1?a=%0a",
        "/v1?%61=1",
        "/v1?a=%ff",
        "/v1?access_token=x",
    ],
)
def test_a_target_with_a_second_spelling_is_refused(target: str) -> None:
    assert refusal(target=target) is Reason.TARGET_NOT_CANONICAL


@pytest.mark.parametrize("target", ["", "/v1/a b", "/v1/\x7f", "/v1/\t", "/v1\0", "/v1\r"])
def test_a_request_line_has_two_spaces_and_visible_characters(target: str) -> None:
    assert refusal(target=target) is Reason.MALFORMED_REQUEST


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


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "QUERY", "PRI"])
def test_only_methods_with_known_meaning_are_let_in(method: str) -> None:
    assert refusal(method=method) is Reason.METHOD_NOT_SUPPORTED


@pytest.mark.parametrize("method", ["get", "", "G\0T", "GET\t", "M-SEARCH", " GET", "\r\nGET"])
def test_what_is_no_method_is_malformed(method: str) -> None:
    assert refusal(method=method) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", "3.0", "1.10", "01.1", "1.1 ", "1"])
def test_only_http_1_is_spoken(version: str) -> None:
    assert refusal(version=version) is Reason.MALFORMED_REQUEST


def test_a_client_of_http_1_0_gets_one_answer_per_connection() -> None:
    assert head(version="1.0").close
    assert head(version="1.0").legacy
    assert not head((b"Expect", b"100-continue"), method="POST", version="1.0").expects_continue


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
    assert read_head(raw_head((b"Host", value)), HeadLimits()).name == name


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
    assert refusal_of(raw_head((b"Host", value))) is Reason.HOST_INVALID


def test_there_is_exactly_one_host() -> None:
    assert refusal_of(raw_head()) is Reason.HOST_INVALID
    assert refusal(HOST) is Reason.HOST_INVALID


# --- fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [b"X_Role", b"X.Role", b"X Role", b"X-Role ", b"\tX", b"", b"X--Role", b"X\xff", b'"X"'],
)
def test_a_name_that_could_pass_for_another_is_refused(name: bytes) -> None:
    assert refusal((name, b"1")) is Reason.HEADER_INVALID


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), *range(127, 256)])
def test_no_control_character_and_no_lone_byte_beyond_ascii_is_in_a_value(byte: int) -> None:
    assert refusal((b"X-A", b"a" + bytes([byte]))) is Reason.HEADER_INVALID


def test_a_value_may_hold_tabs_and_spaces() -> None:
    head((b"X-A", b"a\tb c"))


@pytest.mark.parametrize(
    "name", [b"Authorization", b"DPoP", b"Content-Type", b"Idempotency-Key", b"Signature", b"Cookie", b"X-Own"]
)
def test_a_field_that_is_no_list_comes_once(name: bytes) -> None:
    assert refusal((name, b"a"), (name.upper(), b"a")) is Reason.HEADER_INVALID


def test_the_lines_of_a_list_are_one_value() -> None:
    found = head((b"Accept", b"a/b"), (b"traceparent", b"x"), (b"accept", b"c/d"), (b"Traceparent", b"y"))
    assert (found.fields[b"accept"], found.fields[b"traceparent"]) == (b"a/b, c/d", b"x, y")
    assert len(found.headers) == 5


@pytest.mark.parametrize("line", [b"no colon", b" folded: 1", b"\tfolded", b": 1", b"A\r: 1", b"A: 1\n", b"A: 1\nB: 2"])
def test_a_line_that_is_no_field_is_refused(line: bytes) -> None:
    assert refusal_of(raw_head(HOST) + line + b"\r\n") is Reason.HEADER_INVALID


def test_fields_are_bounded_in_number_and_size() -> None:
    limits = HeadLimits(fields=3, field=40, total=60)
    read_head(raw_head(HOST, (b"A", b"1"), (b"B", b"2")), limits)
    for fields in [
        (HOST, (b"A", b"1"), (b"B", b"2"), (b"C", b"3")),
        (HOST, (b"A", b"1" * 40)),
        (HOST, (b"A", b"1" * 20), (b"B", b"2" * 20)),
    ]:
        assert refusal_of(raw_head(*fields), limits) is Reason.HEADERS_TOO_LARGE


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
    assert refusal((b"Transfer-Encoding", b"chunked"), method="POST", version="1.0") is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_methods_without_body_take_none(method: str) -> None:
    head((b"Content-Length", b"0"), method=method)
    assert refusal((b"Content-Length", b"1"), method=method) is Reason.BODY_NOT_ALLOWED
    assert refusal((b"Transfer-Encoding", b"chunked"), method=method) is Reason.BODY_NOT_ALLOWED


# --- the beginning of a head ----------------------------------------------------------------------------------------


@given(st.data())
def test_a_good_head_may_arrive_in_any_pieces(data: st.DataObject) -> None:
    raw = raw_head(HOST, (b"Accept", b"*/*"), (b"Content-Length", b"3"), method="POST") + b"\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1))))
    seen = 0
    for cut in cuts:
        check_unfinished(bytearray(raw[:cut]), seen, HeadLimits())
        seen = cut


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00",
        b"\r\n",
        b"get / HTTP/1.1",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / HTTP/1.1\rX",
        b"GET  / HTTP/1.1 x",
        b"GET /\0",
    ],
)
def test_what_cannot_become_a_head_is_not_waited_for(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        check_unfinished(bytearray(raw), 0, HeadLimits())
    assert refused.value.reason is Reason.MALFORMED_REQUEST


def test_the_beginning_of_a_head_is_bounded() -> None:
    limits = HeadLimits(target=100, total=200)
    for raw, reason in [
        (b"GET /" + b"a" * 200, Reason.TARGET_TOO_LONG),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 300, Reason.HEADERS_TOO_LARGE),
    ]:
        with pytest.raises(Refused) as refused:
            check_unfinished(bytearray(raw), 0, limits)
        assert refused.value.reason is reason


# --- beside other readers -------------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"Host", b"host", b"Accept", b"X-A", b"Content-Length", b"Transfer-Encoding", b"Connection"])
VALUES = st.sampled_from([b"api.example", b"a", b"0", b"3", b"chunked", b"close", b"keep-alive", b"a, b", b""])
ODD = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x0b", b"\x85", b"\xff", b",", b";", b"%", b"_", b"#"]
)


@st.composite
def spoiled_heads(draw: st.DrawFn) -> bytes:
    """A head with a few odd bytes in it, most of which must be refused."""
    fields = [(b"Host", b"api.example"), *draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))]
    method = draw(st.sampled_from(["GET", "POST", "PUT"]))
    target = draw(st.sampled_from(["/", "/v1/a", "/v1?a=b", "/a%20b", "//", "/../x"]))
    raw = raw_head(*fields, method=method, target=target)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(ODD) + raw[at + draw(st.integers(0, 1)) :]
    return raw


class Heard:
    """What llhttp (by way of httptools) hears."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[Header] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


@given(spoiled_heads())
@example(raw_head(HOST, (b"Content-Length", b"3"), method="POST"))
def test_whatever_is_let_in_is_read_the_same_way_by_others(raw: bytes) -> None:
    try:
        ours = read_head(raw, HeadLimits())
    except Refused:
        return
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    parser.feed_data(raw + b"\r\n")
    assert heard.complete
    assert parser.get_method().decode() == ours.method
    assert split_target(heard.target.decode("latin-1"))[0] == ours.target
    assert [(name, value.strip(b" \t")) for name, value in heard.headers] == list(ours.headers)  # RFC 9112 section 5.1
    loop = asyncio.new_event_loop()
    try:
        theirs = HttpRequestParser(Mock(), loop, 2**16)
        ((message, _),), _, _ = theirs.feed_data(raw + b"\r\n")
    finally:
        loop.close()
    assert message.method == ours.method
    assert split_target(message.path.encode("utf-8", "surrogateescape").decode("latin-1"))[0] == ours.target
    assert message.raw_headers == ours.headers
    assert message.chunked is (ours.length is None)
    assert message.should_close is ours.close


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(Refused):
        assert read_head(raw + b"\r\n", HeadLimits()).path.startswith("/")
    with contextlib.suppress(Refused):
        check_unfinished(bytearray(raw), 0, HeadLimits())
