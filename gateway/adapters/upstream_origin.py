"""What an upstream is, by its URL, and at which addresses it is reached."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.pure.addresses import serves_metadata

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host, for a port, in the order in which they should be tried. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Origin:
    """`authority` is the Host field; `secure` means TLS."""

    host: str
    port: int
    secure: bool
    authority: bytes


def parse_origin(url: str) -> Origin:
    """Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("an upstream is an origin: no path, query, fragment or user")
    secure = parts.scheme == "https"
    default = 443 if secure else 80
    port = parts.port or default
    host = parts.hostname.encode("idna").decode("ascii") if ":" not in parts.hostname else parts.hostname
    shown = f"[{host}]" if ":" in host else host
    return Origin(host, port, secure, (shown if port == default else f"{shown}:{port}").encode("ascii"))


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """As this machine resolves names (implements `Lookup`)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class Place:
    """Host and port. A name that resolves to where a cloud answers its own machines leads nowhere: whoever answers for
    the name would have requests, and what they carry, sent there. An address that is configured is meant.
    """

    host: str
    port: int
    lookup: Lookup

    async def find(self) -> tuple[str, ...]:
        """The addresses where it is, one at least. Raises OSError."""
        with suppress(ValueError):
            ipaddress.ip_address(self.host)
            return (self.host,)
        found = dict.fromkeys(await self.lookup(self.host, self.port))
        addresses = tuple(address for address in found if not serves_metadata(address))
        if not addresses:
            raise OSError("the name has no address that may be called")
        return addresses
