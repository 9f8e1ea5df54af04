"""Several workers under a supervisor: whatever becomes of one, callers are served, and what was counted stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports, listens, wait_until
from tests.postgres import Server, postgres_server
from tests.upstreams import Conversation, ScriptedUpstream, answering, scripted

__all__ = ["postgres_server"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /pay HTTP/1.1\r\nHost: shop.example\r\n\r\n"
SECONDS = 20.0
CONFIG = """\
version: 1
workers: {workers}
listeners:
  edge: {{bind: "127.0.0.1:${{PANGATE_EDGE_PORT}}", identity: "spiffe://shop.example/web", limits: {limits}}}
admin: {{bind: "127.0.0.1:${{PANGATE_ADMIN_PORT}}"}}
store: "{store}"
upstreams:
  pay: {{url: "http://127.0.0.1:{upstream}", timeouts: {{connect: 10s, total: 20s}}}}
routes:
  - {{name: pay, listener: edge, match: {{path: /pay}}, policy: known, upstream: pay}}
drain: 10s
"""
POLICY = "rules:\n  - {kind: mtls, ca: ca.pem, san: ['spiffe://shop.example/*']}\n"


@dataclass
class Street:
    """What workers stand on: a folder with a configuration, and a database."""

    folder: Path
    store: str

    @asynccontextmanager
    async def workers(self, upstream: ScriptedUpstream, number: int) -> AsyncIterator[Gateway]:
        """All of them serve."""
        limits = "{max_connections_per_address: 2000}"
        text = CONFIG.format(workers=number, upstream=upstream.port, store=self.store, limits=limits)
        (self.folder / "config.yaml").write_text(text)
        gateway = Gateway(self.folder, free_ports("edge", "admin"))
        try:
            await asyncio.to_thread(gateway.start, "admin")
            yield gateway
        finally:
            await asyncio.to_thread(gateway.stop)

    @property
    def policy(self) -> Path:
        return self.folder / "policies" / "known.yaml"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_dev_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def store(postgres_server: Server) -> str:
    return postgres_server.migrated()


@pytest.fixture
def street(tmp_path: Path, certificates: Path, store: str) -> Street:
    street = Street(tmp_path, store)
    street.policy.parent.mkdir()
    street.policy.write_text(POLICY)
    (tmp_path / "ca.pem").write_bytes((certificates / "services-ca.pem").read_bytes())
    return street


def seated(gateway: Gateway) -> list[int]:
    """The processes of the workers that began last, by seat."""
    begun = {line["seat"]: line["pid"] for line in gateway.lines("worker_started")}
    return [begun[seat] for seat in sorted(begun)]


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def lines(gateway: Gateway, event: str) -> int:
    return len(gateway.lines(event))


async def until(happened: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    await asyncio.to_thread(wait_until, happened, seconds, what, 0.05)


class Crowd:
    """Callers with a kept-alive connection each, who ask again and again, and connect anew when told to close."""

    def __init__(self, gateway: Gateway, callers: int, pause: float) -> None:
        self.ends: Counter[str] = Counter()
        self.answered = 0
        self._port = gateway.ports["edge"]
        self._pause = pause
        self._over = asyncio.Event()
        self._callers = [asyncio.create_task(self._call()) for _ in range(callers)]

    async def _call(self) -> None:
        while not self._over.is_set():
            try:
                await self._ask_over_one_connection()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.ends[type(error).__name__] += 1

    async def _ask_over_one_connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            told_to_close = False
            while not told_to_close and not self._over.is_set():
                writer.write(GET)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(2) if head.startswith(b"HTTP/1.1 200") else await reader.read()
                self.answered += 1
                told_to_close = b"connection: close" in head.lower()
                self.ends["answered" if body == b"ok" else body.decode()] += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), 0 if told_to_close else self._pause)
        finally:
            writer.close()

    async def leaves(self) -> None:
        self._over.set()
        await asyncio.gather(*self._callers)


async def roll(gateway: Gateway, times: int) -> None:
    for n in range(times):
        gateway.signal(signal.SIGUSR2)
        await until(lambda n=n: lines(gateway, "rolled") > n, "a rolling restart", 60)  # type: ignore[misc]


async def test_a_rolling_restart_under_500_connections_fails_no_request(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 4) as gateway:
        before = seated(gateway)
        crowd = Crowd(gateway, 500, pause=1.0)
        while crowd.answered < 500:  # noqa: ASYNC110 - any of them
            await asyncio.sleep(0.01)
        await roll(gateway, 2)
        await until(lambda: not any(map(alive, before)), "the end of the first workers", 30)
        await crowd.leaves()
        assert crowd.ends.keys() == {"answered"}
        assert not set(before) & set(seated(gateway))
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


async def test_a_killed_worker_comes_back_its_counts_stay_and_the_others_serve(street: Street) -> None:
    async with scripted(answering(ANSWER)) as upstream, street.workers(upstream, 3) as gateway:
        assert await ask_often(gateway) == {b"HTTP/1.1 200"}
        counted = lambda: gateway.metric("pangate_requests_total", code="200")  # noqa: E731
        assert await asyncio.to_thread(counted) == 40
        first, *others = seated(gateway)
        for deaths in range(1, 4):
            os.kill(first, signal.SIGKILL)
            assert await ask_often(gateway) == {b"HTTP/1.1 200"}, "connections of the vacant seat are served too"
            assert await asyncio.to_thread(counted) >= 40 * deaths
            await until(lambda: seated(gateway)[0] != first, "a new worker")  # noqa: B023
            first = seated(gateway)[0]
        assert seated(gateway)[1:] == others
        assert await asyncio.to_thread(gateway.metric, "pangate_worker_deaths_total") == 3
        assert await asyncio.to_thread(gateway.metric, "pangate_workers") == 3
        assert await asyncio.to_thread(counted) >= 160 - 40 * 3 / 3
        figures = await asyncio.to_thread(gateway.samples, "process_resident_memory_bytes")
        assert {text.split('"')[1] for text in figures} == {"1", "2", "3", "supervisor"}


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
    import urllib.error
    import urllib.request

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
