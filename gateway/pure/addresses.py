"""Which IP addresses are of the open internet: what is sent on behalf of others may go there and nowhere else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_NAT64 = ip_network("64:ff9b::/96")
"""IPv6 addresses that a translator turns into the IPv4 address in their last 32 bits (RFC 6052 section 2.1)."""
_TUNNELS = (ip_network("2002::/16"), ip_network("2001::/32"), ip_network("::/96"))
"""6to4 (RFC 3056), Teredo (RFC 4380) and IPv4-compatible addresses (RFC 4291): ways around, and in no honest use."""
_METADATA = frozenset(ip_address(text) for text in ("168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254"))
"""Addresses at which a cloud (Azure, Oracle, Alibaba, Amazon) answers its own machines, besides link-local ones."""


def is_public(text: str) -> bool:
    """Is this an address that everybody means the same host by?

    False for loopback, private, link-local, shared, multicast, reserved and unspecified ones, for the metadata services
    of clouds, for whatever embeds one of these, and for text that is no address.
    """
    try:
        address = _plain(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and address not in _METADATA


def serves_metadata(text: str) -> bool:
    """Is this an IP address at which a cloud, or the link, answers a machine about itself: link-local, or known for it?

    Also of what embeds one of these.
    """
    try:
        address = _plain(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    return address.is_link_local or address in _METADATA


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for. Raises ValueError for tunnels."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in tunnel for tunnel in _TUNNELS):
        raise ValueError("a tunnel")
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address
