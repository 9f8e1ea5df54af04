"""TLS toward upstreams: who the upstream is, is checked; who we are, is shown."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.adapters.upstream import HttpUpstream, Timeouts, client_context
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason
from tests.adapters.upstream.calls import acquire, call, whole
from tests.certificates import DAY, Authority, private_pem
from tests.conftest import Body, HandClock
from tests.upstreams import OK, Conversation, answering, scripted


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    pair = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
async def upstreams(clock: HandClock) -> AsyncIterator[Callable[..., HttpUpstream]]:
    made: list[HttpUpstream] = []

    def make(url: str, tls: ssl.SSLContext) -> HttpUpstream:
        made.append(HttpUpstream("psp", url, clock=clock, tls=tls, timeouts=Timeouts(connect=5)))
        return made[-1]

    yield make
    for upstream in made:
        await upstream.close()


async def post(upstream: HttpUpstream, body: bytes | Body = b"x") -> bytes:
    return await whole(await call(upstream, "POST", body))


async def test_a_client_certificate_is_shown_to_the_upstream_that_wants_one(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream]
) -> None:
    async def look(conversation: Conversation) -> None:
        certificates.append(conversation.writer.get_extra_info("ssl_object").getpeercert(True))
        protocols.append(conversation.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(OK)(conversation)

    certificates: list[bytes] = []
    protocols: list[str] = []
    server_tls.verify_mode = ssl.CERT_REQUIRED
    ours = authority.client("gateway", "spiffe://shop.example/gateway")
    async with scripted(look, server_tls) as server:
        upstream = upstreams(server.url, client_context(authority.file, ours.certificate, ours.key))
        for _ in range(3):
            assert await post(upstream) == b"ok"
    assert certificates == [ours.der()]
    assert protocols == ["http/1.1"]


async def test_an_upstream_of_another_authority_is_not_spoken_to(
    server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream], tmp_path: Path
) -> None:
    async with scripted(answering(OK), server_tls) as server:
        upstream = upstreams(server.url, client_context(Authority(tmp_path, "other").file))
        with pytest.raises(UpstreamError) as raised:
            await acquire(upstream, safe=False)
    assert (raised.value.outcome, raised.value.reason) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
    assert server.requests == []


async def test_an_upstream_with_a_certificate_for_another_name_is_not_spoken_to(
    authority: Authority, upstreams: Callable[..., HttpUpstream]
) -> None:
    names: list[x509.GeneralName] = [x509.DNSName("stranger.example")]
    pair = authority._leaf("stranger", names, ExtendedKeyUsageOID.SERVER_AUTH, 1, DAY)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.load_cert_chain(pair.certificate, pair.key)
    async with scripted(answering(OK), stranger) as server:
        upstream = upstreams(server.url, client_context(authority.file))
        with pytest.raises(UpstreamError) as raised:
            await acquire(upstream, safe=False)
    assert raised.value.outcome is Outcome.REFUSED
    assert server.requests == []


async def test_an_upstream_that_speaks_no_tls_is_not_spoken_to(
    authority: Authority, upstreams: Callable[..., HttpUpstream]
) -> None:
    async def plain(conversation: Conversation) -> None:
        await conversation.reader.read(10)
        await conversation.send(OK)

    async with scripted(plain) as server:
        upstream = upstreams(f"https://localhost:{server.port}", client_context(authority.file))
        with pytest.raises(UpstreamError) as raised:
            await acquire(upstream, safe=False)
    assert raised.value.outcome is Outcome.REFUSED


async def test_bodies_stream_both_ways_and_the_connection_is_used_again(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream]
) -> None:
    async def echo(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            body = request.partition(b"\r\n\r\n")[2]
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)

    pieces = [bytes([n]) * 50_000 for n in range(40)]
    async with scripted(echo, server_tls) as server:
        upstream = upstreams(server.url, client_context(authority.file))
        for _ in range(2):
            assert await post(upstream, Body(*pieces, length=2_000_000)) == b"".join(pieces)
    assert server.connections == 1


async def test_a_connection_that_the_upstream_closed_is_not_used(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream]
) -> None:
    async def once(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(OK)

    async with scripted(once, server_tls) as server:
        upstream = upstreams(server.url, client_context(authority.file))
        for n in (1, 2):
            assert await post(upstream) == b"ok"
            await server.until(lambda: server.open == 0)
            assert server.connections == n


def test_the_context_takes_no_old_version_and_checks_names(authority: Authority) -> None:
    context = client_context(authority.file)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_session_keys_are_not_written_where_the_environment_says(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert client_context(authority.file).keylog_filename is None


def test_a_key_under_a_passphrase_is_an_error_and_not_a_prompt(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.client("other", "spiffe://shop.example/other").certificate
    key = tmp_path / "sealed.key"
    key.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    with pytest.raises(ssl.SSLError):
        client_context(authority.file, certificate, key)


def test_tls_settings_for_a_plain_upstream_are_a_mistake() -> None:
    with pytest.raises(ValueError):
        HttpUpstream("psp", "http://localhost", clock=HandClock(), tls=client_context())


async def test_a_renewed_context_is_shown_by_the_next_call_and_interrupts_none(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream]
) -> None:
    async def look(conversation: Conversation) -> None:
        certificates.append(conversation.writer.get_extra_info("ssl_object").getpeercert(True))
        await answering(OK)(conversation)

    certificates: list[bytes] = []
    server_tls.verify_mode = ssl.CERT_REQUIRED
    pairs = [authority.client(f"gateway-{n}", "spiffe://shop.example/gateway") for n in (1, 2, 3)]
    contexts = [client_context(authority.file, pair.certificate, pair.key) for pair in pairs]
    async with scripted(look, server_tls) as server:
        upstream = upstreams(server.url, contexts[0])
        assert await post(upstream) == b"ok"
        upstream.renew(contexts[1])
        connection = await acquire(upstream, safe=False)
        upstream.renew(contexts[2])
        response = await connection.send("POST", b"POST / HTTP/1.1\r\nHost: x\r\n", b"")
        assert await whole(response) == b"ok"
        assert await post(upstream) == b"ok"
        assert await post(upstream) == b"ok"
    assert certificates == [pair.der() for pair in pairs]


async def test_an_upstream_that_has_no_suite_of_today_is_not_spoken_to(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream]
) -> None:
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    server_tls.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    async with scripted(answering(OK), server_tls) as server:
        upstream = upstreams(server.url, client_context(authority.file))
        with pytest.raises(UpstreamError) as raised:
            await acquire(upstream, safe=False)
    assert raised.value.outcome is Outcome.REFUSED


async def test_cve_2026_54275_a_connection_made_for_one_name_serves_no_other_at_the_same_address(
    authority: Authority, server_tls: ssl.SSLContext, upstreams: Callable[..., HttpUpstream], clock: HandClock
) -> None:
    async with scripted(answering(OK), server_tls) as server:
        one = upstreams(server.url, client_context(authority.file))
        assert await post(one) == b"ok"
        place, tls = ("127.0.0.1", server.port), client_context(authority.file)
        other = HttpUpstream("other", "https://other.example", clock=clock, tls=tls, address=place)
        with pytest.raises(UpstreamError) as raised:
            await post(other)
        assert raised.value.outcome is Outcome.REFUSED
        assert await post(one) == b"ok"
        await other.close()
    assert len(server.requests) == 2
