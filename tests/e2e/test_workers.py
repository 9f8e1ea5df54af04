"""Several workers under a supervisor: whatever becomes of one, callers are served, and what was counted stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.crowd import ANSWER, GET, Crowd
from tests.e2e.harness import Gateway, free_ports, listens
from tests.e2e.workers_world import POLICY, SECONDS, Street, alive, lines, roll, seated, until
from tests.postgres import Server, connect, postgres_server
from tests.upstreams import Conversation, answering, scripted

__all__ = ["postgres_server"]

_LIVING = "SELECT count(*) FROM nodes WHERE leased_until > clock_timestamp()"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_dev_certificates(folder)
    return folder


@pytest.fixture
def store(postgres_server: Server) -> str:
    return postgres_server.migrated()


@pytest.fixture
def street(tmp_path: Path, certificates: Path, store: str) -> Street:
    return Street.laid_out(tmp_path, certificates / "services-ca.pem", store)


async def test_a_rolling_restart_under_500_connections_fails_no_request(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 4) as gateway:
        before = seated(gateway)
        crowd = Crowd(gateway.ports["edge"], 500, pause=1.0)
        await crowd.asked(500)
        await roll(gateway, 2)
        await until(lambda: not any(map(alive, before)), "the end of the first workers")
        await crowd.leaves()
        assert crowd.ends.keys() == {"answered"}
        assert not set(before) & set(seated(gateway))
        assert gateway.lines("worker_leads")[-1]["pid"] in seated(gateway)
        counted = await asyncio.to_thread(gateway.metric, "pangate_requests_total", code="200")
        assert counted == crowd.answered
        assert await asyncio.to_thread(gateway.metric, "pangate_worker_deaths_total") == 0


async def ask(gateway: Gateway) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["edge"])
    try:
        writer.write(GET)
        return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS))[:12]
    finally:
        writer.close()


async def ask_often(gateway: Gateway, times: int = 40) -> set[bytes]:
    return set(await asyncio.gather(*(ask(gateway) for _ in range(times))))


async def test_a_killed_worker_comes_back_its_counts_stay_and_the_others_serve(
    street: Street, postgres_server: Server
) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 3) as gateway:
        counted = partial(gateway.metric, "pangate_requests_total", code="200")
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}
        assert await asyncio.to_thread(counted) == 40
        before = seated(gateway)
        for deaths in (1, 2):
            leader = gateway.lines("worker_leads")[-1]["pid"]
            os.kill(leader, signal.SIGKILL)
            assert await ask_often(gateway) == {b"HTTP/1.1 200"}, "connections of the vacant seat are served too"
            assert await asyncio.to_thread(counted) >= 40, "what was counted is not taken back"
            await until(lambda: len(gateway.lines("worker_started")) == 3 + deaths, "a new worker")  # noqa: B023
            assert leader not in seated(gateway)
        led = [line["pid"] for line in gateway.lines("worker_leads")]
        assert (len(set(led)), led[-1] in seated(gateway)) == (3, True), "another one leads when the leader dies"
        assert len(set(before) & set(seated(gateway))) >= 1
        assert (await asyncio.to_thread(gateway.admin, "/payments"))[0] == 200, "the one that leads answers"
        assert await asyncio.to_thread(gateway.metric, "pangate_worker_deaths_total") == 2
        assert await asyncio.to_thread(gateway.metric, "pangate_workers") == 3
        figures = await asyncio.to_thread(gateway.samples, "process_resident_memory_bytes")
        assert {text.split('"')[1] for text in figures} == {"1", "2", "3", "supervisor"}
        assert await living(postgres_server, street.store) == 3, "each has a lease, and the dead one's was taken anew"


async def living(server: Server, url: str) -> int:
    """Nodes whose lease runs."""
    connection = await connect(server.of(url.split("/")[3].partition("?")[0]))
    try:
        found = await connection.fetchval(_LIVING)
    finally:
        await connection.close()
    assert isinstance(found, int)
    return found


async def test_a_worker_that_hangs_is_replaced(street: Street) -> None:
    impatient = replace(street, program=("-m", "tests.e2e.impatient"))
    async with scripted(answering(ANSWER)) as upstream, impatient.workers(upstream, 2) as gateway:
        hung = seated(gateway)[1]
        os.kill(hung, signal.SIGSTOP)
        await until(lambda: lines(gateway, "worker_started") == 3, "a new worker")
        assert [line["pid"] for line in gateway.lines("worker_hung")] == [hung]
        assert not alive(hung)
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}


async def test_a_good_configuration_is_taken_by_all_and_a_bad_one_by_none(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 3) as gateway:
        street.policy.write_text(POLICY.replace("ca:", "authority:"))
        await asyncio.to_thread(reload_refused, gateway)
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}
        os.kill(seated(gateway)[2], signal.SIGKILL)
        await until(lambda: lines(gateway, "worker_failed") >= 1, "a worker that cannot read the files")
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}
        street.policy.write_text(POLICY.replace("spiffe://shop.example/*", "spiffe://rival.example/*"))
        gateway.signal(signal.SIGHUP)
        await until(lambda: lines(gateway, "reloaded") >= 2, "the reload of those who are there")
        assert await ask_often(gateway) == {b"HTTP/1.1 403"}
        await until(lambda: lines(gateway, "worker_started") == 4, "the third worker")
        assert await ask_often(gateway) == {b"HTTP/1.1 403"}
        assert await asyncio.to_thread(gateway.metric, "pangate_config_last_reload_successful") == 1


def reload_refused(gateway: Gateway) -> None:
    address = f"http://127.0.0.1:{gateway.ports['admin']}/reload"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=SECONDS)
    with refused.value:
        assert refused.value.code == 409
        assert "no such setting" in str(json.loads(refused.value.read())["complaints"])
    assert gateway.metric("pangate_config_last_reload_successful") == 0


async def test_sigterm_lets_all_workers_finish_what_is_under_way(street: Street) -> None:
    released = asyncio.Event()

    async def hold(conversation: Conversation) -> None:
        await conversation.request()
        await released.wait()
        await conversation.send(ANSWER)

    async with scripted(hold) as upstream, street.workers(upstream, 3) as gateway:
        pids = seated(gateway)
        asked = [asyncio.create_task(ask(gateway)) for _ in range(12)]
        await asyncio.wait_for(upstream.until(lambda: len(upstream.requests) == 12), SECONDS)
        gateway.signal(signal.SIGTERM)
        await until(lambda: not listens(gateway.ports["edge"]), "closed sockets")
        assert (await asyncio.to_thread(gateway.admin, "/readyz"))[0] == 503
        assert not any(task.done() for task in asked)
        released.set()
        assert set(await asyncio.gather(*asked)) == {b"HTTP/1.1 200"}
        assert gateway.process is not None
        assert await asyncio.to_thread(gateway.process.wait, SECONDS) == 0
        assert not any(map(alive, pids))
        assert sum(line.get("cut_off", 0) for line in gateway.lines("stopped")) == 0


async def test_workers_do_not_outlive_their_supervisor(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 2) as gateway:
        pids = seated(gateway)
        await asyncio.to_thread(gateway.kill)
        await until(lambda: not any(map(alive, pids)), "the end of the workers")
        assert not listens(gateway.ports["edge"])


async def test_a_port_that_somebody_has_ends_the_start(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 2) as gateway:
        second = Gateway(street.folder, {**gateway.ports, "admin": free_ports("admin")["admin"]})
        with pytest.raises(AssertionError, match=r"ended with 1"):
            await asyncio.to_thread(second.start, "admin")
        assert "Address already in use" in second.log()
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}
