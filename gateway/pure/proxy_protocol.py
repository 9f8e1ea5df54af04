"""The PROXY protocol, version 2 (HAProxy's proxy-protocol.txt, section 2.2): whose connection a balancer passes on.

Only what a balancer in front of a TCP listener has to say is read: TCP over IPv4 or IPv6, and connections of its own.
Version 1, which is text of no declared length, is not read.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES: Final = 16
"""Of a header, before the part whose length they tell."""
MAX_BYTES: Final = 4096
"""Of the part that follows: addresses, and what balancers add about TLS, names and networks."""
_MAX_FIELDS: Final = 64
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED = 0x00
_TCP: Final = {0x11: 4, 0x21: 16}
"""Bytes of an address, by family and transport: AF_INET and AF_INET6, each with STREAM."""
_PORTS: Final = 4
_CHECKSUM: Final = 0x03
_FIELD_HEAD: Final = 3
_POLYNOMIAL: Final = 0x82F63B78


class ProxyHeaderError(ValueError):
    """The bytes are no header of a balancer that is understood here. Holds none of them."""


@dataclass(frozen=True, slots=True)
class Told:
    """The client's address and port; None where the balancer speaks for itself, as in a health check."""

    client: tuple[str, int] | None


def rest_of(fixed: bytes) -> int:
    """How many bytes follow the first `FIXED_BYTES` of a header. Raises `ProxyHeaderError`."""
    if len(fixed) != FIXED_BYTES or not fixed.startswith(SIGNATURE):
        raise ProxyHeaderError("it does not begin like a header of version 2")
    length = int.from_bytes(fixed[14:16], "big")
    if fixed[12] >> 4 != _VERSION or fixed[12] & 0xF not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("it is of another version, or no command that is known")
    if length > MAX_BYTES:
        raise ProxyHeaderError("it is too long")
    return length


def read(fixed: bytes, rest: bytes) -> Told:
    """What a whole header says: its first `FIXED_BYTES`, and the `rest_of` them. Raises `ProxyHeaderError`.

    A checksum (section 2.2.4) is verified where there is one.
    """
    if rest_of(fixed) != len(rest):
        raise ProxyHeaderError("it is not as long as it says")
    if fixed[12] & 0xF == _LOCAL:
        return Told(None)
    size = _TCP.get(fixed[13])
    if size is None and fixed[13] != _UNSPECIFIED:
        raise ProxyHeaderError("it speaks of something else than TCP over IPv4 or IPv6")
    taken = 2 * size + _PORTS if size is not None else 0
    if len(rest) < taken:
        raise ProxyHeaderError("its addresses are cut short")
    _check_fields(fixed, rest, taken)
    if size is None:
        return Told(None)
    return Told((_address(rest[:size]), int.from_bytes(rest[2 * size : 2 * size + 2], "big")))


def _address(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if address.is_unspecified or address.is_multicast:
        raise ProxyHeaderError("its source is nobody's address")
    return str(address)


def _check_fields(fixed: bytes, rest: bytes, at: int) -> None:
    """The fields (type, length, value) behind the addresses fill what is left."""
    checksum: int | None = None
    fields = 0
    while at < len(rest):
        value = at + _FIELD_HEAD
        end = value + int.from_bytes(rest[at + 1 : value], "big")
        fields += 1
        if value > len(rest) or end > len(rest) or fields > _MAX_FIELDS:
            raise ProxyHeaderError("its fields do not fit into it")
        if rest[at] == _CHECKSUM:
            if checksum is not None or end - value != 4:
                raise ProxyHeaderError("it has no proper checksum")
            checksum = value
        at = end
    if checksum is not None:
        zeroed = fixed + rest[:checksum] + bytes(4) + rest[checksum + 4 :]
        if crc32c(zeroed) != int.from_bytes(rest[checksum : checksum + 4], "big"):
            raise ProxyHeaderError("its checksum is wrong")


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The CRC of RFC 3720 appendix B.4 (Castagnoli)."""
    value = 0xFFFF_FFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFF_FFFF
