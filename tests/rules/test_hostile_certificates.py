"""Hostile client certificates, shown to a real listener: refused in the handshake, or by the rule behind it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.adapters.clock import SystemClock
from gateway.adapters.files import WatchedFiles
from gateway.pipeline import Placed
from gateway.ports import Ports
from gateway.rule import Place
from gateway.rules.mtls import Mtls, Settings
from gateway.server.edge import Limits
from gateway.server.tls import server_context
from tests.certificates import Authority as ServerAuthority
from tests.conftest import Recorder
from tests.credentials import SERVER_AUTH, Authority, private_key, serial_of, signed_with_sha1
from tests.server.edge_world import GET, World, world

CORPUS = Path(__file__).parents[1] / "data" / "hostile_mtls.jsonl"
CASES = {row["id"]: row for row in map(json.loads, CORPUS.read_text().splitlines())}
PARTNER = "spiffe://shop.example/partner"
NOW = int(time.time())
TIMES = {"begins": NOW - 3600, "ends": NOW + 3600}
"""OpenSSL judges by the clock of the machine."""
PARTNERS = Authority.make(**TIMES)
KEY = private_key("ES256", 7)


@dataclass
class Edge:
    """A listener that asks for client certificates, with an `mtls` rule behind it, and files for its clients."""

    it: World
    folder: Path
    server_ca: Path
    crl: Path
    made: list[Path] = field(default_factory=list)

    def context(self, *chain: bytes, key: Any = KEY, **options: Any) -> ssl.SSLContext:
        """Of a client with these certificates, its own first; without any it shows none."""
        context = ssl.create_default_context(cafile=str(self.server_ca))
        for name, value in options.items():
            context.set_ciphers(value) if name == "ciphers" else setattr(context, name, value)
        if chain:
            pair = self.folder / f"client-{len(self.made)}.pem"
            self.made.append(pair)
            pems = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain]
            secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            pair.write_bytes(b"".join(pems) + secret)
            context.load_cert_chain(pair)
        return context

    def publish(self, *revoked: bytes) -> None:
        fresh = self.folder / "fresh.crl"
        fresh.write_bytes(PARTNERS.crl(*map(serial_of, revoked), begins=NOW - 60, ends=NOW + 3600))
        fresh.replace(self.crl)

    async def passes(self, *chain: bytes, **options: Any) -> bool:
        """Whether a request reaches the upstream on a connection with these certificates."""
        self.it.upstream.seen.clear()
        try:
            answer = await (await self.it.client(self.context(*chain, **options))).ask(GET)
        except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
            return False
        assert (answer.status == 200) == bool(self.it.upstream.seen)
        assert answer.status < 500
        return answer.status == 200


@asynccontextmanager
async def guarded(
    folder: Path, servers: ServerAuthority, authority: Authority = PARTNERS, limits: Limits | None = None
) -> AsyncIterator[Edge]:
    ca, crl = folder / "ca.pem", folder / "partners.crl"
    ca.write_bytes(authority.pem)
    crl.write_bytes(authority.crl(begins=NOW - 60, ends=NOW + 3600))
    clock, telemetry = SystemClock(), Recorder()
    ports = cast("Ports", SimpleNamespace(clock=clock, files=WatchedFiles(clock, telemetry)))
    settings = Settings.model_validate({"kind": "mtls", "ca": str(ca), "crl": str(crl)})
    rule = Mtls.provision(settings, ports, Place("r", "p", 0, "u", "", egress=False))
    pair = servers.server("edge")
    context = server_context(pair.certificate, pair.key, ca, "optional")
    async with world(limits, [Placed("mtls", rule)], context=context) as it:
        yield Edge(it, folder, servers.file, crl)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> ServerAuthority:
    return ServerAuthority(tmp_path_factory.mktemp("servers"))


@pytest.fixture
async def edge(tmp_path: Path, servers: ServerAuthority) -> AsyncIterator[Edge]:
    async with guarded(tmp_path, servers) as edge:
        yield edge


def leaf(authority: Authority = PARTNERS, *names: str, **choices: Any) -> bytes:
    return authority.client(*(names or (PARTNER,)), **{**TIMES, **choices})


async def _shown(edge: Edge, *chain: bytes, **options: Any) -> bool:
    return await edge.passes(*chain, **options)


async def _chain_of_a_hundred(edge: Edge) -> bool:
    links = [PARTNERS]
    for number in range(100):
        links.append(links[-1].subordinate(f"link-{number}", **TIMES))
    ders = [link.certificate.public_bytes(Encoding.DER) for link in links[:0:-1]]
    return await edge.passes(leaf(links[-1]), *ders)


async def _revoked_while_alive(edge: Edge) -> bool:
    """Whether the certificate still passes, half a second after it was revoked, on a connection that it passed on."""
    der = leaf()
    client = await edge.it.client(edge.context(der))
    assert (await client.ask(GET)).status == 200
    edge.publish(der)
    async with asyncio.timeout(60):
        while (answer := await client.ask(GET)).status == 200:  # noqa: ASYNC110 - the gateway looks by its own clock
            await asyncio.sleep(0.05)
    return answer.reason != "certificate_revoked"


async def _revoked_and_resumed(edge: Edge) -> bool:
    der = leaf()
    context = edge.context(der, maximum_version=ssl.TLSVersion.TLSv1_2)
    client = await edge.it.client(context)
    assert (await client.ask(GET)).status == 200
    session = client.writer.get_extra_info("ssl_object").session
    edge.publish(der)
    async with asyncio.timeout(60):
        while (await client.ask(GET)).status == 200:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.05)
    assert not session.has_ticket
    return await edge.passes(der, maximum_version=ssl.TLSVersion.TLSv1_2)


async def _without_authority(edge: Edge) -> bool:
    empty = edge.folder / "empty.pem"
    for content in (None, b""):
        empty.unlink(missing_ok=True) if content is None else empty.write_bytes(content)
        ports = cast("Ports", SimpleNamespace(clock=SystemClock()))
        with pytest.raises(ValueError, match=r"empty\.pem"):
            Mtls.provision(Settings(kind="mtls", ca=str(empty)), ports, Place("r", "p", 0, "u", "", egress=False))
    return False


async def _stalled(edge: Edge, servers: ServerAuthority) -> bool:
    """Whether somebody who never ends a handshake may stay."""
    inner = edge.folder / "stalled"
    inner.mkdir()
    async with guarded(inner, servers, limits=Limits(handshake=0.1)) as other, asyncio.timeout(60):
        client = await other.it.client()
        await client.send(b"\x16\x03\x01")
        return await client.rest() != b""


async def _limited(edge: Edge, servers: ServerAuthority, **limits: Any) -> bool:
    narrow = Authority.make("narrow", **{**TIMES, **limits})
    issuer = narrow.subordinate("below", **TIMES) if "path_length" in limits else narrow
    below = [issuer.certificate.public_bytes(Encoding.DER)] if issuer is not narrow else []
    inner = edge.folder / "narrow"
    inner.mkdir()
    async with guarded(inner, servers, narrow) as other:
        return await other.passes(leaf(issuer, "api.bad.example"), *below)


SHORT = rsa.generate_private_key(65537, 1024)
P192 = ec.generate_private_key(ec.SECP192R1())
SAME = Authority.make(**TIMES)
EXPIRED = {"begins": NOW - 7200, "ends": NOW - 3600}
BUILT: dict[str, Callable[[Edge, ServerAuthority], Awaitable[bool]]] = {
    "mtls-001": lambda edge, _: _shown(edge, leaf()),
    "mtls-002": lambda edge, _: _shown(edge),
    "mtls-005": lambda edge, _: _shown(edge, leaf(**EXPIRED)),
    "mtls-006": lambda edge, _: _shown(edge, leaf(begins=NOW + 3600, ends=NOW + 7200)),
    "mtls-007": lambda edge, _: _shown(edge, leaf(usages=[SERVER_AUTH])),
    "mtls-009": lambda edge, _: _shown(edge, leaf(ca=True)),
    "mtls-011": lambda edge, servers: _limited(edge, servers, path_length=0),
    "mtls-012": lambda edge, servers: _limited(edge, servers, permitted=[x509.DNSName("good.example")]),
    "mtls-013": lambda edge, _: _shown(edge, signed_with_sha1(leaf(), PARTNERS)),
    "mtls-015": lambda edge, _: _shown(edge, leaf(key=P192), key=P192),
    "mtls-016": lambda edge, _: _published_and_shown(edge),
    "mtls-017": lambda edge, _: _revoked_and_resumed(edge),
    "mtls-020": lambda edge, _: _revoked_while_alive(edge),
    "mtls-023": lambda edge, _: _without_authority(edge),
    "mtls-030": lambda edge, _: _shown(
        edge, leaf(), maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA256"
    ),
    "mtls-034": lambda edge, servers: _stalled(edge, servers),
    "mtls-036": lambda edge, _: _chain_of_a_hundred(edge),
    "mtls-037": lambda edge, _: _shown(edge, leaf(PARTNERS, *(f"{PARTNER}/{n:0>2000}" for n in range(500)))),
}
"""Whether the case passes, by its id."""
MORE = {
    "another authority of that name": lambda edge, _: _shown(edge, leaf(SAME)),
    "RSA 1024": lambda edge, _: _shown(edge, leaf(key=SHORT), key=SHORT),
    "no extended key usage": lambda edge, _: _shown(edge, leaf(usages=None)),
    "two SPIFFE ids": lambda edge, _: _shown(edge, leaf(PARTNERS, PARTNER, f"{PARTNER}-2")),
    "SPIFFE id with a query": lambda edge, _: _shown(edge, leaf(PARTNERS, f"{PARTNER}?x")),
    "names nobody": lambda edge, _: _shown(edge, leaf(PARTNERS, "192.0.2.1")),
    "may sign lists": lambda edge, _: _shown(edge, leaf(key_usage={"crl_sign": True})),
}


async def _published_and_shown(edge: Edge) -> bool:
    der = leaf()
    edge.publish(der)
    async with asyncio.timeout(60):
        while await edge.passes(der):  # noqa: ASYNC110 - the gateway looks by its own clock
            await asyncio.sleep(0.05)
    return await edge.passes(der)


ELSEWHERE = {
    "mtls-032": "tests/server/test_listener.py: of a listener whose routes tell hosts apart",
}


def test_every_case_of_the_corpus_is_built() -> None:
    assert sorted(CASES) == sorted(BUILT.keys() | ELSEWHERE.keys())


@pytest.mark.parametrize("case", BUILT, ids=lambda case: f"{case} {CASES[case]['name']}")
async def test_a_certificate_is_judged_right(edge: Edge, servers: ServerAuthority, case: str) -> None:
    assert await BUILT[case](edge, servers) is (CASES[case]["expect"] == "accept")


@pytest.mark.parametrize("case", MORE)
async def test_others_of_the_kind_are_refused(edge: Edge, servers: ServerAuthority, case: str) -> None:
    assert not await MORE[case](edge, servers)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_good_certificate_passes_with_each_version(edge: Edge, version: ssl.TLSVersion) -> None:
    assert await edge.passes(leaf(), minimum_version=version, maximum_version=version)
