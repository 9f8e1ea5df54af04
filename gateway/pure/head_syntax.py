"""What a request line and field names and values may be made of: one spelling for each meaning, or, where an operator
says so, what RFC 9110 leaves room for.

What is tolerated never reaches what frames a message or says who calls: a name that looks like one of those fields is
refused however it is spelled, and no path may lead elsewhere once somebody behind us normalises it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Literal, NoReturn
from urllib.parse import unquote_to_bytes

from gateway.pure.errors import Reason, Refused
from gateway.pure.http import is_forwarded

Deviation = Literal["field-names", "field-values", "targets"]

_PCHAR = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN_PATH = re.compile(rf"/|(?:/[{_PCHAR.replace('.', '')}][{_PCHAR}]*+)++/?")
_SEGMENT = re.compile(rf"(?:[{_PCHAR}]|%[0-9A-Fa-f]{{2}})*+")
_QUERY = re.compile(rf"(?:[{_PCHAR}/?\[\]]|%[0-9A-Fa-f]{{2}})*+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_CONTROLS = frozenset([*range(0x20), 0x7F])
_ALPHANUMERIC = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NEVER_ESCAPED_IN_PATH = _CONTROLS | _ALPHANUMERIC | frozenset(b"-._~/\\;?#%")
_NEVER_ESCAPED_IN_QUERY = _CONTROLS | _ALPHANUMERIC
_DELIMITERS = frozenset("\u2044\u2215\u2571\u29f8\u2216\u2572\u29f5")
"""What looks like a slash, either way, and stays what it is in NFKC."""

_STRICT_NAMES = re.compile(rb"(?:[a-z0-9]++(?:-[a-z0-9]++)*+:\n)*+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_NO_WORD = re.compile(rb"[^a-z0-9]+")
_ASCII_VALUES = bytes([0x09, *range(0x20, 0x7F)])
_ABOUT_NAMES = "Name header fields with letters, digits and single hyphens only."


@dataclass(frozen=True, slots=True)
class Syntax:
    """Compiled once for a listener. `names` matches all names of a head at once; where it does not, `check_names`
    decides, name by name. `line` and `unfinished_line` are the request line and a beginning of one.
    """

    line: re.Pattern[bytes]
    unfinished_line: re.Pattern[bytes]
    names: re.Pattern[bytes]
    check_names: Callable[[bytes], None]
    values: bytes
    about_values: str
    split_target: Callable[[str], tuple[str, str]]


def syntax(tolerated: Set[Deviation] = frozenset()) -> Syntax:
    """The strict one, but for what is tolerated."""
    visible = rb"!-~" if "targets" not in tolerated else rb"!-~\x80-\xff"
    values = _ASCII_VALUES + bytes(range(0x80, 0x100)) if "field-values" in tolerated else _ASCII_VALUES
    text = "without control characters" if "field-values" in tolerated else "in printable ASCII"
    return Syntax(
        line=re.compile(rb"([A-Z]{1,32}) ([%b]+) HTTP/1\.([01])" % visible),
        unfinished_line=re.compile(rb"[A-Z]{1,32}(?: [%b]*+(?: [!-~]{0,8})?)?\r?" % visible),
        names=_STRICT_NAMES,
        check_names=_check_tokens if "field-names" in tolerated else _refuse_names,
        values=values,
        about_values=f"Send header fields {text}, each on one line ended by CRLF.",
        split_target=split_any_target if "targets" in tolerated else split_target,
    )


def _refuse(reason: Reason, detail: str) -> NoReturn:
    raise Refused(reason, detail)


# --- names -----------------------------------------------------------------------------------------------------------


def _refuse_names(_: bytes) -> NoReturn:
    _refuse(Reason.HEADER_INVALID, _ABOUT_NAMES)


def _check_tokens(names: bytes) -> None:
    """Any token (RFC 9110 section 5.1), unless folding it as gateways behind us do makes it one that we act on."""
    for name in names.split(b":\n")[:-1]:
        if _TOKEN.fullmatch(name) is None:
            _refuse(Reason.HEADER_INVALID, "Name header fields by tokens of RFC 9110.")
        folded = _NO_WORD.sub(b"-", name).strip(b"-")
        if folded != name and not is_forwarded(folded):
            _refuse(Reason.HEADER_INVALID, "Spell the names of header fields as they are registered.")


# --- targets ---------------------------------------------------------------------------------------------------------


def split_any_target(target: str) -> tuple[str, str]:
    """Path and query of a target that begins with a slash, its bytes as they are. Raises `Refused`.

    A path that somebody behind us could take for another one is refused all the same.
    """
    path, _, query = target.partition("?")
    plain = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    segments = plain.split("/")
    if not path.startswith("/") or "" in segments[1:-1] or not {".", ".."}.isdisjoint(segments):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path in origin form, without empty or dot segments.")
    if _HIDDEN.search(path) is not None or plain.count("/") != path.count("/") or "\\" in plain or "\0" in plain:
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send the path without escaped delimiters, backslashes and fragments.")
    return path, query


_HIDDEN = re.compile(r"[#;]|%(?![0-9A-Fa-f]{2})|%25|%2[eE]")


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a target in its one spelling. Raises `Refused`."""
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
    if not text.isprintable() or unicodedata.normalize("NFKC", text) != text or not _DELIMITERS.isdisjoint(text):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Send visible characters in their composed form (NFKC) in the path.")
    if any(segment.strip(" ") != segment or unicodedata.combining(segment[:1] or "a") for segment in text.split("/")):
        _refuse(Reason.TARGET_NOT_CANONICAL, "Begin and end no segment of the path with a space or an accent.")


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


STRICT = syntax()
"""What a listener takes where nothing else is said."""
