"""Idempotency keys: how they are written, what a request is to them, and the response as it is kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from gateway.pure.errors import Reason, Refused
from gateway.pure.http import Header

KEY_CHARACTERS_MAX = 255

_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")

_KEPT_HEADERS = frozenset(
    (
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-type",
        b"etag",
        b"last-modified",
        b"link",
        b"location",
        b"request-id",
        b"vary",
    )
)
"""What belongs to the response itself. Cookies, challenges, credentials and framing belong to one exchange."""


def read_key(text: str) -> str:
    """The key in its header field, bare or as a string of RFC 9651 section 3.3.3.

    1 to 255 visible ASCII characters; both spellings are the same key. Raises `Refused`.
    """
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if _VISIBLE.fullmatch(text) is None:
        detail = f"Send one idempotency key of 1 to {KEY_CHARACTERS_MAX} visible ASCII characters, such as a UUID."
        raise Refused(Reason.IDEMPOTENCY_KEY_INVALID, detail)
    return text


def scope(secret: bytes, principal: str, route: str, key: str) -> bytes:
    """Under what a key is claimed: nobody meets another caller's key, and a stolen table names nobody."""
    return _mac(secret, b"scope", (principal.encode("utf-8", "surrogatepass"), route.encode(), key.encode()))


def downstream_key(secret: bytes, stem: bytes) -> str:
    """The key that the upstream gets in place of the caller's: 32 hexadecimal digits, the same for the same `stem`.

    Two callers that chose the same key do not meet at the upstream either.
    """
    return _mac(secret, b"downstream", (stem,))[:16].hex()


def fingerprint(secret: bytes, method: str, path: str, query: str, media_type: str, body: bytes) -> bytes:
    """What the request is, apart from its key; `body` as canonical as its media type allows.

    Keyed, because the body may hold a card number: a plain hash of one can be searched (PCI DSS 3.5.1.1).
    """
    pairs = "&".join(sorted(query.split("&"), key=lambda pair: pair.partition("=")[0]))  # those of one name are a list
    return _mac(secret, b"fingerprint", (*(text.encode() for text in (method, path, pairs, media_type)), body))


def _mac(secret: bytes, label: bytes, parts: Iterable[bytes]) -> bytes:
    mac = hmac.new(secret, label, "sha256")
    for part in parts:
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return mac.digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """A response as it is kept. `body` None: it was too large, and is gone; `digest` then is its, if it was known."""

    status: int
    headers: tuple[Header, ...] = field(repr=False)
    body: bytes | None = field(repr=False)
    digest: str | None = None


def content_digest(body: bytes) -> str:
    """As the value of Content-Digest (RFC 9530 section 2)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def kept_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The fields of a response that are kept with it."""
    return tuple((name, value) for name, value in headers if name.lower() in _KEPT_HEADERS)


def encode(kept: Kept) -> bytes:
    """A line of JSON, then the body byte for byte."""
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in kept.headers]
    head = {"status": kept.status, "headers": headers, "body": "omitted" if kept.body is None else "follows"}
    if kept.digest is not None:
        head["digest"] = kept.digest
    return orjson.dumps(head) + b"\n" + (kept.body or b"")


def decode(record: bytes) -> Kept:
    """The inverse of `encode`."""
    line, _, body = record.partition(b"\n")
    head = orjson.loads(line)
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"])
    return Kept(head["status"], headers, None if head["body"] == "omitted" else body, head.get("digest"))
