"""HTTP/1.1 as bytes: which heads are let in, what is sent on, what is answered.

A head is judged once, before anything else happens, and what passed is forwarded byte for byte. It is held to more
than RFC 9110 and 9112 ask: one spelling for each target, one meaning for each field (RFC 3986 section 6.2).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from gateway.pure.errors import Reason, Refused

Header = tuple[bytes, bytes]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_BODILESS_STATUS = frozenset({204, 304})

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}
)
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"host", b"expect", b"forwarded", b"x-real-ip", b"x-request-id", b"traceparent", b"tracestate",
    b"true-client-ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-cluster-client-ip", b"x-original-url",
    b"x-original-host", b"x-rewrite-url", b"x-xfcc",
}  # fmt: skip
_NOT_FORWARDED_PREFIXES = (
    b"proxy-", b"pangate-", b"x-pangate-", b"x-forwarded-", b"x-gateway-", b"client-cert", b"x-client-",
    b"x-ssl-client", b"ssl-client", b"x-envoy-",
)  # fmt: skip
_NOT_ANSWERED = _HOP_BY_HOP | {b"server", b"x-powered-by", b"x-request-id", b"forwarded", b"alt-svc"}
_NOT_ANSWERED_PREFIXES = (b"proxy-", b"pangate-", b"x-pangate-", b"x-forwarded-", b"x-gateway-", b"x-accel-")

_REPEATABLE = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"baggage", b"cache-control", b"connection",
    b"forwarded", b"if-match", b"if-none-match", b"link", b"pragma", b"prefer", b"traceparent", b"tracestate", b"via",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
})  # fmt: skip
"""The fields that are lists, and may come on more than one line. `traceparent` has a rule of its own."""

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

_NAMES = re.compile(rb"(?:[a-z0-9]++(?:-[a-z0-9]++)*+\n)*+")
_VALUE_BYTES = bytes([0x09, *range(0x20, 0x7F)])
_HOST = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::([0-9]{1,5}))?")
_LABEL_EDGE = re.compile(r"(?:^|\.)-|-(?:\.|$)")

_PCHAR = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN_PATH = re.compile(rf"/|(?:/[{_PCHAR.replace('.', '')}][{_PCHAR}]*+)++/?")
_SEGMENT = re.compile(rf"(?:[{_PCHAR}]|%[0-9A-Fa-f]{{2}})*+")
_QUERY = re.compile(rf"(?:[{_PCHAR}/?\[\]]|%[0-9A-Fa-f]{{2}})*+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_CONTROLS = frozenset([*range(0x20), 0x7F])
_ALPHANUMERIC = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NEVER_ESCAPED_IN_PATH = _CONTROLS | _ALPHANUMERIC | frozenset(b"-._~/\\;?#%")
_NEVER_ESCAPED_IN_QUERY = _CONTROLS | _ALPHANUMERIC

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """Bytes of the request target, of one field line, of the whole header section; number of fields."""

    target: int = 8000
    field: int = 6 * 1024
    total: int = 32 * 1024
    fields: int = 64


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was let in. `length` is None for a chunked body."""

    path: str
    query: str
    host: str
    """The Host field in lower case, with its port if it has one."""
    name: str
    """The host without port, which routes match."""
    length: int | None
    close: bool
    """No further request comes on this connection."""
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        return self.length != 0


def admit(
    method: str, target: str, version: tuple[int, int], headers: Sequence[Header], limits: HeadLimits = HeadLimits()
) -> Head:
    """Judge a parsed head; raises `Refused`.

    `target` is what stood in the request line. The connection must be closed after a refusal: the framing of what
    follows is not to be trusted.
    """
    if version not in ((1, 1), (1, 0)):
        _refuse(Reason.MALFORMED_REQUEST, "Speak HTTP/1.1.")
    if method not in METHODS:
        _refuse(Reason.METHOD_NOT_SUPPORTED, "Use one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS.")
    fields = _fields(headers, limits)
    path, query = _target(target, limits)
    length = _length(fields, version)
    if length != 0 and method in _BODILESS_METHODS:
        _refuse(Reason.BODY_NOT_ALLOWED, "Send this method without a body.")
    expectation = fields.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        _refuse(Reason.EXPECTATION_FAILED, "The only expectation served is 100-continue.")
    host, name = _host(fields.get(b"host"))
    return Head(
        path=path,
        query=query,
        host=host,
        name=name,
        length=length,
        close=_closes(headers, fields) or version == (1, 0),
        expects_continue=expectation is not None and version == (1, 1),
    )


def _refuse(reason: Reason, detail: str) -> NoReturn:
    raise Refused(reason, detail)


def _fields(headers: Sequence[Header], limits: HeadLimits) -> dict[bytes, bytes]:
    """The fields by lower-case name, the last value of those that may repeat."""
    if len(headers) > limits.fields:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.fields} header fields.")
    if any(len(name) + len(value) > limits.field for name, value in headers):
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.field} bytes in one header field.")
    names = [name.lower() for name, _ in headers]
    values = [value for _, value in headers]
    if _NAMES.fullmatch(b"\n".join((*names, b""))) is None:
        _refuse(Reason.HEADER_INVALID, "Name header fields with letters, digits and single hyphens only.")
    text = b"".join(values)
    if text.translate(None, _VALUE_BYTES):
        _refuse(Reason.HEADER_INVALID, "Send printable ASCII in header fields only.")
    if len(text) + sum(map(len, names)) + 4 * len(names) > limits.total:
        _refuse(Reason.HEADERS_TOO_LARGE, f"Send at most {limits.total} bytes of header fields.")
    fields = dict(zip(names, values, strict=True))
    if len(fields) != len(names) and any(names.count(n) > 1 for n in fields.keys() - _REPEATABLE):
        _refuse(Reason.HEADER_INVALID, "Send each header field once, lists such as Accept excepted.")
    for name in fields.keys() & _REFUSED_FIELDS.keys():
        _refuse(*_REFUSED_FIELDS[name])
    return fields


def _length(fields: dict[bytes, bytes], version: tuple[int, int]) -> int | None:
    """RFC 9112 section 6.3, without the cases that senders and receivers disagree about."""
    coding = fields.get(b"transfer-encoding")
    declared = fields.get(b"content-length")
    if coding is not None:
        if version == (1, 0) or declared is not None or coding.lower() != b"chunked":
            _refuse(Reason.MALFORMED_REQUEST, "Frame the body by Content-Length, or by exactly one chunked coding.")
        return None
    if declared is None:
        return 0
    if not declared.isdigit() or len(declared) > 16:
        _refuse(Reason.MALFORMED_REQUEST, "Give the Content-Length as one decimal number.")
    return int(declared)


def _closes(headers: Sequence[Header], fields: dict[bytes, bytes]) -> bool:
    if b"connection" not in fields:
        return False
    options = {
        option.strip(b" \t").lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
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


def _target(target: str, limits: HeadLimits) -> tuple[str, str]:
    if len(target) > limits.target:
        _refuse(Reason.TARGET_TOO_LONG, f"Send a target of at most {limits.target} bytes.")
    path, _, query = target.partition("?")
    if _PLAIN_PATH.fullmatch(path) is None:
        _check_path(path)
    if query:
        _check_query(query)
    return path, query


def _check_path(path: str) -> None:
    """A path that is not plain may still be canonical: `/.well-known/x`, `/caf%C3%A9`."""
    *inner, last = path.split("/")
    segments = [*inner[1:], last]
    if not inner or inner[0] or "" in inner[1:] or not all(_SEGMENT.fullmatch(s) for s in segments):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path in origin form, without empty segments or raw delimiters.")
    if "." in segments or ".." in segments:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path without dot segments.")
    _check_escapes(path, _NEVER_ESCAPED_IN_PATH)
    text = unquote_to_bytes(path).decode()
    if not text.isprintable() or unicodedata.normalize("NFKC", text) != text:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send visible characters in their composed form (NFKC) in the path.")


def _check_query(query: str) -> None:
    if _QUERY.fullmatch(query) is None:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode the query, and separate its parameters by &.")
    _check_escapes(query, _NEVER_ESCAPED_IN_QUERY)
    names = [parameter.partition("=")[0] for parameter in query.split("&") if parameter]
    if "access_token" in names:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send access tokens in the Authorization field only (RFC 6750).")
    single = [name for name in names if not name.endswith(("[]", "%5B%5D", "%5b%5d"))]
    if len(set(single)) != len(single):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send each query parameter once; a list is named with [].")


def _check_escapes(text: str, forbidden: Set[int]) -> None:
    if "%" not in text:
        return
    if any(int(digits, 16) in forbidden for digits in _ESCAPE.findall(text)):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode only what must be, and no control characters.")
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode text as UTF-8.")


def request_head(
    method: str, target: str, headers: Sequence[Header], *, drop: Set[bytes], add: Sequence[Header]
) -> bytes:
    """Request line and fields for the upstream, each with CRLF, without framing and closing line.

    Hop-by-hop fields, fields that claim an identity, and those in `drop` (lower case) are left out; `add` is appended.
    Raises ValueError if a line would break out of its place.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target.encode("ascii"))]
    for name, value in headers:
        lower = name.lower()
        if lower in _NOT_FORWARDED or lower in drop or lower.startswith(_NOT_FORWARDED_PREFIXES):
            continue
        lines.append(name + b": " + value)
    for name, value in add:
        lines.append(name + b": " + value)
    return _joined(lines)


def response_headers(headers: Sequence[Header]) -> list[Header]:
    """The fields of an upstream's response that may pass to the client.

    Hop-by-hop and framing fields (also those that its Connection field names, RFC 9110 section 7.6.1), what only the
    gateway may say, and what tells about the inside are left out.
    """
    passed = []
    nominated: set[bytes] = set()
    for name, value in headers:
        lower = name.lower()
        if lower == b"connection":
            nominated.update(option.strip(b" \t").lower() for option in value.split(b","))
        if lower not in _NOT_ANSWERED and not lower.startswith(_NOT_ANSWERED_PREFIXES):
            passed.append((name, value))
    return [field for field in passed if field[0].lower() not in nominated] if nominated else passed


def has_no_body(method: str, status: int) -> bool:
    """Does the answer end with its head (RFC 9112 section 6.3)?"""
    return method == "HEAD" or status in _BODILESS_STATUS or status < 200


def response_head(
    status: int, headers: Sequence[Header], *, length: int | None, close: bool, chunked: bool = False
) -> bytes:
    """Status line and fields of an answer with the closing line; `length` None for a body without Content-Length.

    Raises ValueError if a line would break out of its place.
    """
    lines = [(_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status)[:-2]]
    lines += [name + b": " + value for name, value in headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if close:
        lines.append(b"Connection: close")
    return _joined(lines) + b"\r\n"


def _joined(lines: list[bytes]) -> bytes:
    lines.append(b"")
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise ValueError("a header field holds a line break")
    return head
