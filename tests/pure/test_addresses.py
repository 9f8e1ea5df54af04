from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pure.addresses import is_public, serves_metadata

PRIVATE = [
    ip_network(text)
    for text in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                 "192.0.0.0/29", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4")
]  # fmt: skip


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_hosts_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::", "10.1.2.3", "172.31.255.255", "192.168.1.1",
        "100.64.0.1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "ff0e::1",
        "255.255.255.255", "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1", "2001:db8::1", "localhost", "2130706433", "0x7f.1", "",
    ],
)  # fmt: skip
def test_nothing_near_is_public(address: str) -> None:
    assert not is_public(address)


@given(st.sampled_from(PRIVATE), st.integers(0, 2**32 - 1))
def test_no_spelling_of_a_private_address_is_public(network: object, number: int) -> None:
    assert hasattr(network, "hosts")
    address = IPv4Address(int(network.network_address) + number % network.num_addresses)
    mapped = IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    translated = IPv6Address(IPv6Address("64:ff9b::").packed[:12] + address.packed)

    assert not any(is_public(str(spelling)) for spelling in (address, mapped, translated))


@given(st.text(max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    assert is_public(text) in (True, False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((each, True) for each in ("169.254.169.254", "169.254.170.2", "fe80::1%eth0", "fd00:ec2::254")),
        *(
            (each, True)
            for each in ("100.100.100.200", "168.63.129.16", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe")
        ),
        *((each, False) for each in ("127.0.0.1", "10.0.0.7", "::1", "fd00::7", "8.8.8.8", "localhost", "")),
    ],
)
def test_where_clouds_answer_their_machines_is_known_and_no_private_network_is_taken_for_it(
    address: str, expected: bool
) -> None:
    assert serves_metadata(address) is expected
