"""Sockets, TLS, caps and the orderly end of a listener."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gateway.pipeline import Pipeline
from gateway.ports import Response
from gateway.pure.metrics import Metric
from gateway.pure.routing import Pattern
from gateway.server import listener
from gateway.server.edge import Limits
from gateway.server.sockets import bound
from gateway.server.tls import server_context
from gateway.snapshot import Route
from tests.certificates import Authority, Pair
from tests.server.edge_world import GET, Client, Seen, World, turns, world


def caller(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def serving(authority: Authority, server: Pair, failures: list[str] | None = None, **kind: str) -> ssl.SSLContext:
    on_failure = failures.append if failures is not None else None
    return server_context(server.certificate, server.key, authority.file, on_failure=on_failure, **kind)  # type: ignore[arg-type]


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_a_caller_with_and_one_without_certificate_get_through_an_optional_handshake(
    authority: Authority,
) -> None:
    partner = authority.client("partner", "spiffe://shop.example/checkout")
    async with world(context=serving(authority, authority.server(), client_certificate="optional")) as it:
        seen: list[bytes | None] = []
        serve = it.proxy.serve

        async def watch(connection, arrival):  # type: ignore[no-untyped-def]
            seen.append(connection.peer.certificate)
            await serve(connection, arrival)

        it.listener._edge.exchanges = type("Watch", (), {"serve": staticmethod(watch)})()
        for context in (caller(authority), caller(authority, partner)):
            assert (await (await it.client(context)).ask(GET)).status == 200
        assert seen == [None, partner.der()]


def for_two_hosts(pipeline: Pipeline) -> list[tuple[Pattern, Route]]:
    """A route for the host that clients of these tests ask for in the handshake, and one for another."""
    hosts = ("localhost", "api.example")
    return [(Pattern("/v1/payments", frozenset({"GET"}), h), Route(h, "default", pipeline=pipeline)) for h in hosts]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("asked", ["none", "optional"])
async def test_a_connection_that_was_made_for_one_host_serves_no_other(
    authority: Authority, version: ssl.TLSVersion, asked: str
) -> None:
    server = authority.server()
    ca = authority.file if asked == "optional" else None
    context = server_context(server.certificate, server.key, ca, asked)  # type: ignore[arg-type]
    async with world(context=context, routes=for_two_hosts) as it:
        dialing = caller(authority)
        dialing.minimum_version = dialing.maximum_version = version
        answer = await (await it.client(dialing)).ask(GET)
        assert (answer.status, answer.reason) == (421, "misdirected_request")
        assert it.upstream.seen == []
        own = GET.replace(b"api.example", b"LOCALHOST:8443")
        assert (await (await it.client(dialing)).ask(own)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_of_a_strange_authority_does_not_get_through(
    authority: Authority, stranger: Authority, version: ssl.TLSVersion
) -> None:
    failures: list[str] = []
    context = serving(authority, authority.server(), failures, client_certificate="optional")
    async with world(context=context) as it:
        dialing = caller(authority, stranger.client("intruder", "spiffe://shop.example/checkout"))
        dialing.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await (await it.client(dialing)).ask(GET)
        assert failures == ["certificate_invalid"]
        assert it.upstream.seen == []


async def test_failed_handshakes_are_told_apart(authority: Authority, stranger: Authority) -> None:
    failures: list[str] = []
    context = serving(authority, authority.server(), failures, client_certificate="required")
    partner = authority.client("partner", "spiffe://shop.example/checkout")
    async with world(context=context) as it:

        def call(dialing: ssl.SSLContext) -> None:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", it.listener.port)) as raw,
                dialing.wrap_socket(raw, server_hostname="localhost") as wire,
            ):
                wire.sendall(GET)
                assert not wire.recv(1)

        old = caller(authority, partner)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        for dialing in (caller(authority), caller(stranger, partner), old):
            await asyncio.to_thread(call, dialing)
        await (await it.client()).ask_in_vain(GET)
        (await it.client()).writer.transport.abort()
        await turns(lambda: gc.collect() >= 0 and len(failures) == 5)
    assert failures == ["certificate_missing", "refused_by_client", "no_common_parameters", "not_tls", "incomplete"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_cve_2025_23419_no_session_is_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    """A resumed session would skip the check of the client certificate."""
    partner = authority.client("partner", "spiffe://shop.example/checkout")
    context = caller(authority, partner)
    context.minimum_version = context.maximum_version = version

    def twice(port: int) -> list[bool | None]:
        session, reused = None, []
        with ExitStack() as both_open:
            for _ in range(2):
                raw = both_open.enter_context(socket.create_connection(("127.0.0.1", port)))
                wire = both_open.enter_context(context.wrap_socket(raw, server_hostname="localhost", session=session))
                wire.sendall(GET)
                assert wire.recv(65536).startswith(b"HTTP/1.1 200")
                session = wire.session
                reused.append(wire.session_reused)
        return reused

    async with world(context=serving(authority, authority.server(), client_certificate="required")) as it:
        assert await asyncio.to_thread(twice, it.listener.port) == [False, False]


async def test_only_http_1_1_and_aead_suites_are_negotiated(authority: Authority) -> None:
    context = caller(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with world(context=serving(authority, authority.server())) as it:
        client = await it.client(context)
        tls = client.writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert "GCM" in tls.cipher()[0] or "CHACHA20" in tls.cipher()[0]
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await it.client(context)


async def test_a_new_certificate_serves_new_connections_and_drops_none(authority: Authority) -> None:
    async with world(context=serving(authority, authority.server("old"))) as it:
        port = it.listener.port
        before = await it.client(caller(authority))
        for n in range(5):
            it.listener.renew(serving(authority, authority.server(f"new{n}")))
            fresh = await it.client(caller(authority))
            assert b"new%d" % n in fresh.writer.get_extra_info("ssl_object").getpeercert(True)
            assert (await fresh.ask(GET)).status == 200
        assert (await before.ask(GET)).status == 200
        assert it.listener.port == port


async def test_a_listener_without_tls_has_none_to_renew(authority: Authority) -> None:
    async with world() as it:
        with pytest.raises(ValueError, match="without TLS"):
            it.listener.renew(serving(authority, authority.server()))


# --- Unix sockets and identity ------------------------------------------------------------------------------------


def mode(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def test_a_unix_socket_is_for_its_owner_and_declares_its_callers(socket_path: Path) -> None:
    async with world(bind=f"unix:{socket_path}", identity="spiffe://shop.example/payments") as it:
        assert mode(socket_path) == 0o600
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
        client = Client(reader, writer)
        assert (await client.ask(GET)).status == 200
        assert b'Forwarded: for="unknown"' in it.upstream.seen[0].head
        connection = it.listener._connections.all[0]
        assert (connection.peer.identity, connection.peer.certificate) == ("spiffe://shop.example/payments", None)
        await client.close()


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    async with world(bind=f"unix:{socket_path}"):
        with pytest.raises(OSError, match="in use"):
            bound(f"unix:{socket_path}")


# --- caps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_address=2)])
async def test_connections_over_the_cap_are_turned_away_and_counted(limits: Limits) -> None:
    async with world(limits) as it:
        held = [await it.client(), await it.client()]
        assert [(await client.ask(GET)).status for client in held] == [200, 200]
        turned_away = await it.client()
        answer = await turned_away.answer()
        assert (answer.status, answer.reason) == (503, "too_many_connections")
        (told,) = (line for line in it.telemetry.lines if line["event"] == "connection_refused")
        assert f"urn:pangate:request:{told['id']}".encode() in answer.body
        assert answer.header(b"x-request-id") == str(told["id"]).encode()
        assert await turned_away.rest() == b""
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", "too_many_connections", "enforce")] == 1
        await held[0].close()
        await turns(lambda: it.telemetry.counts[Metric.CONNECTIONS, ("edge",)] == 1)
        assert (await it.ask(GET)).status == 200


# --- the end ------------------------------------------------------------------------------------------------------


class Gate:
    """An upstream that answers when it is told to."""

    def __init__(self, it: World) -> None:
        self.opened = asyncio.Event()
        it.upstream.answer = self.answer

    async def answer(self, _: Seen) -> Response:
        await self.opened.wait()
        return Response(200, [], b"late")


async def test_a_drained_listener_finishes_what_is_in_flight_and_closes_what_is_idle() -> None:
    async with world() as it:
        idle, busy = await it.client(), await it.client()
        await idle.ask(GET)
        gate = Gate(it)
        await busy.send(GET)
        await turns(lambda: it.listener.in_flight == 1)
        draining = asyncio.create_task(it.listener.drain(5))
        assert await idle.rest() == b""
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", await _port(busy))
        gate.opened.set()
        answer = await busy.answer()
        assert (answer.body, answer.header(b"connection")) == (b"late", b"close")
        assert await busy.rest() == b""
        assert await draining == 0


async def test_with_grace_an_idle_connection_may_ask_once_more_and_then_it_is_closed() -> None:
    async with world() as it:
        busy, idle = await it.client(), await it.client()
        for client in (busy, idle):
            await client.ask(GET)
        draining = asyncio.create_task(it.listener.drain(5, grace=30))
        await turns(lambda: not it.listener._acceptor._accepting)
        answer = await busy.ask(GET)
        assert (answer.status, answer.header(b"connection")) == (200, b"close")
        it.pass_time(29.9)
        assert not idle.reader.at_eof()
        it.pass_time(0.2)
        assert await idle.rest() == b""
        assert await draining == 0


async def test_without_grace_a_new_connection_still_has_a_moment_to_ask() -> None:
    async with world() as it:
        fresh, silent = await it.client(), await it.client()
        await turns(lambda: len(it.listener._connections.all) == 2)
        draining = asyncio.create_task(it.listener.drain(5))
        await turns(lambda: all(each.due < it.clock.monotonic() + 2 for each in it.listener._connections.all))
        answer = await fresh.ask(GET)
        assert (answer.status, answer.header(b"connection")) == (200, b"close")
        it.pass_time(1.1)
        assert await silent.rest() == b""
        assert await draining == 0


async def _port(client: Client) -> int:
    return int(client.writer.get_extra_info("peername")[1])


async def test_a_drain_that_runs_out_of_time_says_what_it_left_and_does_not_cancel_it() -> None:
    async with world() as it:
        gate = Gate(it)
        client = await it.client()
        await client.send(GET)
        await turns(lambda: it.listener.in_flight == 1)
        assert await it.listener.drain(0.01) == 1
        gate.opened.set()
        await turns(lambda: it.listener.in_flight == 0)
        assert len(it.lines()) == 1


async def test_a_retired_listener_still_accepts_but_keeps_no_connection() -> None:
    async with world() as it:
        it.listener.retire()
        client = await it.client()
        answer = await client.ask(GET)
        assert (answer.status, answer.header(b"connection")) == (200, b"close")
        assert await client.rest() == b""


async def test_deadlines_are_kept_without_being_driven() -> None:
    """The listener sweeps by itself; here with the time of the wall."""
    import time

    async with world(Limits(header=0.01)) as it:
        it.clock.monotonic = time.monotonic  # type: ignore[method-assign]
        client = await it.client()
        async with asyncio.timeout(60):
            assert await client.rest() == b""


async def test_what_was_read_is_wiped_from_the_buffer_of_all_connections() -> None:
    async with world() as it:
        assert (await (await it.client()).ask(GET)).status == 200
        buffer = it.listener._edge.buffer
        assert GET[:8] in bytes(buffer)
        it.listener.sweep()
        assert not any(buffer)


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_when_many_are_late_at_once_a_turn_of_the_loop_ends_only_some_of_them() -> None:
    async with world() as it:
        late = [await it.client() for _ in range(3 * listener._LATE_AT_ONCE)]
        for client in late:
            await client.send(GET[:10])
        everyone = it.listener._connections.all
        await turns(lambda: all(connection._pending for connection in everyone))
        it.pass_time(11)
        assert sum(connection._exchanging for connection in everyone) == listener._LATE_AT_ONCE
        assert {(await client.answer()).reason for client in late} == {"request_timeout"}
