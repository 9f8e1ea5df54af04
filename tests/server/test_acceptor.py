"""Taking connections out of queues: all of them, and only from the sockets that were named."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import cast

import pytest

from gateway.pure.metrics import Metric
from gateway.pure.proxy_protocol import SIGNATURE
from gateway.server import acceptor as module
from gateway.server.acceptor import Acceptor
from gateway.server.edge import Limits
from gateway.server.sockets import bound
from gateway.server.tls import server_context
from tests.certificates import Authority
from tests.server.edge_world import GET, handshakes, world


class Greeter(asyncio.Protocol):
    """Says hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        wire.write(b"hello")
        wire.close()


async def greeting(one: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*one.getsockname())
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_more_callers_than_one_turn_takes_are_all_greeted() -> None:
    one = bound("127.0.0.1:0")
    acceptor = Acceptor(Greeter, [one], None, handshakes())
    acceptor.accept([0])
    got = await asyncio.gather(*(greeting(one) for _ in range(3 * module._AT_ONCE)))
    assert set(got) == {b"hello"}
    await acceptor.close()


async def test_what_waits_when_it_closes_is_greeted_and_the_socket_is_gone() -> None:
    one = bound("127.0.0.1:0")
    place = one.getsockname()
    acceptor = Acceptor(Greeter, [one], None, handshakes())
    acceptor.accept([0])
    with socket.create_connection(place, timeout=60) as caller:
        await acceptor.close()
        assert await asyncio.to_thread(caller.recv, 64) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*place)


class Exhausted(socket.socket):
    """Of a process without a file descriptor left, at the first try."""

    tries = 0

    def accept(self):  # type: ignore[no-untyped-def]
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.EMFILE, "too many open files")
        if self.tries == 2:
            raise ConnectionAbortedError
        return super().accept()


async def test_a_process_without_descriptors_does_not_spin_and_accepts_a_little_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    one = Exhausted()
    one.bind(("127.0.0.1", 0))
    acceptor = Acceptor(Greeter, [one], None, handshakes())
    acceptor.accept([0])
    assert await greeting(one) == b"hello"
    assert one.tries < 10
    await acceptor.close()


# --- behind a balancer --------------------------------------------------------------------------------------------

BALANCERS = [ip_network("127.0.0.0/8")]
ELSEWHERE = [ip_network("192.0.2.0/24")]
V1 = b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 8443\r\n"


def passed_on(address: str = "198.51.100.7", *, command: int = 0x21) -> bytes:
    """A header as a balancer sends it: RFC 5737 addresses, no fields."""
    packed = ip_address(address).packed
    rest = packed * 2 + b"\x9c\x40\x20\xfb"
    family = 0x11 if len(packed) == 4 else 0x21
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


async def test_the_client_that_a_balancer_names_is_who_calls() -> None:
    async with world(balancers=BALANCERS) as it:
        assert (await it.ask(passed_on() + GET)).status == 200
        assert (await it.ask(passed_on("2001:db8::7") + GET)).status == 200
        assert b'Forwarded: for="198.51.100.7"' in it.upstream.seen[0].head
        assert b'Forwarded: for="[2001:db8::7]"' in it.upstream.seen[1].head


async def test_a_header_may_come_byte_by_byte_and_nothing_behind_it_is_lost() -> None:
    async with world(balancers=BALANCERS) as it:
        client = await it.client()
        for byte in passed_on() + GET:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_header_stands_before_the_handshake(authority: Authority, version: ssl.TLSVersion) -> None:
    server = authority.server()
    context = server_context(server.certificate, server.key, authority.file, "optional")
    dialing = ssl.create_default_context(cafile=str(authority.file))
    dialing.minimum_version = dialing.maximum_version = version

    def call(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(passed_on())
            with dialing.wrap_socket(raw, server_hostname="localhost") as wire:
                wire.sendall(GET)
                return wire.recv(65536)

    async with world(context=context, balancers=BALANCERS) as it:
        assert (await asyncio.to_thread(call, it.listener.port)).startswith(b"HTTP/1.1 200")
        assert b'Forwarded: for="198.51.100.7"' in it.upstream.seen[0].head


async def test_a_balancer_that_speaks_for_itself_is_its_own_client() -> None:
    async with world(balancers=BALANCERS) as it:
        assert (await it.ask(passed_on(command=0x20) + GET)).status == 200
        assert b'Forwarded: for="127.0.0.1"' in it.upstream.seen[0].head


@pytest.mark.parametrize("sent", [GET, V1 + GET, passed_on()[:12] + b"\x11" + passed_on()[13:], passed_on("224.0.0.1")])
async def test_a_listed_peer_without_a_proper_header_is_hung_up_on_and_counted(sent: bytes) -> None:
    async with world(balancers=BALANCERS) as it:
        client = await it.client()
        await client.send(sent)
        assert await client.rest() == b""
        assert it.upstream.seen == []
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", "proxy_header_invalid", "enforce")] == 1


async def test_a_listed_peer_that_says_nothing_is_not_waited_for_any_longer_than_a_handshake() -> None:
    async with world(Limits(handshake=0.05), balancers=BALANCERS) as it:
        client = await it.client()
        await client.send(passed_on()[:20])
        assert await client.rest() == b""
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", "proxy_header_invalid", "enforce")] == 1


async def test_a_look_whether_the_port_is_open_counts_as_nothing() -> None:
    async with world(balancers=BALANCERS) as it:
        client = await it.client()
        client.writer.write_eof()
        assert await client.rest() == b""
        assert Metric.BLOCKED not in {metric for metric, _ in it.telemetry.counts}


async def test_what_an_unlisted_peer_says_is_not_read_for_a_header() -> None:
    async with world(balancers=ELSEWHERE) as it:
        assert (await it.ask(GET)).status == 200
        assert (await it.ask(passed_on() + GET)).reason == "malformed_request"
        assert b'for="127.0.0.1"' in it.upstream.seen[0].head
        assert len(it.upstream.seen) == 1


async def test_the_caps_are_those_of_the_client_and_not_of_the_balancer() -> None:
    async with world(Limits(connections_per_address=1), balancers=BALANCERS) as it:
        clients = [await it.client() for _ in range(3)]
        for number, client in enumerate(clients):
            assert (await client.ask(passed_on(f"198.51.100.{number}") + GET)).status == 200
        again = await it.client()
        assert (await again.ask(passed_on("198.51.100.1"))).reason == "too_many_connections"
