"""Read an upstream's HTTP/1.1 response from its bytes, strictly (RFC 9112 sections 2 to 7), without a socket.

What two parsers could read differently is malformed: a bare LF, a folded line, a control or non-ASCII byte in a field,
two lengths, a length beside a transfer coding. The head is checked by one expression over its raw bytes, since lenient
parsers accept all of these; chunks are left to llhttp, which is strict about them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import httptools

from gateway.pure.http import Header

_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e]*+\r\n"
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?+\r\n((?:" + _FIELD + rb")*+)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_PREFIX = b"HTTP/1."
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ONCE = frozenset({b"content-length", b"content-type", b"transfer-encoding"})
_MAX_INTERIM = 8
_BODILESS = frozenset({204, 304})


class MalformedResponse(ValueError):  # noqa: N818 - says the state
    """The bytes are no response that may be passed on; the text names the rule they break and quotes none of them."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head. `length` is the declared Content-Length, None if there is none."""

    status: int
    headers: list[Header] = field(repr=False)
    length: int | None
    chunked: bool
    keep_alive: bool


class ResponseReader:
    """Takes the bytes of one response as they come; tells its head, its body and where it ends.

    `max_head` bounds the bytes of a head, and what may pass between two pieces of a chunked body; `max_fields` the
    fields of a head. Interim (1xx) responses are skipped, 101 and more than eight of them are malformed.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_head_request",
        "_interim",
        "_max_fields",
        "_max_head",
        "_scanned",
        "_surplus",
        "complete",
        "head",
    )

    def __init__(self, method: str, *, max_head: int = 32 * 1024, max_fields: int = 128) -> None:
        self._head_request = method == "HEAD"
        self._max_head = max_head
        self._max_fields = max_fields
        self._buffer = b""
        self._scanned = 0
        self._interim = 0
        self._surplus = False
        self._body: _Counted | _Chunked | None = None
        self.head: ResponseHead | None = None
        """Set once the head of the final response was read."""
        self.complete = False
        """The response was read to its end; `feed` must not be called again."""

    @property
    def reusable(self) -> bool:
        """After the end: may the connection carry another request?"""
        if self.head is None or self._body is None:
            return False
        return self.complete and self.head.keep_alive and not self._surplus

    def feed(self, data: bytes) -> bytes:
        """The part of the body that was in `data` (b"" for none). Raises `MalformedResponse`."""
        if self.head is None:
            data = self._buffer + data
            while self.head is None:
                end = self._find_end(data)
                if end < 0:
                    self._buffer = data
                    return b""
                self._take_head(parse_head(data[: end + 2], self._max_fields))
                data = data[end + 4 :]
            self._buffer = b""
        return self._take_body(data)

    def end(self) -> bool:
        """The upstream sent EOF: True if that is a proper end of this response."""
        if self.complete:
            return True
        self.complete = self.head is not None and self._body is None
        return self.complete

    def _find_end(self, data: bytes) -> int:
        """Where the empty line that ends the head begins, -1 if it did not come yet."""
        end = data.find(b"\r\n\r\n", self._scanned)
        if not data.startswith(_PREFIX[: len(data)]):
            raise MalformedResponse("no HTTP/1 status line")
        if end > self._max_head or (end < 0 and len(data) - 3 > self._max_head):
            raise MalformedResponse("the header section is too large")
        if end < 0:
            if _BARE_LF.search(data, self._scanned) is not None:
                raise MalformedResponse("a line ends without CR")
            self._scanned = max(0, len(data) - 3)
        else:
            self._scanned = 0
        return end

    def _take_head(self, head: ResponseHead) -> None:
        if head.status >= 200:
            self.head = head
            self._body = self._framing(head)
            return
        self._interim += 1
        if head.status == 101 or self._interim > _MAX_INTERIM:
            raise MalformedResponse("an interim response that was not asked for")

    def _framing(self, head: ResponseHead) -> _Counted | _Chunked | None:
        """How the body ends; None: with the connection."""
        if self._head_request or head.status in _BODILESS:
            return _Counted(0)
        if head.chunked:
            return _Chunked(self._max_head)
        return None if head.length is None else _Counted(head.length)

    def _take_body(self, data: bytes) -> bytes:
        body = self._body
        if body is None:
            return data
        piece = body.feed(data)
        if body.complete:
            self.complete = True
            self._surplus = body.surplus
        return piece


class _Counted:
    """A body of a declared length (RFC 9112 section 6.2)."""

    __slots__ = ("_left", "complete", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        self.surplus = len(data) > self._left
        piece = data[: self._left]
        self._left -= len(piece)
        self.complete = self._left == 0
        return piece


class _Chunked:
    """A chunked body (RFC 9112 section 7.1). Extensions and trailer fields are checked and dropped."""

    __slots__ = ("_barren", "_max_barren", "_parser", "_pieces", "complete", "surplus")

    def __init__(self, max_barren: int) -> None:
        self._pieces: list[bytes] = []
        self._barren = 0
        self._max_barren = max_barren
        self.complete = False
        self.surplus = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def feed(self, data: bytes) -> bytes:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:
                raise MalformedResponse("a chunk is malformed") from None
            self.surplus = True
        pieces, self._pieces = self._pieces, []
        self._barren = 0 if pieces else self._barren + len(data)
        if self._barren > self._max_barren:
            raise MalformedResponse("too much between two pieces of a chunked body")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_body(self, piece: bytes) -> None:
        if not self.complete:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self.complete = True


def parse_head(raw: bytes, max_fields: int) -> ResponseHead:
    """The head in `raw`: status line and fields, each line with its CRLF. Raises `MalformedResponse`."""
    found = _HEAD.fullmatch(raw)
    if found is None:
        raise MalformedResponse("the status line or a header field is malformed")
    minor, status, block = found.groups()
    headers: list[Header] = []
    single: dict[bytes, bytes] = {}
    close = minor == b"0"
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        headers.append((name, value))
        key = name.lower()
        if key in _ONCE:
            if key in single:
                raise MalformedResponse("a header field that may come once came twice")
            single[key] = value
        elif key == b"connection":
            close = close or b"close" in [token.strip(b" \t") for token in value.lower().split(b",")]
    if len(headers) > max_fields:
        raise MalformedResponse("too many header fields")
    return _framed(int(status), headers, single, legacy=minor == b"0", keep_alive=not close)


def _framed(
    status: int, headers: list[Header], single: dict[bytes, bytes], *, legacy: bool, keep_alive: bool
) -> ResponseHead:
    """The head with its framing, if only one reading of it is possible (RFC 9112 section 6.3)."""
    declared, coding = single.get(b"content-length"), single.get(b"transfer-encoding")
    length = None
    if declared is not None:
        if _LENGTH.fullmatch(declared) is None:
            raise MalformedResponse("the Content-Length is not a number")
        length = int(declared)
    if coding is not None and (declared is not None or legacy or coding.lower() != b"chunked"):
        raise MalformedResponse("the transfer coding is not exactly chunked, or not alone")
    if (status < 200 or status == 204) and (coding is not None or length):
        raise MalformedResponse("a response that has no body declares one")
    return ResponseHead(status, headers, length, coding is not None, keep_alive)
