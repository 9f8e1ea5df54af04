from __future__ import annotations

import pytest

from gateway.pure.bind import Bind, Tcp, Unix, address_block, parse_bind


@pytest.mark.parametrize(
    ("text", "place", "local"),
    [
        ("127.0.0.1:8443", Tcp("127.0.0.1", 8443), True),
        ("0.0.0.0:0", Tcp("0.0.0.0", 0), False),
        ("[::1]:80", Tcp("::1", 80), True),
        ("[2001:db8::1]:80", Tcp("2001:db8::1", 80), False),
        ("unix:var/edge.sock", Unix("var/edge.sock"), True),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, place: Bind, local: bool) -> None:
    assert parse_bind(text) == place
    assert place.local is local


@pytest.mark.parametrize("text", ["", "8443", ":8443", "localhost:1", "1.2.3.4:65536", "1.2.3:1", "unix:", "::1:80"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unix:PATH"):
        parse_bind(text)


def test_who_has_one_ipv6_address_has_its_network() -> None:
    assert address_block("2001:db8::1") == address_block("2001:db8::2") == "2001:db8::/64"
    assert address_block("2001:db8:0:1::1") != address_block("2001:db8::1")
    assert address_block("::ffff:192.0.2.7") == address_block("192.0.2.7") == "192.0.2.7"
    assert address_block("unknown") == "unknown"
