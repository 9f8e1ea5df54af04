"""Addresses to listen on, as people write them: `127.0.0.1:8443`, `[::1]:8443`, `unix:PATH`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_TCP = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Tcp:
    """An IP address (without brackets) and a port; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def local(self) -> bool:
        """Only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class Unix:
    """A socket in the file system."""

    path: str
    local = True


Bind = Tcp | Unix


def parse_bind(text: str) -> Bind:
    """Raises ValueError with a sentence for the operator."""
    if text.startswith("unix:") and len(text) > 5:
        return Unix(text[5:])
    found = _TCP.fullmatch(text)
    try:
        if found is None or int(found[3]) > 65535:
            raise ValueError
        return Tcp(str(ipaddress.ip_address(found[1] or found[2])), int(found[3]))
    except ValueError:
        raise ValueError(
            "expected ADDRESS:PORT with a numeric address (127.0.0.1:8443, [::1]:8443), or unix:PATH"
        ) from None


def address_block(address: str) -> str:
    """What counts as one caller: the address, of IPv6 its /64 (who has one address there has all of them)."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
