"""Two hosts with a gateway each, one with the database, one with provider and stream; a link is cut, and healed.

The host that is cut off from the database says so to who asks it, and does no harm when it is back; the other one goes
on with what it left. Clients turn to either. The accounts are those of `money`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from examples.demo.wire import Answer
from gateway.adapters.keys import FileKeys
from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.faults.accounts import books, held, moved, told, written
from tests.faults.cluster import LEASE, SOON, copied, rewrite
from tests.faults.hosts import Hosts
from tests.faults.oracle import Harm, Movement, balanced, conservation, delivered
from tests.faults.street import CALLER, PAY, ProviderProcess, furnish, post
from tests.postgres import QUICK, Server, running_postgres
from tests.servers import VOLATILE, running_redis

LINKS = {"a": ("db", "out"), "b": ("db", "out")}
CLIENTS = 6
PATIENCE = 15.0
"""Longer than the gateway waits for a database that says nothing."""
BEFORE, AFTER = 4.0, 4.0
"""Seconds under load around the time that the link is cut."""
END_SECONDS = 60.0
HONEST = {201, 409, 502, 503, 504}
_ANYWHERE = "0.0.0.0"
_CONFIGURED = (
    ("store: ${STORE:-sqlite:var/faults.db}\n", 'store: {url: "${STORE}", lease: "${LEASE}"}\n'),
    ('"http://127.0.0.1:${PANGATE_PROVIDER_PORT}"', '"http://${OUT}:${PANGATE_PROVIDER_PORT}"'),
)
_STREAM = 'events:\n  publish: [{kind: redis_stream, url: "redis://${OUT}:${PANGATE_STREAM_PORT}"}]\npolicies:'


@dataclass
class Found:
    """What clients were answered by each host while the link was cut, and what came of it all."""

    statuses: dict[str, set[int]] = field(default_factory=lambda: {"a": set(), "b": set()})
    paid_meanwhile: int = 0
    effects: int = 0
    harm: list[Harm] = field(default_factory=list)


class Street:
    """Two gateways, started on their hosts."""

    def __init__(self, hosts: Hosts, gateways: dict[str, Gateway], provider: ProviderProcess, seed: int) -> None:
        self._hosts = hosts
        self._gateways = gateways
        self._provider = provider
        self._random = random.Random(seed)
        self._told: dict[str, Movement] = {}
        self._asked: set[str] = set()
        self._cut = self._over = False
        self.found = Found()

    async def live(self, cut_seconds: float) -> None:
        """Clients pay; a is cut off from the database for so long."""
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        await asyncio.sleep(BEFORE)
        self._hosts.cut("a", "db")
        paid, self._cut = len(self._told), True
        await asyncio.sleep(cut_seconds)
        self.found.paid_meanwhile, self._cut = len(self._told) - paid, False
        self._hosts.heal("a", "db")
        await asyncio.sleep(AFTER)
        self._over = True
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*clients)

    async def weigh(self, server: Server, database: str, stream: redis.Redis) -> Found:
        """Wait for the last event, end both, and compare all accounts."""
        await asyncio.to_thread(wait_until, self._all_published, END_SECONDS, "the last event", 0.2)
        entries: Any = await asyncio.to_thread(self._hosts.within, "out", lambda: stream.xrange("pangate:events"))
        heard = [(fields[b"subject"].decode(), int(fields[b"sequence"])) for _, fields in entries]
        for host, gateway in self._gateways.items():
            await asyncio.to_thread(self._hosts.within, host, gateway.stop)
        happened = [moved(entry) for entry in self._provider.entries()]
        keys = FileKeys(self._gateways["a"].folder / "certs" / "vault.key")
        db = await copied(server, database)
        harm = conservation(happened, self._told, held(db, keys, "faults", CALLER, "pay", self._asked))
        self.found.harm = [*harm, *balanced(happened, books(db)), *delivered(heard, written(db))]
        self.found.effects = len(happened)
        db.close()
        return self.found

    def _all_published(self) -> bool:
        gateway = self._gateways["b"]
        try:
            status, listed = self._hosts.within("b", lambda: gateway.admin("/events?state=pending"))
        except OSError:  # it begins anew
            return False
        return status == 200 and not json.loads(listed)["events"]

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._over:
            turn += 1
            await self._pay(f"client-{number}-{turn}", self._random.randint(1, 10_000))

    async def _pay(self, reference: str, amount: int) -> None:
        """Ask one host or the other until there is an answer."""
        self._asked.add(reference)
        content = {"amount": amount, "currency": "EUR", "reference": reference, "capture": True}
        while True:
            host, cut = self._random.choice(sorted(self._gateways)), self._cut
            with contextlib.suppress(OSError, ValueError, IndexError):
                answer = await asyncio.to_thread(self._hosts.within, host, self._asking(host, content, reference))
                if cut and self._cut:
                    self.found.statuses[host].add(answer.status)
                if answer.status == 201:
                    self._told[reference] = told(answer.json())
                    return
            await asyncio.sleep(0.02)

    def _asking(self, host: str, content: object, reference: str) -> Any:
        def ask() -> Answer:
            return post(self._gateways[host].ports["edge"], PAY, content, reference, PATIENCE)

        return ask


@contextlib.contextmanager
def database(hosts: Hosts) -> Iterator[tuple[Server, str]]:
    """A server on its host, reached over its links, and a migrated database in it."""
    running = running_postgres((*QUICK, "listen_addresses=*"))
    server = hosts.within("db", running.__enter__)
    try:
        with (server.directory / "data" / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.77.0.0/16 trust\n")
        assert server.run("pg_ctl", "reload", "-D", str(server.directory / "data")).wait() == 0
        yield server, server.migrated().removeprefix("postgresql:///").partition("?")[0]
    finally:
        running.__exit__(None, None, None)


async def attack(folder: Path, hosts: Hosts, seed: int, cut_seconds: float) -> Found:
    """The promise: no harm, and nothing but honest answers."""
    ports = free_ports("a", "b", "admin", "shop", "provider")
    provider = furnish(folder / "a", ports["a"], ports["provider"], ("--seed", str(seed), "--host", _ANYWHERE))
    rewrite(folder / "a" / "config.yaml", _CONFIGURED)
    with_stream(folder / "a" / "config.yaml")
    shutil.copytree(folder / "a", folder / "b")
    with contextlib.ExitStack() as stack:
        server, name = await asyncio.to_thread(stack.enter_context, database(hosts))
        valkey = running_redis(folder, *VOLATILE, "--bind", _ANYWHERE, "--protected-mode", "no")
        stream = await asyncio.to_thread(hosts.within, "out", valkey.__enter__)
        stack.callback(valkey.__exit__, None, None, None)
        await asyncio.to_thread(hosts.within, "out", provider.start)
        stack.callback(provider.kill)
        gateways = {}
        for host in ("a", "b"):
            env = {
                "STORE": f"postgresql://{hosts.address('db', host)}/{name}",
                "OUT": hosts.address("out", host),
                "LEASE": LEASE,
                **SOON,
            }
            gateways[host] = Gateway(folder / host, {**ports, "edge": ports[host], "stream": stream.port}, env=env)
            await asyncio.to_thread(hosts.within, host, gateways[host].start)
            stack.callback(lambda gateway=gateways[host]: gateway.process.poll() is None and gateway.kill())
        found = Street(hosts, gateways, provider, seed)
        await found.live(cut_seconds)
        return await found.weigh(server, name, redis.Redis.from_url(stream.url))


def with_stream(config: Path) -> None:
    """Events go to a stream in place of a webhook."""
    text = config.read_text()
    before, _, rest = text.partition("events:\n")
    config.write_text(before + _STREAM + rest.partition("policies:")[2])
