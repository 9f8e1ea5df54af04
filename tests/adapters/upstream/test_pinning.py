"""An upstream whose key was not named is not spoken to, on both event loops."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters.pinning import pin
from gateway.adapters.upstream import HttpUpstream, client_context
from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.pins import key_digest
from tests.adapters.upstream.calls import acquire, call, whole
from tests.certificates import Authority, Pair
from tests.conftest import HandClock
from tests.upstreams import OK, answering, scripted


def serving(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.fixture
def toward(clock: HandClock, tmp_path: Path) -> Callable[..., HttpUpstream]:
    def make(url: str, *digests: bytes) -> HttpUpstream:
        context = client_context(tmp_path / "test-ca.pem")
        pin(context, digests)
        return HttpUpstream("psp", url, clock=clock, tls=context)

    return make


async def test_an_upstream_with_a_pinned_key_is_spoken_to(toward: Callable[..., HttpUpstream], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    now, later = authority.server("now"), authority.server("later")
    digests = key_digest(now.der()), key_digest(later.der())
    for pair in (now, later):
        async with scripted(answering(OK), serving(pair)) as server:
            upstream = toward(server.url, *digests)
            assert await whole(await call(upstream, "POST", b"x")) == b"ok"
            await upstream.close()


async def test_another_key_of_the_same_authority_gets_no_byte_of_a_request(
    toward: Callable[..., HttpUpstream], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with scripted(answering(OK), serving(authority.server("other"))) as server:
        upstream = toward(server.url, key_digest(authority.server("ours").der()))
        with pytest.raises(UpstreamError) as raised:
            await acquire(upstream, safe=False)
        await upstream.close()
    assert (raised.value.outcome, raised.value.reason) == (Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE)
    assert server.requests == []


async def test_a_pinned_key_replaces_no_authority(toward: Callable[..., HttpUpstream], tmp_path: Path) -> None:
    Authority(tmp_path)
    stranger = Authority(tmp_path, "stranger").server("unknown")
    async with scripted(answering(OK), serving(stranger)) as server:
        upstream = toward(server.url, key_digest(stranger.der()))
        with pytest.raises(UpstreamError):
            await acquire(upstream, safe=False)
        await upstream.close()
    assert server.requests == []
