"""Two hosts with a gateway each, one with the database, one with provider and stream; a link is cut, and healed.

The host that is cut off from the database says so to who asks it, and does no harm when it is back; the other one goes
on with what it left. Clients turn to either. The accounts are those of `money`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis

from examples.demo.wire import Answer
from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.faults.cluster import LEASE, SOON, copied, rewrite
from tests.faults.hosts import Hosts
from tests.faults.money import Money
from tests.faults.oracle import Harm
from tests.faults.street import PAY, ProviderProcess, furnish, post
from tests.faults.tcp import Network
from tests.postgres import QUICK, Server, running_postgres
from tests.servers import VOLATILE, running_redis

LINKS = {"a": ("db", "out"), "b": ("db", "out")}
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
class Answers:
    """What clients were told by each host while the link was cut, and how many payments were made meanwhile."""

    statuses: dict[str, set[int]] = field(default_factory=lambda: {"a": set(), "b": set()})
    paid: int = 0


class Divided(Money):
    """Two gateways, started on their hosts; nobody is in between but the links, and no shop hears of payments."""

    def __init__(self, hosts: Hosts, gateways: dict[str, Gateway], provider: ProviderProcess, seed: int) -> None:
        super().__init__(gateways["a"], provider, Network(0), seed)
        self._hosts = hosts
        self._gateways = gateways
        self._cut = False
        self.answers = Answers()

    async def disturb(self, times: int) -> None:
        """a is cut off from the database for so many seconds."""
        await asyncio.sleep(BEFORE)
        self._hosts.cut("a", "db")
        paid, self._cut = len(self._told), True
        await asyncio.sleep(times)
        self.answers.paid, self._cut = len(self._told) - paid, False
        self._hosts.heal("a", "db")
        await asyncio.sleep(AFTER)

    async def ask(self, content: object, reference: str) -> Answer:
        """Of one host or the other."""
        host, cut = self._random.choice(sorted(self._gateways)), self._cut
        asking = partial(post, self._gateways[host].ports["edge"], PAY, content, reference, PATIENCE)
        answer = await asyncio.to_thread(self._hosts.within, host, asking)
        if cut and self._cut:
            self.answers.statuses[host].add(answer.status)
        return answer

    async def count_in(self, server: Server, database: str, stream: redis.Redis) -> list[Harm]:
        """Wait for the last event, end both, and compare all accounts."""
        await asyncio.to_thread(wait_until, self._all_published, END_SECONDS, "the last event", 0.2)
        entries: Any = await asyncio.to_thread(self._hosts.within, "out", lambda: stream.xrange("pangate:events"))
        heard = [(fields[b"subject"].decode(), int(fields[b"sequence"])) for _, fields in entries]
        for host, gateway in self._gateways.items():
            await asyncio.to_thread(self._hosts.within, host, gateway.stop)
        db = await copied(server, database)
        harm = self.accounts(db, self._provider.entries(), heard)
        db.close()
        return harm

    def _all_published(self) -> bool:
        gateway = self._gateways["b"]
        try:
            status, listed = self._hosts.within("b", lambda: gateway.admin("/events?state=pending"))
        except OSError:  # it begins anew
            return False
        return status == 200 and not json.loads(listed)["events"]


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


async def attack(folder: Path, hosts: Hosts, seed: int, cut_seconds: int) -> tuple[list[Harm], Answers]:
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
        divided = Divided(hosts, gateways, provider, seed)
        await divided.kill(cut_seconds)
        return await divided.count_in(server, name, redis.Redis.from_url(stream.url)), divided.answers


def with_stream(config: Path) -> None:
    """Events go to a stream in place of a webhook."""
    text = config.read_text()
    before, _, rest = text.partition("events:\n")
    config.write_text(before + _STREAM + rest.partition("policies:")[2])
