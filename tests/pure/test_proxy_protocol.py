"""Headers of balancers: what they say is believed to the byte, or not at all."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.pure.proxy_protocol import FIXED_BYTES, MAX_BYTES, SIGNATURE, ProxyHeaderError, Told, crc32c, read, rest_of

HERE = ipaddress.ip_address("127.0.0.1")
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UDP4, UNIX = 0x11, 0x21, 0x12, 0x31


def fields(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in pairs)


def header(rest: bytes, command: int = PROXY, family: int = TCP4, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def of(address: str, port: int = 40000, *pairs: tuple[int, bytes]) -> bytes:
    source = ipaddress.ip_address(address)
    target = HERE if source.version == 4 else ipaddress.ip_address("::1")
    rest = source.packed + target.packed + struct.pack("!HH", port, 8443) + fields(*pairs)
    return header(rest, family=TCP4 if source.version == 4 else TCP6)


def with_checksum(plain: bytes) -> bytes:
    """The same header with a checksum at its end."""
    rest = plain[FIXED_BYTES:] + fields((3, bytes(4)))
    whole = header(rest, plain[12], plain[13])
    return whole[:-4] + struct.pack("!I", crc32c(whole))


def said(raw: bytes) -> Told:
    return read(raw[:FIXED_BYTES], raw[FIXED_BYTES:])


def refused(raw: bytes) -> str:
    with pytest.raises(ProxyHeaderError) as raised:
        said(raw)
    return str(raised.value)


def test_the_published_checksum_vectors() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@given(st.ip_addresses(), st.integers(0, 65535), st.lists(st.tuples(st.integers(4, 255), st.binary(max_size=20))))
def test_a_client_is_told_by_address_and_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, pairs: list[tuple[int, bytes]]
) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    expected = mapped or address
    raw = of(str(address), port, *pairs[:60])
    if expected.is_multicast or expected.is_unspecified:
        refused(raw)
        return
    assert said(raw) == Told((str(expected), port))
    assert said(with_checksum(raw)) == Told((str(expected), port))


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    assert said(of("::ffff:192.0.2.7", 1)).client == ("192.0.2.7", 1)


@pytest.mark.parametrize("raw", [header(b"", LOCAL, 0), header(b"\xff" * 30, LOCAL, TCP4), header(b"", PROXY, 0)])
def test_a_balancer_may_speak_for_itself(raw: bytes) -> None:
    assert said(raw) == Told(None)


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "::", "ff02::1"])
def test_nobody_calls_from_there(address: str) -> None:
    assert refused(of(address)) == "its source is nobody's address"


@pytest.mark.parametrize(
    "fixed",
    [
        b"PROXY TCP4 192.0",
        b"GET / HTTP/1.1\r\n",
        b"",
        SIGNATURE,
        SIGNATURE + b"\x11\x11\0\x0c",
        SIGNATURE + b"\x31\x11\0\x0c",
        SIGNATURE + b"\x22\x11\0\x0c",
        SIGNATURE + b"\x21\x11" + (MAX_BYTES + 1).to_bytes(2, "big"),
        b"\0" + SIGNATURE[1:] + b"\x21\x11\0\x0c",
    ],
)
def test_another_beginning_is_refused_before_more_is_awaited(fixed: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        rest_of(fixed)


@pytest.mark.parametrize("family", [0x01, 0x10, UDP4, 0x22, UNIX, 0x13, 0xFF])
def test_only_tcp_over_ip_is_understood(family: int) -> None:
    assert "TCP" in refused(header(bytes(300), family=family))


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        bytes(11),
        bytes(12) + b"\x04",
        bytes(12) + b"\x04\0",
        bytes(12) + b"\x04\0\x01",
        bytes(12) + b"\x04\xff\xffab",
    ],
)
def test_what_is_cut_short_is_refused(rest: bytes) -> None:
    assert refused(header(b"\x7f\0\0\x01" + rest[4:] if len(rest) > 4 else rest))


def test_the_number_of_fields_is_bounded() -> None:
    said(of("192.0.2.1", 1, *[(4, b"")] * 64))
    assert "fields" in refused(of("192.0.2.1", 1, *[(4, b"")] * 65))


def test_a_checksum_is_verified_and_comes_once() -> None:
    good = with_checksum(of("192.0.2.1", 1, (4, b"padding")))
    assert said(good).client == ("192.0.2.1", 1)
    for at in (*range(16, 24), len(good) - 1):
        spoiled = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert refused(spoiled)
    assert refused(of("192.0.2.1", 1, (3, b"\0\0\0")))
    assert refused(of("192.0.2.1", 1, (3, bytes(4)), (3, bytes(4))))


def test_a_refusal_quotes_nothing() -> None:
    assert "192" not in refused(of("192.0.2.1", 1, (3, b"192.0.2.1")))


@given(st.binary(max_size=200))
@example(of("192.0.2.1")[:-1])
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    for whole in (raw, SIGNATURE + raw, header(raw), header(raw, family=TCP6), header(raw, LOCAL)):
        with contextlib.suppress(ProxyHeaderError):
            said(whole)
