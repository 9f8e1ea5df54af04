"""Certificates replaced on the disk while a listener runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.settings import Listener as ListenerSettings
from gateway.config.settings import Tls
from gateway.ports import Cluster, settled
from gateway.pure.metrics import Metric
from gateway.renewal import Renewal
from gateway.upstreams import Upstreams
from tests.certificates import Authority, Pair
from tests.conftest import CountingEntropy, HandClock, Recorder
from tests.server.edge_world import GET, World, world
from tests.upstreams import OK, Conversation, answering, scripted

SWAPS = 1000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Place:
    """Where the listener's certificate and key are, as `name.pem` and `name.key`; `put` replaces them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "live.pem", folder / "live.key"
        tls = Tls(certificate=str(self.certificate), key=f"file:{self.key}")
        self.settings = {"edge": ListenerSettings(bind="127.0.0.1:0", tls=tls)}

    def put(self, pair: Pair) -> None:
        replace(pair.certificate, self.certificate)
        replace(pair.key, self.key)


def replace(source: Path, target: Path) -> None:
    """In one step, as a careful tool does it."""
    beside = target.with_suffix(".new")
    shutil.copy(source, beside)
    beside.replace(target)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def renewing(place: Place, telemetry: Recorder) -> AsyncIterator[tuple[World, Renewal]]:
    renewal = Renewal(telemetry)
    fresh = renewal.fresh(place.settings)["edge"]
    async with world(context=fresh.context) as it:
        renewal.installed("edge", fresh)
        yield it, renewal


async def served_name(authority: Authority, it: World) -> bytes:
    """The certificate that a new connection gets, which must also be served."""
    client = await it.client(ssl.create_default_context(cafile=str(authority.file)))
    certificate: bytes = client.writer.get_extra_info("ssl_object").getpeercert(True)
    assert (await client.ask(GET)).status == 200
    client.writer.close()
    return certificate


async def test_a_new_pair_is_used_at_the_next_look(tmp_path: Path, authority: Authority) -> None:
    place, telemetry = Place(tmp_path), Recorder()
    place.put(authority.server("first"))
    async with renewing(place, telemetry) as (it, renewal):
        await renewal.look(place.settings, {"edge": it.listener})
        assert telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("edge", "applied")] == 1
        place.put(second := authority.server("second"))
        await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == second.der()
    assert telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("edge", "applied")] == 2


async def test_a_pair_that_is_replaced_one_file_after_the_other_is_never_called_wrong(
    tmp_path: Path, authority: Authority
) -> None:
    place, telemetry = Place(tmp_path), Recorder()
    place.put(first := authority.server("first"))
    second = authority.server("second")
    async with renewing(place, telemetry) as (it, renewal):
        replace(second.certificate, place.certificate)
        await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == first.der()
        replace(second.key, place.key)
        await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == second.der()
    assert (Metric.CERTIFICATE_RENEWALS, ("edge", "rejected")) not in telemetry.counts


@pytest.mark.parametrize("spoiled", ["certificate", "key"])
async def test_a_bad_pair_changes_nothing_and_is_told_of_once(
    tmp_path: Path, authority: Authority, spoiled: str
) -> None:
    place, telemetry = Place(tmp_path), Recorder()
    place.put(first := authority.server("first"))
    async with renewing(place, telemetry) as (it, renewal):
        getattr(place, spoiled).write_bytes(b"-----BEGIN NONSENSE-----\n")
        for _ in range(5):
            await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == first.der()
        assert telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("edge", "rejected")] == 1
        ((line),) = [line for line in telemetry.lines if line["event"] == "certificate_rejected"]
        assert str(getattr(place, spoiled)) in str(line["error"])
        place.put(second := authority.server("second"))
        await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == second.der()


async def test_a_pair_that_is_not_there_for_a_while_changes_nothing(tmp_path: Path, authority: Authority) -> None:
    place, telemetry = Place(tmp_path), Recorder()
    place.put(first := authority.server("first"))
    async with renewing(place, telemetry) as (it, renewal):
        place.key.unlink()
        for _ in range(3):
            await renewal.look(place.settings, {"edge": it.listener})
        assert await served_name(authority, it) == first.der()


async def test_a_thousand_replacements_under_load_fail_no_request(tmp_path: Path, authority: Authority) -> None:
    place, telemetry = Place(tmp_path), Recorder()
    pairs = [authority.server("one"), authority.server("two")]
    place.put(pairs[0])
    before, served, done = open_files(), [0, 0], asyncio.Event()

    async def on_new_connections(it: World) -> None:
        while not done.is_set():
            await served_name(authority, it)
            served[0] += 1

    async def on_one_connection(it: World) -> None:
        client = await it.client(ssl.create_default_context(cafile=str(authority.file)))
        while not done.is_set():
            assert (await client.ask(GET)).status == 200
            served[1] += 1

    async with renewing(place, telemetry) as (it, renewal), asyncio.TaskGroup() as load:
        load.create_task(on_new_connections(it))
        load.create_task(on_one_connection(it))
        for n in range(SWAPS):
            place.put(pairs[(n + 1) % 2])
            await renewal.look(place.settings, {"edge": it.listener})
        done.set()
    assert telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("edge", "applied")] == 1 + SWAPS
    assert min(served) > 50
    assert open_files() < before + 50


# --- toward upstreams ---------------------------------------------------------------------------------------------

CONFIG = """\
version: 1
listeners:
  edge: {bind: 127.0.0.1:8443}
store: sqlite:var/pangate.db
upstreams:
  psp:
    url: URL
    tls: {ca: FOLDER/ca.pem, certificate: FOLDER/live.pem, key: "file:FOLDER/live.key"}
routes:
  - {name: pay, listener: edge, match: {path: /pay}, policy: open, upstream: psp}
"""


class Psp:
    """An upstream over mutual TLS, what it was shown, and the files that the gateway shows it from."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.shown: list[bytes] = []
        self.telemetry = Recorder()
        self.upstreams = Upstreams(HandClock(), CountingEntropy(), self.telemetry, lambda _: b"")
        self.renewal = Renewal(self.telemetry)
        self.put(authority)

    def put(self, authority: Authority) -> Pair:
        pair = authority.client("gateway", "spiffe://shop.example/gateway")
        replace(self.authority.file, self.folder / "ca.pem")
        replace(pair.certificate, self.folder / "live.pem")
        replace(pair.key, self.folder / "live.key")
        return pair

    async def converse(self, conversation: Conversation) -> None:
        self.shown.append(conversation.writer.get_extra_info("ssl_object").getpeercert(True))
        await answering(OK)(conversation)

    async def call(self, cluster: Cluster) -> bytes:
        connection = await settled(cluster.lane("").acquire(safe=True))
        response = await connection.send("GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"")
        connection.release()
        return response.body

    async def look(self) -> None:
        await self.renewal.look_at_servers("upstream", self.upstreams)


@asynccontextmanager
async def calling(folder: Path, authority: Authority) -> AsyncIterator[tuple[Psp, Cluster]]:
    server = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    psp = Psp(folder, authority)
    (folder / "policies").mkdir()
    (folder / "policies" / "open.yaml").write_text("rules: [{kind: rate_limit, key: [peer.address], rate: 5/second}]\n")
    async with scripted(psp.converse, context) as server_side:
        config = CONFIG.replace("URL", server_side.url).replace("FOLDER", str(folder))
        (folder / "config.yaml").write_text(config)
        cluster = psp.upstreams.plan(load(str(folder / "config.yaml")))["psp"]
        await psp.upstreams.adopt()
        try:
            yield psp, cluster
        finally:
            await psp.upstreams.close()


async def test_an_upstream_is_shown_the_new_certificate_at_the_next_look_and_stays_the_same_object(
    tmp_path: Path, authority: Authority
) -> None:
    async with calling(tmp_path, authority) as (psp, cluster):
        first = (tmp_path / "live.pem").read_bytes()
        for _ in range(2):
            await psp.look()
            assert await psp.call(cluster) == b"ok"
        assert len(psp.shown) == 1
        second = psp.put(authority)
        await psp.look()
        assert await psp.call(cluster) == b"ok"
        assert (tmp_path / "live.pem").read_bytes() != first
        assert psp.shown[1:] == [second.der()]
        assert psp.telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("upstreams.psp", "applied")] == 1
        assert psp.upstreams.plan(load(str(tmp_path / "config.yaml")))["psp"] is cluster


async def test_a_bad_certificate_toward_an_upstream_changes_nothing_and_is_told_of_once(
    tmp_path: Path, authority: Authority
) -> None:
    async with calling(tmp_path, authority) as (psp, cluster):
        (tmp_path / "live.key").write_bytes(b"-----BEGIN NONSENSE-----\n")
        for _ in range(4):
            await psp.look()
            assert await psp.call(cluster) == b"ok"
        assert psp.telemetry.counts[Metric.CERTIFICATE_RENEWALS, ("upstreams.psp", "rejected")] == 1
        assert [line["upstream"] for line in psp.telemetry.lines if line["event"] == "certificate_rejected"] == ["psp"]
        assert len(psp.shown) == 1
