"""The reader of responses: one reading or none, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.response_reader import MalformedResponse, ResponseReader

FIELDS = b"Content-Length: 2\r\n\r\nok"


def read(*pieces: bytes, method: str = "POST", **limits: int) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader(method, **limits)
    body = b""
    for piece in pieces:
        if reader.complete:
            break
        body += reader.feed(piece)
    return reader, body


def outcome(pieces: list[bytes]) -> object:
    """What became of a response that arrived in these pieces and ended in EOF."""
    try:
        reader, body = read(*pieces)
    except MalformedResponse:
        return "malformed"
    ended = reader.end()
    return reader.head, body, ended


def test_a_plain_response_is_read_as_it_is() -> None:
    reader, body = read(b"HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a:  two words\t\r\nContent-Length: 2\r\n\r\nok")
    assert reader.head is not None
    assert reader.head.status == 201
    assert reader.head.headers == [(b"X-A", b"1"), (b"x-a", b"two words"), (b"Content-Length", b"2")]
    assert body == b"ok"
    assert reader.reusable


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: 1\nX-B: 2\r\n",
        b"X-A: 1\r\n folded\r\n",
        b"X-A : 1\r\n",
        b" X-A: 1\r\n",
        b"X-A\r\n",
        b": 1\r\n",
        b"X\x00A: 1\r\n",
        b"X-A: 1\x002\r\n",
        b"X-A: 1\x7f\r\n",
        b"X-A: caf\xc3\xa9\r\n",
        b"X-A: 1\r2\r\n",
        b"Content-Length: 2\r\n",
        b"content-length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Type: a/b\r\nContent-Type: a/c\r\n",
    ],
)
def test_a_field_that_two_parsers_could_read_differently_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 200 OK\r\n" + line + FIELDS)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 999 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 2O0 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/2 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/0.9 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"<html>",
    ],
)
def test_a_status_line_that_is_none_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(line + b"\r\n" + FIELDS)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length: -2",
        b"Content-Length: +2",
        b"Content-Length: 2, 2",
        b"Content-Length: 0x2",
        b"Content-Length: 2 2",
        b"Content-Length:",
        b"Content-Length: 1000000000000000000000",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_framing_that_is_not_plainly_one_is_malformed(field: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")


def test_a_chunked_answer_of_http_1_0_is_malformed() -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\nok\r\n0\r\n\r\n",
        b"2\r\nok\n0\r\n\r\n",
        b"2\r\nokk\r\n0\r\n\r\n",
        b" 2\r\nok\r\n0\r\n\r\n",
        b"0x2\r\nok\r\n0\r\n\r\n",
        b"-2\r\nok\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
        b"2;a=\nb\r\nok\r\n0\r\n\r\n",
        b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\nhello",
        b"2\r\nok\r\n0\r\nX: \x00\r\n\r\n",
    ],
)
def test_a_malformed_chunk_is_malformed(chunks: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)


def test_extensions_and_trailers_of_chunks_are_dropped() -> None:
    reader, body = read(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert body == b"ok!"
    assert reader.reusable
    assert reader.head is not None
    assert reader.head.headers == [(b"Transfer-Encoding", b"Chunked")]


def test_an_endless_chunk_extension_or_trailer_is_malformed() -> None:
    for start in (b"2;", b"0\r\nX: "):
        with pytest.raises(MalformedResponse):
            read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", start, *[b"a" * 1000] * 40)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"H", b"\x00", b"ok"])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_bytes_behind_a_response_are_no_part_of_it_and_end_the_connection(response: bytes, extra: bytes) -> None:
    reader, body = read(response + extra)
    assert body == b"ok"
    assert reader.complete
    assert not reader.reusable


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_a_response_without_a_body_ends_with_its_head(method: str, head: bytes) -> None:
    reader, body = read(head, method=method)
    assert (reader.reusable, body) == (True, b"")


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_204_that_declares_a_body_is_malformed(field: bytes) -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n")


def test_interim_responses_are_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 4
    reader, body = read(interim + b"HTTP/1.1 200 OK\r\n" + FIELDS)
    assert reader.head is not None
    assert (reader.head.status, reader.head.headers, body) == (200, [(b"Content-Length", b"2")], b"ok")


def test_a_ninth_interim_response_is_malformed() -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 100 Continue\r\n\r\n" * 9)


def test_switching_protocols_is_malformed() -> None:
    with pytest.raises(MalformedResponse):
        read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", b"HTTP/1.1 200\r\nConnection: x,close\r\n"],
)
def test_a_connection_that_will_be_closed_is_not_reusable(head: bytes) -> None:
    reader, body = read(head + FIELDS)
    assert (reader.complete, reader.reusable, body) == (True, False, b"ok")


def test_without_framing_the_body_ends_with_the_connection() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nok")
    assert not reader.complete
    assert reader.end()
    assert (reader.reusable, body) == (False, b"ok")


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 200 OK\r\nX: 1\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
def test_eof_before_the_end_is_no_end(data: bytes) -> None:
    reader, _ = read(data)
    assert not reader.end()


def test_limits_of_a_head_hold_to_the_byte() -> None:
    head = b"HTTP/1.1 200 OK\r\nX: aaaa\r\nContent-Length: 2"
    read(head + b"\r\n\r\nok", max_head=len(head), max_fields=2)
    with pytest.raises(MalformedResponse):
        read(head + b"\r\n\r\nok", max_head=len(head) - 1)
    with pytest.raises(MalformedResponse):
        read(head + b"\r\n\r\nok", max_fields=1)


def test_a_head_without_end_is_refused_before_it_has_filled_the_memory() -> None:
    reader = ResponseReader("GET", max_head=1000)
    start = b"HTTP/1.1 200 OK\r\nX: "
    for piece in [start, *[b"a"] * (1003 - len(start))]:
        reader.feed(piece)
    with pytest.raises(MalformedResponse):
        reader.feed(b"a")


def test_what_is_malformed_is_not_quoted() -> None:
    with pytest.raises(MalformedResponse) as raised:
        read(b"HTTP/1.1 200 OK\r\nX-Card: 4242424242424242\x00\r\n\r\n")
    assert "4242" not in str(raised.value)


RESPONSES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a/long/one.css>\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut off",
    ]
)


@given(st.data())
def test_a_response_reads_the_same_however_it_is_cut(data: st.DataObject) -> None:
    response = data.draw(RESPONSES)
    cuts = data.draw(st.sets(st.integers(1, len(response) - 1)).map(sorted))
    pieces = [response[a:b] for a, b in zip([0, *cuts], [*cuts, len(response)], strict=True)]
    assert outcome(pieces) == outcome([response])


TOKENS = st.sampled_from(
    b"HTTP/1.1 |200| OK|\r\n|\n|\r\n\r\n|: |Content-Length|2|0|chunked|Transfer-Encoding|HTTP/1.1 200 OK\r\n"
    b"|HTTP/1.1 100 C\r\n\r\n|\x00|\xff|5\r\nhello\r\n".split(b"|")
)


@given(st.lists(st.one_of(TOKENS, st.binary(max_size=8))))
def test_any_bytes_are_read_or_malformed(pieces: list[bytes]) -> None:
    result = outcome(pieces)
    assert result == "malformed" or isinstance(result, tuple)
