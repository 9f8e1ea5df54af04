"""Several gateways on one PostgreSQL and one Redis: killed, or stopped for longer than their leases, as money moves.

Clients turn to any of the gateways, and to another one when they get no answer. A gateway that wakes up after others
took it for dead ends by itself, and is started again here, as whoever looks after a machine would. The accounts are
those of `money`, with the rows that are in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import apsw

from tests.e2e.harness import Gateway, free_ports
from tests.faults.money import EVENTS_SECONDS, QUIET_SECONDS, TEMPER, Found, Money, served
from tests.faults.programs import PRODUCT
from tests.faults.street import PATIENT, ProviderProcess, Street, furnish
from tests.faults.tcp import Network, proxied
from tests.postgres import Server, connect
from tests.servers import RunningRedis, running_redis

NODES = 3
LEASE = "1500ms"
SOON = {"TOTAL": "1s", "IN_FLIGHT_MAX": "3s"}
"""What a provider that takes 0.8 s may be given, so that what is in doubt is found out about while this runs."""
APART = (0.1, 0.5)
"""Seconds between two disturbances."""
AWAY = (0.05, 1.0)
"""Seconds until a killed gateway is started again."""
STILL = (0.2, 3.0)
"""Seconds for which a gateway is stopped: often longer than its lease."""
LOOK_SECONDS = 0.1
STALLED_SECONDS = 15.0
KEYLESS = TEMPER
KEYED = tuple(option for option in TEMPER if option != "--ignore-keys")
"""Of the provider: whether it knows a key that it has seen."""
_TABLES = {
    "keys": ("scope", "state", "response"),
    "payments": ("id", "alias", "captured", "pending", "events", "violation"),
    "outbox": ("aggregateid", "sequence", "payload"),
}
_CONFIGURED = (
    ("store: ${STORE:-sqlite:var/faults.db}\n", 'store: {url: "${STORE}", lease: "${LEASE}"}\nshared: ${SHARED}\n'),
)
_LIMITED = (
    ("  - {kind: idempotency", "  - {kind: rate_limit, key: [mtls.san], rate: 100000/second}\n  - {kind: idempotency"),
)


C = TypeVar("C", bound="Cluster")


class Cluster(Money):
    """The first of the gateways is the one that webhooks go to."""

    patience = 1.5
    linger = 0.0
    """Seconds that clients go on when nothing is done to the gateways any more."""

    def __init__(self, nodes: Sequence[Gateway], provider: ProviderProcess, network: Network, seed: int) -> None:
        super().__init__(nodes[0], provider, network, seed)
        self._nodes = nodes
        self._away: set[int] = set()
        self._deeds: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def edge(self) -> int:
        return self._random.choice(self._nodes).ports["edge"]

    async def disturb(self, times: int) -> None:
        """Kill as often as that and stop as often, in any order; one gateway at least is always there."""
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self._nodes))
        self._keeper = asyncio.create_task(self._keep_alive())
        todo = [self._kill] * times + [self._stop] * times
        self._random.shuffle(todo)
        for deed in todo:
            self.weather()
            await asyncio.sleep(self._random.uniform(*APART))
            while len(self._away) >= len(self._nodes) - 1:
                await asyncio.wait(self._deeds, return_when=asyncio.FIRST_COMPLETED)
            number = self._random.choice([n for n in range(len(self._nodes)) if n not in self._away])
            self._away.add(number)
            task = asyncio.create_task(self._disturbed(number, deed))
            self._deeds.add(task)
            task.add_done_callback(self._deeds.discard)
        await asyncio.gather(*self._deeds)
        await asyncio.sleep(self.linger)

    async def stop(self) -> None:
        """End all gateways, at once or in order."""
        if self._keeper is not None:
            self._keeper.cancel()
        for node in self._nodes:
            if node.process is not None:
                await asyncio.to_thread(node.stop)

    async def count_in(self, server: Server, database: str, kills: int) -> Found:
        await asyncio.sleep(QUIET_SECONDS)
        await self._until(self._all_told, EVENTS_SECONDS)
        await self.stop()
        db = await copied(server, database)
        found = self.weigh(db, kills)
        db.close()
        return found

    def _all_told(self) -> bool:
        try:
            return super()._all_told()
        except OSError:  # the one that is asked begins anew
            return False

    async def _disturbed(self, number: int, deed: Callable[[Gateway], Awaitable[None]]) -> None:
        try:
            await deed(self._nodes[number])
        finally:
            self._away.discard(number)

    async def _kill(self, node: Gateway) -> None:
        node.kill()
        await asyncio.sleep(self._random.uniform(*AWAY))
        await asyncio.to_thread(node.start)

    async def _stop(self, node: Gateway) -> None:
        if not _dead(node):
            node.signal(signal.SIGSTOP)
            await asyncio.sleep(self._random.uniform(*STILL))
            node.signal(signal.SIGCONT)

    async def _keep_alive(self) -> None:
        """Start again what has ended by itself."""
        while True:
            for number, node in enumerate(self._nodes):
                if number not in self._away and _dead(node):
                    await asyncio.to_thread(node.start)
            await asyncio.sleep(LOOK_SECONDS)


def _dead(node: Gateway) -> bool:
    return node.process is None or node.process.poll() is not None


async def copied(server: Server, database: str) -> apsw.Connection:
    """The rows that the accounts are made from, where they can be asked for as those of SQLite."""
    db = apsw.Connection(":memory:")
    connection = await connect(server.of(database))
    for table, columns in _TABLES.items():
        names = ", ".join(columns)
        db.execute(f"CREATE TABLE {table} ({names})")
        rows = [tuple(row) for row in await connection.fetch(f"SELECT {names} FROM {table}")]
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
    await connection.close()
    return db


def gateways(
    folder: Path, store: str, redis: str, provider: int, program: Sequence[str], times: Mapping[str, str] = SOON
) -> list[Gateway]:
    """Not started; each in a folder of its own below this one, with the keys and certificates of the first."""
    nodes = []
    found = free_ports("shop", *(f"{name}-{number}" for name in ("edge", "admin") for number in range(NODES)))
    for number in range(NODES):
        place = folder / f"node-{number}"
        ports = {name: found[f"{name}-{number}"] for name in ("edge", "admin")}
        ports |= {"shop": found["shop"], "provider": provider}
        env = {"STORE": store, "SHARED": redis, "LEASE": LEASE, **times, "PYTHONDONTWRITEBYTECODE": ""}
        nodes.append(Gateway(place, ports, env=env, program=program))
    return nodes


@contextmanager
def cluster_street(folder: Path, server: Server, options: Sequence[str]) -> Iterator[Street]:
    """Three gateways that wait for their provider, and nobody in between."""
    store, bank = server.migrated(), free_ports("bank")["bank"]
    with running_redis(folder) as redis:
        nodes = gateways(folder / "nodes", store, redis.url, bank, PRODUCT, PATIENT)
        provider = furnished(nodes, bank, options)
        provider.start()
        try:
            for node in nodes:
                node.start()
            yield Street(nodes[0], provider, nodes[1:])
        finally:
            for node in nodes:
                node.stop()
            provider.kill()


def furnished(nodes: Sequence[Gateway], bank: int, options: Sequence[str]) -> ProviderProcess:
    """All that these gateways need, and the provider, not started, which tells the first of them what it does."""
    first = nodes[0]
    provider = furnish(first.folder, first.ports["edge"], bank, options)
    rewrite(first.folder / "config.yaml", _CONFIGURED)
    for policy in (first.folder / "policies").glob("*.yaml"):
        rewrite(policy, _LIMITED)
    for node in nodes[1:]:
        shutil.copytree(first.folder, node.folder)
    return provider


def rewrite(file: Path, pairs: Sequence[tuple[str, str]]) -> None:
    text = file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


@asynccontextmanager
async def clustered(
    kind: Callable[[Sequence[Gateway], ProviderProcess, Network, int], C],
    folder: Path,
    server: Server,
    seed: int,
    program: Sequence[str] = PRODUCT,
    temper: Sequence[str] = TEMPER,
) -> AsyncIterator[tuple[C, str, RunningRedis]]:
    """Gateways that are not started, with a provider that is; their database's name, and their Redis.

    `program` may be a gateway that is broken on purpose.
    """
    store = await asyncio.to_thread(server.migrated)
    database = store.removeprefix("postgresql:///").partition("?")[0]
    bank = free_ports("bank")["bank"]
    with running_redis(folder) as redis:
        async with proxied(bank) as network:
            nodes = gateways(folder / "nodes", store, redis.url, network.port, program)
            provider = furnished(nodes, bank, ("--seed", str(seed), *temper))
            cluster = kind(nodes, provider, network, seed)
            async with served(cluster, nodes[0].ports["shop"]):
                await asyncio.to_thread(provider.start)
                try:
                    yield cluster, database, redis
                finally:
                    await cluster.stop()
                    provider.kill()


async def attack(
    folder: Path,
    server: Server,
    times: int,
    seed: int,
    program: Sequence[str] = PRODUCT,
    temper: Sequence[str] = TEMPER,
    linger: float = 0.0,
) -> Found:
    """So many kills and as many stops, then `linger` seconds in which all gateways are left alone: no harm is done."""
    async with clustered(Cluster, folder, server, seed, program, temper) as (cluster, database, _):
        cluster.linger = linger
        await cluster.kill(times)
        return await cluster.count_in(server, database, 2 * times)


async def stall(folder: Path, server: Server, seed: int, program: Sequence[str]) -> Found:
    """Nobody is disturbed from outside: the gateways themselves stand still between commit and write."""
    return await attack(folder, server, 0, seed, program, linger=STALLED_SECONDS)
