"""A request as people hand it on: a line for curl, read without running anything."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_plus, urlsplit

_SILENT = frozenset({
    "-s", "--silent", "-S", "--show-error", "-v", "--verbose", "-i", "--include", "-f", "--fail", "--fail-with-body",
    "-k", "--insecure", "--http1.1", "-N", "--no-buffer", "--path-as-is", "-#", "--progress-bar", "-4", "-6", "-q",
})  # fmt: skip
"""Options that change nothing of the request."""
_SILENT_WITH_VALUE = frozenset({
    "-o", "--output", "-w", "--write-out", "--cacert", "--key", "-m", "--max-time", "--connect-timeout", "--retry",
    "--resolve", "--connect-to",
})  # fmt: skip
_WITH_VALUE = {
    "-X": "method", "--request": "method", "-H": "header", "--header": "header", "-d": "data", "--data": "data",
    "--data-ascii": "data", "--data-raw": "raw", "--data-binary": "binary", "--data-urlencode": "urlencode",
    "--json": "json", "-u": "user", "--user": "user", "-E": "certificate", "--cert": "certificate", "-A": "client",
    "--user-agent": "client", "-e": "referer", "--referer": "referer", "-b": "cookie", "--cookie": "cookie",
    "--url": "url", "--oauth2-bearer": "bearer",
}  # fmt: skip
_WITHOUT_VALUE = {"-G": "get", "--get": "get", "-I": "head", "--head": "head", "--compressed": "compressed"}
_FORM = "application/x-www-form-urlencoded"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

ReadFile = Callable[[str], bytes]


class Destination(NamedTuple):
    """Where a URL leads: the host with its port as it is written, the port, the target of the request line."""

    authority: str
    host: str
    port: int
    target: str


@dataclass(slots=True)
class Asked:
    """A request. `certificate` is the path of the client certificate; values may be secrets."""

    url: str = ""
    method: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    body: bytes | None = field(default=None, repr=False)
    certificate: str | None = None

    def destination(self) -> Destination:
        """Raises ValueError for what is no URL of HTTP."""
        split = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        if split.scheme not in ("http", "https") or not split.hostname or "@" in split.netloc:
            raise ValueError("expected an address such as https://localhost:8443/v1/payments")
        target = (split.path or "/") + (f"?{split.query}" if split.query else "")
        port = split.port or (443 if split.scheme == "https" else 80)
        return Destination(split.netloc, split.hostname, port, target)

    def head(self) -> bytes:
        """Request line and fields with their CRLF, without the empty line. Raises ValueError."""
        to = self.destination()
        given = {name.lower() for name, _ in self.headers}
        own = [("Host", to.authority)] if "host" not in given else []
        length = [("Content-Length", str(len(self.body)))] if self.body is not None else []
        framing = {"content-length", "transfer-encoding"}
        fields = [*own, *(f for f in self.headers if f[0].lower() not in framing), *length]
        method = self.method or ("GET" if self.body is None else "POST")
        lines = [f"{method} {to.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        if any(_CONTROL.search(line.replace("\t", " ")) for line in lines):
            raise ValueError("a request line or a header field holds a control character")
        return "".join(f"{line}\r\n" for line in lines).encode()


def read_curl(line: str, read_file: ReadFile) -> Asked:
    """The request that a curl line would send; `read_file` reads what `@FILE` names.

    Raises ValueError with a sentence, also for options that are not understood: they may change the request.
    """
    try:
        words = shlex.split(line.replace("\\\n", " "))
    except ValueError as error:
        raise ValueError(f"the curl line cannot be split into words: {error}") from None
    if words[:1] == ["curl"]:
        del words[0]
    asked, data, flags = Asked(), _Data(read_file), set()
    for name, value in _options(words):
        if name == "url":
            if asked.url:
                raise ValueError("give one address")
            asked.url = value
        elif name in ("get", "head", "compressed"):
            flags.add(name)
        elif not data.takes(name, value):
            _take(asked, name, value)
    return _finished(asked, data, flags)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The meaning of each option, and its value."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            yield "url", word
            continue
        name, attached, value = _split(word)
        if name in _WITHOUT_VALUE and not attached:
            yield _WITHOUT_VALUE[name], ""
        elif name in _WITH_VALUE or name in _SILENT_WITH_VALUE:
            given = value if attached else next(rest, None)
            if given is None:
                raise ValueError(f"curl: {name} needs a value")
            if name in _WITH_VALUE:
                yield _WITH_VALUE[name], given
        elif name not in _SILENT or attached:
            raise ValueError(f"curl: the option {name} is not understood here")


def _split(word: str) -> tuple[str, bool, str]:
    """`-XPOST` and `--json=x` hold their value; of several short options in one word only silent ones are known."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, bool(equals), value
    if len(word) > 2 and all(f"-{letter}" in _SILENT for letter in word[1:]):
        return word[:2], False, ""
    return word[:2], len(word) > 2, word[2:]


def _take(asked: Asked, name: str, value: str) -> None:
    if name == "method":
        asked.method = value
    elif name == "header":
        called, colon, text = value.partition(":")
        if not colon:
            raise ValueError("curl: -H is written NAME: VALUE")
        asked.headers.append((called, text.strip()))
    elif name == "certificate":
        asked.certificate = value.partition(":")[0]
    elif name == "user":
        asked.headers.append(("Authorization", f"Basic {base64.b64encode(value.encode()).decode()}"))
    elif name == "bearer":
        asked.headers.append(("Authorization", f"Bearer {value}"))
    else:
        called = {"client": "User-Agent", "referer": "Referer", "cookie": "Cookie"}[name]
        asked.headers.append((called, value))


class _Data:
    """The pieces of a body, as curl joins them."""

    def __init__(self, read_file: ReadFile) -> None:
        self._read = read_file
        self.pieces: list[bytes] = []
        self.media_type = ""

    def takes(self, name: str, value: str) -> bool:
        if name not in ("data", "raw", "binary", "urlencode", "json"):
            return False
        if name == "json":
            self.media_type = "application/json"
        elif not self.media_type:
            self.media_type = _FORM
        if name == "urlencode":
            called, equals, text = value.partition("=")
            piece = f"{called}={quote_plus(text)}" if equals and called else quote_plus(text if equals else value)
            self.pieces.append(piece.encode())
        elif value.startswith("@") and name != "raw":
            content = self._read(value[1:])
            self.pieces.append(content.replace(b"\r", b"").replace(b"\n", b"") if name == "data" else content)
        else:
            self.pieces.append(value.encode())
        return True

    def body(self) -> bytes | None:
        joint = b"" if self.media_type == "application/json" else b"&"
        return joint.join(self.pieces) if self.pieces else None


def _finished(asked: Asked, data: _Data, flags: set[str]) -> Asked:
    if not asked.url:
        raise ValueError("the curl line has no address")
    given = {name.lower() for name, _ in asked.headers}
    body = data.body()
    if body is not None and "get" in flags:
        asked.url += ("&" if "?" in asked.url else "?") + body.decode()
    elif body is not None:
        asked.body = body
        defaults = [("Content-Type", data.media_type)]
        if data.media_type == "application/json":
            defaults.append(("Accept", "application/json"))
        asked.headers += [(name, value) for name, value in defaults if name.lower() not in given]
    if "head" in flags:
        asked.method = asked.method or "HEAD"
    if "compressed" in flags:
        asked.headers.append(("Accept-Encoding", "gzip"))
    if "accept" not in {name.lower() for name, _ in asked.headers}:
        asked.headers.append(("Accept", "*/*"))
    # curl leaves out a header that is given without a value
    asked.headers = [(name, value) for name, value in asked.headers if value]
    return asked
