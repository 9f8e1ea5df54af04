"""Recipes of client certificates that end, or are revoked, while their owner is connected or can come back."""

from __future__ import annotations

import asyncio
import functools
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scorecard import certificates
from bench.scorecard.cases import Asked, Proxy

_SECONDS: Final = 20.0
"""Within which the gateway has to have read what was revoked."""
_LIFE: Final = 3
_NAMES = re.compile(r"(keep.?alive|resum|session|reconnect)", re.IGNORECASE)
_Ask = Callable[[int, ssl.SSLContext, Callable[[], None]], str]
_serials = iter(range(100_000, 200_000))


def question(name: str) -> Asked | None:
    """None for names that speak of one connection and one request."""
    if not _NAMES.search(name) or not re.search("revok|expir|ends", name, re.IGNORECASE):
        return None
    older = re.search(r"tls ?1\.2", name, re.IGNORECASE)
    draft = certificates.Draft(newest=ssl.TLSVersion.TLSv1_2 if older else ssl.TLSVersion.TLSv1_3)
    ask = _kept if re.search("keep.?alive", name, re.IGNORECASE) else _resumed
    return Asked(functools.partial(_asked, draft, ask, revoked="revok" in name.lower()))


@dataclass(slots=True)
class _Caller:
    """Asks on one connection, until that is closed."""

    socket: ssl.SSLSocket

    def status(self) -> int:
        """Of the next answer; 0 where there is none."""
        try:
            self.socket.sendall(f"GET /mutual HTTP/1.1\r\nHost: {certificates.HOST}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(self.socket)
            answer.begin()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        return answer.status


def _call(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> _Caller | None:
    """None where no connection is made."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
    try:
        return _Caller(context.wrap_socket(plain, server_hostname=certificates.HOST, session=session))
    except OSError:
        plain.close()
        return None


async def _asked(draft: certificates.Draft, ask: _Ask, proxy: Proxy, *, revoked: bool) -> str:
    assert proxy.folder is not None
    crl = proxy.folder / "revoked.crl"
    serial = next(_serials)
    draft.choices |= {"serial": serial} if revoked else {"ends": int(time.time()) + _LIFE}
    ends = functools.partial(_revoke, crl, serial) if revoked else functools.partial(time.sleep, _LIFE + 1)
    try:
        return await asyncio.to_thread(ask, proxy.ports["mutual"], draft.context(), ends)
    finally:
        crl.write_bytes(certificates.revocations())


def _revoke(crl: Path, serial: int) -> None:
    crl.write_bytes(certificates.revocations(serial))


def _kept(port: int, context: ssl.SSLContext, ends: Callable[[], None]) -> str:
    """The same connection."""
    caller = _call(port, context)
    if caller is None or (status := caller.status()) != 200:
        return f"the first request was answered {0 if caller is None else status}"
    ends()
    with caller.socket:
        return "" if _refused(caller.status) else "it is served on"


def _resumed(port: int, context: ssl.SSLContext, ends: Callable[[], None]) -> str:
    """A session that a new connection begins with, where the gateway gave one."""
    caller = _call(port, context)
    if caller is None or (status := caller.status()) != 200:
        return f"the first request was answered {0 if caller is None else status}"
    session = caller.socket.session
    caller.socket.close()
    ends()

    def again(session: ssl.SSLSession | None = None) -> int:
        found = _call(port, context, session)
        if found is None:
            return 0
        with found.socket:
            return found.status()

    if not _refused(again):
        return "a new session is served"
    return "" if _refused(functools.partial(again, session)) else "a resumed session is served"


def _refused(status: Callable[[], int]) -> bool:
    """Sooner or later; what is revoked takes effect when it was read."""
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        if status() != 200:
            return True
        time.sleep(0.05)
    return False
