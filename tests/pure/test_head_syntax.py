"""What a listener tolerates never reaches what frames a message or says who calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.errors import Reason, Refused
from gateway.pure.head_syntax import Deviation, syntax
from gateway.pure.http import is_forwarded
from gateway.pure.request_reader import Head, HeadLimits, check_unfinished, read_head

ALL: frozenset[Deviation] = frozenset({"field-names", "field-values", "targets"})
HOST = (b"Host", b"api.example")


def read(
    *fields: tuple[bytes, bytes], target: bytes = b"/", method: bytes = b"GET", tolerated: frozenset[Deviation] = ALL
) -> Head:
    lines = [method + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in (HOST, *fields))]
    raw = b"".join(line + b"\r\n" for line in lines)
    limits = HeadLimits(syntax=syntax(tolerated))
    check_unfinished(bytearray(raw), 0, limits)
    return read_head(raw, limits)


def refusal(*fields: tuple[bytes, bytes], target: bytes = b"/", tolerated: frozenset[Deviation] = ALL) -> Reason:
    with pytest.raises(Refused) as raised:
        read(*fields, target=target, tolerated=tolerated)
    return raised.value.reason


NAMES = [b"X_Merchant", b"My.Header", b"Odd!#$%&'*+^`|~", b"X--Two"]
VALUES = [b"caf\xc3\xa9", b"\xe9", b"a\xa0b"]
TARGETS = [
    b"/caf\xc3\xa9", b"/a%7Eb", b"/a%0Ab", b"/x?a=%dd", b'/x?q="<>{}|\\^`', b"/x?a=1&a=2", b"/x?a;b#c",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_token_is_a_name_where_names_are_tolerated(name: bytes) -> None:
    assert read((name, b"1")).fields[name.lower()] == b"1"
    assert refusal((name, b"1"), tolerated=ALL - {"field-names"}) is Reason.HEADER_INVALID


@pytest.mark.parametrize("value", VALUES)
def test_bytes_beyond_ascii_are_values_where_values_are_tolerated(value: bytes) -> None:
    assert read((b"X-Name", value)).fields[b"x-name"] == value
    assert refusal((b"X-Name", value), tolerated=ALL - {"field-values"}) is Reason.HEADER_INVALID


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_stays_as_it_is_where_targets_are_tolerated(target: bytes) -> None:
    assert read(target=target).target.encode("latin-1") == target
    assert refusal(target=target, tolerated=ALL - {"targets"}) in {
        Reason.TARGET_NOT_CANONICAL,
        Reason.MALFORMED_REQUEST,
    }


@pytest.mark.parametrize(
    "name",
    [b"Transfer_Encoding", b"Transfer.Encoding", b"Transfer--Encoding", b"Transfer-Encoding-", b"_Content_Length",
     b"Content~Length", b"X_Gateway_Subject", b"X.Forwarded.For", b"Client_Cert", b"Pangate_Tenant", b"Connection!",
     b"Host_", b"Remote_User"],
)  # fmt: skip
def test_a_name_that_looks_like_one_of_ours_is_refused(name: bytes) -> None:
    assert refusal((name, b"admin")) is Reason.HEADER_INVALID


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a\tb", b"\x01a", b"a\x7f", b"na\xc3\xafve", b"(a)", b'"a"', b"a/b", b"a "]
)
def test_what_is_no_token_is_no_name(name: bytes) -> None:
    assert refusal((name, b"1")) is Reason.HEADER_INVALID


@pytest.mark.parametrize("value", [b"\0", b"\x01", b"\x0b", b"\x7f", b"\r", b"a\nb"])
def test_a_control_character_is_in_no_value(value: bytes) -> None:
    assert refusal((b"X-Name", b"a" + value + b"b")) in {Reason.HEADER_INVALID, Reason.MALFORMED_REQUEST}


@pytest.mark.parametrize("value", [b"chunked\xa0", b"\xa0chunked", b"chunk\xc5\xbfed", b"gzip, chunked"])
def test_framing_is_read_as_strictly_as_ever(value: bytes) -> None:
    assert refusal((b"Transfer-Encoding", value)) is Reason.MALFORMED_REQUEST
    assert refusal((b"Content-Length", b"1\xa0")) is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "target",
    [b"", b"x", b"*", b"http://a/b", b"//a", b"/a//b", b"/a/../b", b"/a/.", b"/..", b"/a/%2e%2e/b", b"/a/.%2E/b",
     b"/a%2Fb", b"/a%2fb", b"/a%5cb", b"/a\\b", b"/a%00b", b"/a%252e", b"/a#b", b"/a;b", b"/a%", b"/a%zz", b"/a%u002e"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_once_it_is_normalised_is_refused(target: bytes) -> None:
    assert refusal(target=target) in {Reason.TARGET_NOT_CANONICAL, Reason.MALFORMED_REQUEST}


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
