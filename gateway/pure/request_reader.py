"""A request's head as bytes: read once, judged whole, and forwarded as it was judged.

It is held to more than RFC 9110 and 9112 ask: one spelling of each target is sent on (RFC 3986 section 6.2), and each
field has one meaning, so that nobody behind the gateway can read another request than the gateway did.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

from gateway.pure.errors import Reason, Refused
from gateway.pure.head_syntax import (
    ASCII_VALUES,
    LINE,
    NAMES,
    UNFINISHED_LINE,
    check_names,
    check_values,
    split_target,
)
from gateway.pure.http import METHODS, Header

_BODILESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""A body of DELETE has no meaning that all agree on either (RFC 9110 section 9.3.5): there the route decides."""

_LISTS = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"baggage", b"cache-control", b"connection",
    b"forwarded", b"if-match", b"if-none-match", b"link", b"pragma", b"prefer", b"traceparent", b"tracestate", b"via",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
})  # fmt: skip
"""The fields that are lists, and may come on more than one line. Two lines of `traceparent` are no traceparent."""

_NO_SWITCH = (Reason.HEADER_INVALID, "This gateway does not switch protocols.")
_NO_OVERRIDE = (Reason.HEADER_INVALID, "Send the method in the request line; it cannot be overridden.")
_REFUSED_FIELDS = {
    b"upgrade": _NO_SWITCH,
    b"http2-settings": _NO_SWITCH,
    b"trailer": (Reason.HEADER_INVALID, "Send no trailer fields."),
    b"content-encoding": (Reason.CONTENT_ENCODING, "Send the body without a Content-Encoding."),
    b"x-http-method-override": _NO_OVERRIDE,
    b"x-http-method": _NO_OVERRIDE,
    b"x-method-override": _NO_OVERRIDE,
}

_STRAY = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")
_HOST = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::([0-9]{1,5}))?")
_LINE_BESIDES_TARGET = 64
_LABEL_EDGE = re.compile(r"(?:^|\.)-|-(?:\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """Bytes of the request target, of one field line, of the whole header section; number of fields."""

    target: int = 8000
    field: int = 6 * 1024
    total: int = 32 * 1024
    fields: int = 64


@dataclass(slots=True)
class Head:
    """A head that was let in."""

    method: str
    target: str = field(repr=False)
    """In its one spelling: what had to be percent-encoded in the request line, and was not, is."""
    path: str = field(repr=False)
    query: str = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    """The fields as they came: name and value, in their order."""
    fields: Mapping[bytes, bytes] = field(repr=False)
    """The values by name in lower case; the lines of a list are joined by commas (RFC 9110 section 5.3)."""
    host: str
    """The Host field in lower case, with its port if it has one."""
    name: str
    """The host without port, which routes match."""
    length: int | None
    """Bytes of the body; None if it is chunked."""
    close: bool
    """No further request comes on this connection."""
    expects_continue: bool
    legacy: bool
    """HTTP/1.0."""


def read_head(raw: bytes, limits: HeadLimits) -> Head:
    """Read and judge request line and fields, each with its CRLF, without the empty line that ends them.

    Raises `Refused`. The connection must be closed then: the framing of what follows is not to be trusted.
    """
    line, *lines = raw.split(b"\r\n")
    if not lines or lines.pop():
        _malformed()
    method, target, legacy = _request_line(line)
    headers, fields = _fields(lines, limits)
    target, path, query = split_target(target)
    if len(target) > limits.target:
        _refuse(Reason.TARGET_TOO_LONG, f"Send a target of at most {limits.target} bytes.")
    length = _length(fields, legacy=legacy)
    if length != 0 and method in _BODILESS_METHODS:
        _refuse(Reason.BODY_NOT_ALLOWED, "Send this method without a body.")
    expectation = fields.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        _refuse(Reason.EXPECTATION_FAILED, "The only expectation served is 100-continue.")
    host, name = _host(fields.get(b"host"))
    return Head(
        method,
        target,
        path,
        query,
        headers,
        fields,
        host,
        name,
        length,
        legacy or _closes(fields),
        expectation is not None and not legacy,
        legacy,
    )


def check_unfinished(raw: bytearray, seen: int, limits: HeadLimits) -> None:
    """Refuse the beginning of a head that cannot become one any more, so that nobody waits for its end.

    The first `seen` bytes were checked before. Raises `Refused`.
    """
    if _STRAY.search(raw, max(0, seen - 1)) is not None:
        _malformed()
    end = raw.find(b"\r\n")
    if seen < end + 2 or end < 0:
        if UNFINISHED_LINE.fullmatch(raw, 0, end if end >= 0 else len(raw)) is None:
            _malformed()
        if end < 0 and len(raw) > limits.target + _LINE_BESIDES_TARGET:
            _refuse(Reason.TARGET_TOO_LONG, f"Send a target of at most {limits.target} bytes.")
    if len(raw) > limits.target + limits.total:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.total} bytes of header fields.")


def _refuse(reason: Reason, detail: str) -> NoReturn:
    raise Refused(reason, detail)


def _malformed() -> NoReturn:
    _refuse(Reason.MALFORMED_REQUEST, "Send well-formed HTTP/1.1 (RFC 9112).")


def _request_line(line: bytes) -> tuple[str, str, bool]:
    found = LINE.fullmatch(line)
    if found is None:
        _malformed()
    method, target, minor = found.groups()
    text = method.decode()
    if text not in METHODS:
        _refuse(Reason.METHOD_NOT_SUPPORTED, "Use one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS.")
    return text, target.decode("latin-1"), minor == b"0"


def _fields(lines: list[bytes], limits: HeadLimits) -> tuple[tuple[Header, ...], dict[bytes, bytes]]:
    if len(lines) > limits.fields:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.fields} header fields.")
    text = b"".join(lines)
    if len(text) > limits.field and max(map(len, lines)) > limits.field:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.field} bytes in one header field.")
    if len(text) + 2 * len(lines) > limits.total:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.total} bytes of header fields.")
    parts = [line.partition(b":") for line in lines]
    names = b"".join([name + colon + b"\n" for name, colon, _ in parts]).lower()
    if NAMES.fullmatch(names) is None:
        check_names(names)
    headers = tuple([(name, value.strip(b" \t")) for name, _, value in parts])
    if text.translate(None, ASCII_VALUES):
        check_values(headers)
    fields = dict(zip(names.split(b":\n"), [value for _, value in headers], strict=False))
    if len(fields) != len(headers):
        fields = _joined(headers)
    if not _REFUSED_FIELDS.keys().isdisjoint(fields):
        _refuse(*next(refusal for name, refusal in _REFUSED_FIELDS.items() if name in fields))
    return headers, fields


def _joined(headers: tuple[Header, ...]) -> dict[bytes, bytes]:
    """The fields of a head in which one comes twice."""
    fields: dict[bytes, bytes] = {}
    for spelled, value in headers:
        name = spelled.lower()
        if name not in fields:
            fields[name] = value
        elif name in _LISTS:
            fields[name] += b", " + value
        elif name == b"host":
            _refuse(Reason.HOST_INVALID, "Send exactly one Host field.")
        else:
            _refuse(Reason.HEADER_INVALID, "Send each header field once, lists such as Accept excepted.")
    return fields


def _length(fields: Mapping[bytes, bytes], *, legacy: bool) -> int | None:
    """RFC 9112 section 6.3, without the cases that senders and receivers disagree about."""
    coding = fields.get(b"transfer-encoding")
    declared = fields.get(b"content-length")
    if coding is not None:
        if legacy or declared is not None or coding.lower() != b"chunked":
            _refuse(Reason.MALFORMED_REQUEST, "Frame the body by Content-Length, or by exactly one chunked coding.")
        return None
    if declared is None:
        return 0
    if not declared.isdigit() or len(declared) > 16:
        _refuse(Reason.MALFORMED_REQUEST, "Give the Content-Length as one decimal number.")
    return int(declared)


def _closes(fields: Mapping[bytes, bytes]) -> bool:
    value = fields.get(b"connection")
    if value is None:
        return False
    options = {option.strip(b" \t") for option in value.lower().split(b",")}
    if not options <= {b"close", b"keep-alive"}:
        _refuse(Reason.HEADER_INVALID, "Connection may name close or keep-alive, and nothing else.")
    return b"close" in options


@lru_cache(maxsize=1024)
def _host(value: bytes | None) -> tuple[str, str]:
    """Judged once per spelling: a client's Host is the same in every request."""
    found = None if value is None or len(value) > 260 else _HOST.fullmatch(value.lower())
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
        _refuse(Reason.HOST_INVALID, "Send one Host field with a host name and, if need be, a port.")
    host = found[1].decode("ascii")
    try:
        if host[0] == "[":
            ipaddress.IPv6Address(host[1:-1])
        elif host.rpartition(".")[2].isdigit():
            ipaddress.IPv4Address(host)
        elif _LABEL_EDGE.search(host) or host.rpartition(".")[2].startswith("0x"):
            raise ValueError
    except ValueError:
        _refuse(Reason.HOST_INVALID, "Send a valid host name or IP address in the Host field.")
    return found[0].decode("ascii"), host
