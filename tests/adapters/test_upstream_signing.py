"""A request that the gateway signs tells a service that the gateway sent it, as it is."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.adapters.upstream import HttpUpstream
from gateway.adapters.upstream_signing import SigningCluster, SigningKey, SigningUpstream, read_signing_key
from gateway.ports import Outcome, UpstreamError, settled
from gateway.pure.errors import Reason
from gateway.pure.message_signatures import (
    ECDSA_P256,
    ED25519,
    HMAC,
    Message,
    check_digest,
    read_signatures,
    signature_base,
    verify,
)
from tests.adapters.upstream.clusters import cluster
from tests.conftest import Body, CountingEntropy, HandClock
from tests.upstreams import OK, ScriptedUpstream, answering, scripted

KEY = ed25519.Ed25519PrivateKey.generate()
SECRET = b"0123456789abcdef0123456789abcdef"
HEAD = (
    b"POST /v1/payments?a=1 HTTP/1.1\r\nContent-Type: application/json\r\nSignature: theirs\r\n"
    b"Content-Digest: sha-256=:AA==:\r\nHost: %b\r\nX-Request-Id: req-1\r\nPangate-Tenant: default\r\n"
    b'Forwarded: for="192.0.2.7"\r\nPangate-Subject: iss|sub\r\n'
)


def pem(key: Any) -> bytes:
    spelled: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return spelled


async def sent(body: Any, key: SigningKey | None = None, max_body: int = 100) -> bytes:
    """The request as it came to a server."""
    clock = HandClock()
    async with scripted(answering(OK)) as server:
        inner = HttpUpstream("service", server.url, clock=clock)
        upstream = SigningUpstream(
            inner, "http", key or SigningKey("k1", ED25519, KEY), clock, CountingEntropy(), max_body
        )
        try:
            connection = await settled(upstream.acquire(safe=False))
            assert (await connection.send("POST", HEAD % upstream.authority, body)).status == 200
        finally:
            await inner.close()
        return request_of(server)


def request_of(server: ScriptedUpstream) -> bytes:
    (raw,) = server.requests
    return raw


def fields_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


def holds(raw: bytes, algorithm: str, key: Any) -> bool:
    """As the service would ask, of what came to it alone."""
    headers = fields_of(raw)
    fields = {name.lower(): value.decode() for name, value in headers}
    (signature,) = read_signatures(fields[b"signature-input"], fields[b"signature"])
    message = Message(
        method="POST",
        scheme="http",
        authority=fields[b"host"],
        path="/v1/payments",
        query="a=1",
        headers=headers,
    )
    return verify(algorithm, key, signature_base(message, signature.input), signature.raw)


async def test_a_service_can_tell_that_the_gateway_sent_a_request_and_who_calls() -> None:
    raw = await sent(b'{"amount":1}')
    assert holds(raw, ED25519, KEY.public_key())
    assert not holds(raw.replace(b"iss|sub", b"iss|eve"), ED25519, KEY.public_key())
    assert not holds(raw.replace(b"default", b"another"), ED25519, KEY.public_key())
    fields = {name.lower(): value.decode() for name, value in fields_of(raw)}
    check_digest(fields[b"content-digest"], raw.partition(b"\r\n\r\n")[2])
    (signature,) = read_signatures(fields[b"signature-input"], fields[b"signature"])
    assert set(signature.components) >= {'"@method"', '"@target-uri"', '"content-digest"', '"pangate-subject"'}
    assert (signature.text("keyid"), signature.time("created")) == ("k1", 1_800_000_000)


async def test_what_the_client_said_under_these_names_is_replaced() -> None:
    raw = await sent(b"{}")
    names = [name.lower() for name, _ in fields_of(raw)]
    assert b"theirs" not in raw
    assert [names.count(name) for name in (b"signature", b"signature-input", b"content-digest")] == [1, 1, 1]


async def test_a_body_that_streams_is_held_until_its_digest_is_known() -> None:
    raw = await sent(Body(b'{"am', b'ount":1}', length=None))
    assert holds(raw, ED25519, KEY.public_key())
    assert raw.endswith(b'\r\n\r\n{"amount":1}')


async def test_a_body_too_large_to_hold_is_refused_and_nothing_is_sent() -> None:
    with pytest.raises(UpstreamError) as raised:
        await sent(Body(b"x" * 60, b"x" * 60), max_body=100)
    assert (raised.value.outcome, raised.value.reason) == (Outcome.REFUSED, Reason.BODY_TOO_LARGE)


async def test_no_body_has_no_digest() -> None:
    raw = await sent(b"")
    assert holds(raw, ED25519, KEY.public_key())
    assert b"content-digest" not in raw.lower()


async def test_no_two_requests_have_one_nonce() -> None:
    clock, entropy = HandClock(), CountingEntropy()
    async with scripted(answering(OK)) as server:
        inner = HttpUpstream("service", server.url, clock=clock)
        upstream = SigningUpstream(inner, "http", SigningKey("k1", HMAC, SECRET, "t"), clock, entropy, 9)
        one, other = (upstream.signed(HEAD % b"h", b"") for _ in range(2))
        await inner.close()
    assert one != other
    assert b'tag="t"' in one


@pytest.mark.parametrize(
    ("raw", "algorithm"),
    [
        (pem(KEY), ECDSA_P256),
        (pem(ec.generate_private_key(ec.SECP384R1())), ECDSA_P256),
        (b"no key", ED25519),
        (b"short", HMAC),
    ],
)
def test_a_key_that_is_for_something_else_is_refused(raw: bytes, algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"expected a private key|at least 32 bytes"):
        read_signing_key(raw, "k1", algorithm)


@pytest.mark.parametrize(
    ("raw", "algorithm"),
    [(pem(KEY), ED25519), (pem(ec.generate_private_key(ec.SECP256R1())), ECDSA_P256), (SECRET, HMAC)],
)
async def test_a_key_of_each_kind_signs(raw: bytes, algorithm: str) -> None:
    key = read_signing_key(raw, "k1", algorithm)
    public = key.key if algorithm == HMAC else key.key.public_key()
    assert holds(await sent(b"{}", key), algorithm, public)


async def test_a_cluster_signs_on_every_lane_and_what_it_signs_has_a_deadline_and_retries_all_the_same() -> None:
    clock = HandClock()
    async with scripted(answering(OK)) as server, cluster(server.url, clock=clock) as unsigned:
        key = SigningKey("k1", ED25519, KEY)
        signing = SigningCluster(unsigned, "http", key, clock, CountingEntropy(), 100)
        for lane in (signing.lane("capture"), signing.reserve()):
            connection = await settled(lane.acquire(safe=False))
            connection.deadline = clock.monotonic() + 3
            await connection.send("POST", HEAD % lane.authority, b"{}")
            assert connection.deadline == clock.monotonic() + 3
            assert lane.again(0, 0.0) is not None
        deadline = b"X-Request-Deadline: %.3f" % (clock.now() + 3)
        assert [b"Signature-Input: pangate=" in raw and deadline in raw for raw in server.requests] == [True, True]
