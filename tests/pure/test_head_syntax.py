"""What is let in beyond plain ASCII never reaches what frames a message, says who calls, or leads elsewhere."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.head_syntax import split_target
from gateway.pure.http import is_forwarded
from gateway.pure.request_reader import Head, HeadLimits, check_unfinished, read_head

HOST = (b"Host", b"api.example")


def read(*fields: tuple[bytes, bytes], target: bytes = b"/", method: bytes = b"GET") -> Head:
    lines = [method + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in (HOST, *fields))]
    raw = b"".join(line + b"\r\n" for line in lines)
    check_unfinished(bytearray(raw), 0, HeadLimits())
    return read_head(raw, HeadLimits())


def refusal(*fields: tuple[bytes, bytes], target: bytes = b"/") -> Reason:
    with pytest.raises(Refused) as raised:
        read(*fields, target=target)
    return raised.value.reason


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"X_Merchant", b"My.Header", b"Odd!#$%&'*+^`|~", b"X--Two"])
def test_any_token_is_a_name(name: bytes) -> None:
    assert read((name, b"1")).fields[name.lower()] == b"1"


@pytest.mark.parametrize(
    "name",
    [b"Transfer_Encoding", b"Transfer.Encoding", b"Transfer--Encoding", b"Transfer-Encoding-", b"_Content_Length",
     b"Content~Length", b"X_Gateway_Subject", b"X.Forwarded.For", b"Client_Cert", b"Pangate_Tenant", b"Connection!",
     b"Host_", b"Remote_User", b"X_Role", b"Idempotency_Key", b"Authorization.", b"Content_Type", b"X_Api_Key", b"___"],
)  # fmt: skip
def test_a_name_that_looks_like_one_that_others_act_on_is_refused(name: bytes) -> None:
    assert refusal((name, b"admin")) is Reason.HEADER_INVALID


def test_no_two_names_fold_into_one() -> None:
    assert refusal((b"X_Shop", b"1"), (b"X-Shop", b"2")) is Reason.HEADER_INVALID
    assert refusal((b"X_Shop", b"1"), (b"X.Shop", b"2")) is Reason.HEADER_INVALID


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a\tb", b"\x01a", b"a\x7f", b"na\xc3\xafve", b"(a)", b'"a"', b"a/b", b"a "]
)
def test_what_is_no_token_is_no_name(name: bytes) -> None:
    assert refusal((name, b"1")) is Reason.HEADER_INVALID


@pytest.mark.parametrize("line", [b"X-Shop", b"X_Shop", b"\xff"])
def test_a_line_without_a_colon_is_no_field(line: bytes) -> None:
    with pytest.raises(Refused):
        read_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n", HeadLimits())


@given(st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", fullmatch=True))
def test_no_name_that_is_let_in_folds_into_one_that_is_held_back(name: bytes) -> None:
    try:
        admitted = read((name, b"1"))
    except Refused:
        return
    folded = bytes(c if chr(c).isalnum() else 0x2D for c in name.lower())
    words = b"-".join(word for word in folded.split(b"-") if word)
    assert name.lower() in admitted.fields
    assert words == name.lower() or is_forwarded(words)


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"\xc2\x85a\xc2\xa0b", "\u4242".encode()])
def test_utf8_passes_byte_for_byte_in_fields_that_nobody_registered(value: bytes) -> None:
    assert (b"X-Shop-Name", value) in read((b"X-Shop-Name", value)).headers


@pytest.mark.parametrize("value", [b"\xe9", b"a\xa0b", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"caf\xc3"])
def test_what_is_no_utf8_is_no_value(value: bytes) -> None:
    assert refusal((b"X-Shop-Name", b"a" + value)) is Reason.HEADER_INVALID


@pytest.mark.parametrize("name", [b"X-Role", b"Authorization", b"Idempotency-Key", b"Cookie", b"Forwarded", b"X-User"])
def test_what_others_act_on_is_ascii(name: bytes) -> None:
    assert refusal((name, b"caf\xc3\xa9")) is Reason.HEADER_INVALID


@pytest.mark.parametrize("value", [b"\0", b"\x01", b"\x0b", b"\x7f", b"\r", b"a\nb", b"\xc3\xa9\x01"])
def test_a_control_character_is_in_no_value(value: bytes) -> None:
    assert refusal((b"X-Name", b"a" + value + b"b")) in {Reason.HEADER_INVALID, Reason.MALFORMED_REQUEST}


@pytest.mark.parametrize("value", [b"chunked\xa0", b"\xc2\xa0chunked", b"chunk\xc5\xbfed", b"gzip, chunked"])
def test_framing_is_read_as_strictly_as_ever(value: bytes) -> None:
    assert refusal((b"Transfer-Encoding", value)) in {Reason.HEADER_INVALID, Reason.MALFORMED_REQUEST}
    assert refusal((b"Content-Length", "1\u0661".encode())) is Reason.HEADER_INVALID


# --- targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        ("/caf\u00e9", "/caf%C3%A9"),
        ("/a%0Ab", "/a%0Ab"),
        ("/x?a=%dd&%ee=1", "/x?a=%dd&%ee=1"),
        ('/x?q="<>{}|\\^`', "/x?q=%22%3C%3E%7B%7D%7C%5C%5E%60"),
        ("/x?a=1#b=2", "/x?a=1%23b=2"),
        ("/x?a=100%&b=%zz", "/x?a=100%25&b=%25zz"),
        ("/\u00e9?b=\u00e9", "/%C3%A9?b=%C3%A9"),
        ("/x?a=1;b=2", "/x?a=1;b=2"),
    ],
)
def test_what_is_not_escaped_as_it_must_be_is_read_and_sent_on_escaped(sent: str, read_as: str) -> None:
    admitted = read(target=sent.encode())
    path, _, query = read_as.partition("?")
    assert (admitted.target, admitted.path, admitted.query) == (read_as, path, query)


def test_what_grows_by_its_escapes_is_bounded_as_it_is_sent_on() -> None:
    assert refusal(target=b"/x?" + b"{" * 3000) is Reason.TARGET_TOO_LONG


@pytest.mark.parametrize(
    "target",
    [b"", b"x", b"*", b"http://a/b", b"//a", b"/a//b", b"/a/../b", b"/a/.", b"/..", b"/a/%2e%2e/b", b"/a/.%2E/b",
     b"/a%2Fb", b"/a%2fb", b"/a%5cb", b"/a\\b", b"/a%00b", b"/a%252e", b"/a#b", b"/a;b", b"/a%", b"/a%zz",
     b"/a%u002e", b"/a\xe9", b"/a\xc0\xaf", b"/\xe2\x88\x95a", b"/a%7Eb", b'/a"b', b"/a{b}", b"/e\xcc\x81",
     b"/a%0a", b"/%0da", b"/a%0d%0ab", b"/a%0a/b", b"/a%0aX:b", b"/a%0ab/c%0aX:y", b"/a%01b", b"/a%0bb", b"/a%7fb"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_once_it_is_normalised_is_refused(target: bytes) -> None:
    assert refusal(target=target) in {Reason.TARGET_NOT_CANONICAL, Reason.MALFORMED_REQUEST}


@pytest.mark.parametrize(
    "query",
    ["a=1&%41=2", "a=%00", "a=%0a", "a=%c0%af", "a=%e0%80%af", "a=%ff", "access_token=x", "a=1;access_token=x",
     "access%5Ftoken=x"],
)  # fmt: skip
def test_a_query_with_two_readings_is_refused(query: str) -> None:
    assert refusal(target=b"/x?" + query.encode()) is Reason.TARGET_NOT_CANONICAL


@given(st.text(st.characters(codec="utf-8", exclude_characters=" \x7f", min_codepoint=0x21), max_size=40))
def test_the_spelling_that_is_sent_on_says_what_was_meant_and_stays_as_it_is(text: str) -> None:
    target = f"/x?q={text}"
    try:
        sent_on, path, query = split_target(target.encode().decode("latin-1"))
    except Refused:
        return
    assert sent_on.isascii()
    assert "#" not in sent_on
    assert sent_on == f"{path}?{query}"
    assert unquote_to_bytes(query) == unquote_to_bytes(target.partition("?")[2])
    assert split_target(sent_on) == (sent_on, path, query)
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True) if not name.endswith("[]")]
    assert len(set(names)) == len(names)
    assert unquote(path) == "/x"
