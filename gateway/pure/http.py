"""HTTP/1.1 as bytes: what of a request's head is sent on, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import lru_cache
from http import HTTPStatus

Header = tuple[bytes, bytes]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BODILESS_STATUS = frozenset({204, 304})

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}
)
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"host", b"expect", b"forwarded", b"x-real-ip", b"x-request-id", b"x-request-deadline", b"traceparent",
    b"tracestate", b"true-client-ip", b"cf-connecting-ip", b"fastly-client-ip", b"x-cluster-client-ip",
    b"x-xfcc", b"x-role", b"x-user", b"x-user-id", b"x-username", b"x-userinfo", b"x-roles", b"x-scopes", b"x-tenant",
    b"x-credential-identifier", b"x-anonymous-consumer",
}  # fmt: skip
_NOT_FORWARDED_PREFIXES = (
    b"proxy-", b"pangate-", b"x-pangate-", b"x-forwarded-", b"x-gateway-", b"client-cert", b"x-client-", b"ssl-",
    b"x-ssl-", b"x-tls-", b"tls-client-", b"x-mtls-", b"x-envoy-", b"remote-", b"x-remote-", b"x-auth-request-",
    b"x-auth-user", b"x-auth-subject", b"x-auth-email", b"x-auth-roles", b"x-auth-groups", b"x-authenticated-",
    b"x-webauth-", b"x-jwt-", b"x-consumer-", b"x-ms-client-principal", b"x-goog-authenticated-user-", b"x-goog-iap-",
    b"x-amzn-oidc-", b"x-amzn-mtls-", b"cf-access-", b"x-original-", b"x-rewrite-", b"x-originating-",
)  # fmt: skip
"""By these, and by the fields above, proxies tell services who calls (RFC 9440, and what others do without one)."""
_NOT_ANSWERED = _HOP_BY_HOP | {b"server", b"x-powered-by", b"x-request-id", b"forwarded", b"alt-svc"}
_NOT_ANSWERED_PREFIXES = (b"proxy-", b"pangate-", b"x-pangate-", b"x-forwarded-", b"x-gateway-", b"x-accel-")

DIGESTS = frozenset({b"content-digest", b"repr-digest", b"digest", b"content-md5"})
"""Fields about the very bytes of a body (RFC 9530): they are wrong once a byte of it was replaced."""

UNCODED = b"Accept-Encoding: identity"
"""The whole line that asks for no content coding: without it any would be as welcome (RFC 9110 section 12.5.3)."""

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


_DNS = "dns:"
_XFCC_DELIMITERS = frozenset(',;="')
_NAMES_REMEMBERED = 4096
_CALLERS_REMEMBERED = 4096


@lru_cache(_NAMES_REMEMBERED)
def is_forwarded(name: bytes) -> bool:
    """Does a client's field of this name reach the upstream? Not if it frames, nominates, or says who calls."""
    lower = name.lower()
    return lower not in _NOT_FORWARDED and not lower.startswith(_NOT_FORWARDED_PREFIXES)


@lru_cache(_NAMES_REMEMBERED)
def _is_answered(name: bytes) -> bool:
    lower = name.lower()
    return lower not in _NOT_ANSWERED and not lower.startswith(_NOT_ANSWERED_PREFIXES)


def request_head(
    method: str, target: str, headers: Sequence[Header], *, drop: Set[bytes], add: Sequence[bytes]
) -> bytes:
    """Request line and fields for the upstream, each with CRLF, without framing and closing line.

    Hop-by-hop fields, fields that claim an identity, and those in `drop` (lower case) are left out; `add` are whole
    lines to append. Raises ValueError if a line would break out of its place.
    """
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    lines += [n + b": " + v for n, v in headers if is_forwarded(n) and not (drop and n.lower() in drop)]
    lines += add
    return _joined(lines)


@lru_cache(_CALLERS_REMEMBERED)
def caller_fields(
    tenant: str, principal: str, address: str, host: str, scheme: str, san: str = "", fingerprint: bytes = b""
) -> list[bytes]:
    """What our own services are told of the caller, as whole lines: RFC 7239, and who we found it to be.

    `san` and `fingerprint` (SHA-256) are of the certificate that a rule vouched for, if one did: they are told as Envoy
    does (`X-Forwarded-Client-Cert`).
    """
    node = f"[{address}]" if ":" in address else address
    told = [
        b"Pangate-Tenant: " + tenant.encode("unicode_escape"),
        f'Forwarded: for="{node}";host="{host}";proto={scheme}'.encode(),
    ]
    if principal:
        told.append(b"Pangate-Subject: " + principal.encode("unicode_escape"))
    if fingerprint:
        told.append(b"X-Forwarded-Client-Cert: Hash=" + fingerprint.hex().encode() + b";" + _xfcc_name(san).encode())
    return told


def _xfcc_name(san: str) -> str:
    kind, name = ("DNS", san.removeprefix(_DNS)) if san.startswith(_DNS) else ("URI", san)
    if not _XFCC_DELIMITERS.isdisjoint(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{kind}={name}"


def response_headers(headers: Sequence[Header]) -> list[Header]:
    """The fields of an upstream's response that may pass to the client.

    Hop-by-hop and framing fields (also those that its Connection field names, RFC 9110 section 7.6.1), what only the
    gateway may say, and what tells about the inside are left out.
    """
    passed = [field for field in headers if _is_answered(field[0])]
    nominated = {
        option.strip(b" \t").lower()
        for name, value in headers
        if len(name) == len(b"connection") and name.lower() == b"connection"
        for option in value.split(b",")
    }
    return [field for field in passed if field[0].lower() not in nominated] if nominated else passed


def chunk(piece: bytes) -> bytes:
    """A piece of a chunked body; no bytes are no chunk (RFC 9112 section 7.1: an empty one would end the body)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


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
