"""What names and values of header fields and targets may be made of: one meaning for each, whoever reads it next.

What RFC 9110 leaves room for is let in where nothing behind us can take it for something else. It never reaches what
frames a message or says who calls: a name that looks like one of those fields is refused however it is spelled, such a
field has no value beyond ASCII, and no path may lead elsewhere once somebody normalises it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Set
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from gateway.pure.errors import Reason, Refused
from gateway.pure.http import Header, is_forwarded
from gateway.pure.queries import parameters

LINE = re.compile(rb"([A-Z]{1,32}) ([!-~\x80-\xff]+) HTTP/1\.([01])")
UNFINISHED_LINE = re.compile(rb"[A-Z]{1,32}(?: [!-~\x80-\xff]*+(?: [!-~]{0,8})?)?\r?")
NAMES = re.compile(rb"(?:[a-z0-9]++(?:-[a-z0-9]++)*+:\n)*+")
"""All names of a head at once, in lower case: letters, digits and single hyphens."""
ASCII_VALUES = bytes([0x09, *range(0x20, 0x7F)])

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_NO_WORD = re.compile(rb"[^a-z0-9]+")
_REGISTERED = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-signature", b"api-key",
    b"authentication-info", b"authorization", b"baggage", b"cache-control", b"content-digest", b"content-disposition",
    b"content-encoding", b"content-language", b"content-location", b"content-md5", b"content-range", b"content-type",
    b"cookie", b"date", b"digest", b"dpop", b"http2-settings", b"idempotency-key", b"if-match", b"if-modified-since",
    b"if-none-match", b"if-range", b"if-unmodified-since", b"last-event-id", b"link", b"max-forwards", b"origin",
    b"pragma", b"prefer", b"priority", b"range", b"referer", b"repr-digest", b"signature", b"signature-input",
    b"user-agent", b"via", b"want-content-digest", b"www-authenticate", b"x-api-key", b"x-http-method",
    b"x-http-method-override", b"x-idempotency-key", b"x-method-override",
})  # fmt: skip
"""Fields that pass, and whose meaning is not only the caller's and the service's to agree on."""

_PCHAR = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN_PATH = re.compile(rf"/|(?:/[{_PCHAR.replace('.', '')}][{_PCHAR}]*+)++/?")
_SEGMENT = re.compile(rf"(?:[{_PCHAR}]|%[0-9A-Fa-f]{{2}})*+")
_QUERY = re.compile(rf"(?:[{_PCHAR};/?\[\]]|%[0-9A-Fa-f]{{2}})*+")
_NOT_OF_A_QUERY = re.compile(rf"%(?![0-9A-Fa-f]{{2}})|[^{_PCHAR};/?\[\]%]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROLS = frozenset([*range(0x20), 0x7F])
_BREAKS = frozenset(b"\t\n\r")
_ALPHANUMERIC = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NEVER_ESCAPED_IN_PATH = (_CONTROLS - _BREAKS) | _ALPHANUMERIC | frozenset(b"-._~/\\;?#%")
_NEVER_ESCAPED_IN_QUERY = _CONTROLS | _ALPHANUMERIC
_INNER_BREAK = re.compile(r"(?<=[^\s/])[\t\n\r](?=[^\s/:][^:]*\Z)")
"""One tab or line break between visible characters, of which nothing behind can become a header field."""
_NO_UTF8 = re.compile(rb"[\xc0\xc1\xf5-\xff]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]")
"""Overlong forms, in which an ASCII character hides, and bytes that no UTF-8 has (RFC 3629 section 3)."""
_DELIMITERS = frozenset("\u2044\u2215\u2571\u29f8\u2216\u2572\u29f5")
"""What looks like a slash, either way, and stays what it is in NFKC."""


def _refuse(reason: Reason, detail: str) -> NoReturn:
    raise Refused(reason, detail)


# --- fields ----------------------------------------------------------------------------------------------------------


def check_names(names: bytes) -> None:
    """Names in lower case, each followed by a colon and a line feed, of which not all match `NAMES`. Raises `Refused`.

    A token (RFC 9110 section 5.1) may be the name of a field that passes, unless folding it, as CGI does and some
    gateways do, makes it the name of another field: one of the same head, or one that means something to others.
    """
    *spelled, rest = names.split(b":\n")
    if rest:
        _refuse(Reason.HEADER_INVALID, "Send header fields as a name, a colon and a value, on one line ended by CRLF.")
    folded = {name: folded_name(name) for name in spelled}
    for name, plain in folded.items():
        if _TOKEN.fullmatch(name) is None:
            _refuse(Reason.HEADER_INVALID, "Name header fields by tokens of RFC 9110.")
        if plain != name and (not is_forwarded(plain) or plain in _REGISTERED or not plain):
            _refuse(Reason.HEADER_INVALID, "Spell the names of header fields as they are registered.")
    if len(set(folded.values())) != len(folded):
        _refuse(Reason.HEADER_INVALID, "Send no two header fields whose names differ in punctuation only.")


def folded_name(name: bytes) -> bytes:
    """A name in lower case as those see it who take all that is no letter and no digit for a hyphen, as CGI does."""
    return _NO_WORD.sub(b"-", name).strip(b"-")


def check_values(headers: Iterable[Header]) -> None:
    """Values not all of which are printable ASCII: text in UTF-8, of fields that nobody else acts on. Raises `Refused`.

    What is beyond ASCII is opaque (RFC 9110 section 5.5) and passes byte for byte.
    """
    for name, value in headers:
        if value.translate(None, ASCII_VALUES):
            lower = name.lower()
            if not is_forwarded(lower) or lower in _REGISTERED:
                _refuse(Reason.HEADER_INVALID, "Send this header field in printable ASCII.")
            try:
                text = value.decode()
            except UnicodeDecodeError:
                _refuse(Reason.HEADER_INVALID, "Send header fields in printable ASCII, or in UTF-8.")
            if _CONTROL.search(text) is not None:
                _refuse(Reason.HEADER_INVALID, "Send header fields without control characters.")


# --- targets ---------------------------------------------------------------------------------------------------------


def split_target(target: str) -> tuple[str, str, str]:
    """The target (bytes as Latin-1) in its one spelling, its path and its query. Raises `Refused`.

    What must be percent-encoded and was not, is: text in UTF-8 beyond ASCII (RFC 3987 section 3.1), and in the query
    whatever has no place there (RFC 3986 section 3.4). All that is read, matched and sent on is that spelling.
    """
    path, mark, query = target.partition("?")
    if _PLAIN_PATH.fullmatch(path) is None:
        if not path.isascii():
            path = _NOT_ASCII.sub(_escaped, path)
            target = path + mark + query
        _check_path(path)
    if query:
        if _QUERY.fullmatch(query) is None:
            query = _NOT_OF_A_QUERY.sub(_escaped, query)
            target = path + mark + query
        _check_query(query)
    return target, path, query


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _check_path(path: str) -> None:
    """A path that is not plain may still be canonical: `/.well-known/x`, `/caf%C3%A9`."""
    *inner, last = path.split("/")
    segments = [*inner[1:], last]
    if not inner or inner[0] or "" in inner[1:] or not all(_SEGMENT.fullmatch(s) for s in segments):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path in origin form, without empty segments or raw delimiters.")
    if "." in segments or ".." in segments:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path without dot segments.")
    if "%" in path:
        _check_text(path)


def _check_text(path: str) -> None:
    """What the escapes of a path stand for."""
    _check_escapes(path, _NEVER_ESCAPED_IN_PATH)
    try:
        text = _INNER_BREAK.sub("", unquote_to_bytes(path).decode())
    except UnicodeDecodeError:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode text as UTF-8.")
    if not text.isprintable() or unicodedata.normalize("NFKC", text) != text or not _DELIMITERS.isdisjoint(text):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send visible characters in their composed form (NFKC) in the path.")
    if any(segment.strip(" ") != segment or unicodedata.combining(segment[:1] or "a") for segment in text.split("/")):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Begin and end no segment of the path with a space or an accent.")


def _check_query(query: str) -> None:
    if "%" in query:
        _check_escapes(query, _NEVER_ESCAPED_IN_QUERY)
        if _NO_UTF8.search(unquote_to_bytes(query)) is not None:
            _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode text as UTF-8.")
    if any(name == "access_token" for name, _ in parameters(query)):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send access tokens in the Authorization field only (RFC 6750).")


def _check_escapes(text: str, forbidden: Set[int]) -> None:
    if any(int(digits, 16) in forbidden for digits in _ESCAPE.findall(text)):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Percent-encode only what must be, and no control characters.")
