"""The store on PostgreSQL: many gateways, one truth.

    commit(unit) -> queue of its tenant -> [ BEGIN   the steps of all its units together   COMMIT ] -> answers

Each tenant has one transaction under way at a time, and no transaction is of two tenants. While one is under way the
next gathers behind it, as on SQLite. Other gateways write at the same time: so a handler holds what it is about to
judge (a payment, a name, a claim), and PostgreSQL makes the others wait for the end of the transaction. READ COMMITTED
is enough for that, and needs nobody to start again; where somebody has to all the same (a deadlock, a connection lost
before COMMIT), the whole transaction is run once more, for a unit depends on nothing but the database.

A connection that is lost while COMMIT is under way leaves its units in doubt; they are `CommitInDoubt` then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import asyncpg

from gateway.adapters import postgres_nodes as nodes
from gateway.adapters.postgres_connections import LOST, Address, Connection, Connections
from gateway.adapters.postgres_nodes import Node, TakenOver
from gateway.adapters.postgres_schema import read_schema
from gateway.adapters.postgres_steps import run_alone, run_units
from gateway.adapters.postgres_touches import Thing, tenant_of, touched
from gateway.adapters.store_queue import BATCH_UNITS_MAX, GATHERING_TURNS_MAX, QUEUE_UNITS_MAX, Waiting, unavailable
from gateway.operations import Operation, Row, Rows
from gateway.ports import Clock, Telemetry, Unavailable
from gateway.pure.metrics import Metric

T = TypeVar("T")
_TRIES = 5
"""How often a transaction is begun that fails for reasons of its own."""
_TRANSIENT = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)


class _LostInCommitError(Exception):
    """The connection was lost while COMMIT was under way."""


_AWAY = (*_TRANSIENT, *LOST, asyncpg.QueryCanceledError, _LostInCommitError)
"""Errors that are no unit's."""


async def open_postgres(
    address: Address, *, node: str, clock: Clock, telemetry: Telemetry, lease: float, chain: str = "gateway"
) -> PostgresStore:
    """The store in a database that has been migrated.

    `node` names this gateway, of all that use the database: one that starts again under its name finds out at once
    about what it left, others when its lease of so many seconds has run out. `chain` names what it writes of the audit;
    gateways may share one, and then wait for one another. Raises ValueError with a sentence for the
    operator when the database cannot be used.
    """
    connections = Connections(address)
    try:
        async with connections.taken() as connection:
            complaint = (await read_schema(connection)).complaint()
            if complaint:
                raise ValueError(f"store: {complaint}")
            life = await nodes.join(connection, node, lease)
            connections.hold_as(life.holder, life.alive)
            await nodes.take_over(connection, life, clock.now(), expire=False)
    except (asyncpg.PostgresError, *LOST) as error:
        raise ValueError(f"store: PostgreSQL at {address.host} cannot be used: {type(error).__name__}") from error
    finally:
        await connections.close()
    return PostgresStore(connections, life, lease, clock, telemetry, chain)


class PostgresStore:
    """Implements `ports.Store`. Made by `open_postgres`; belongs to the event loop that it was made on."""

    def __init__(
        self, connections: Connections, node: Node, lease: float, clock: Clock, telemetry: Telemetry, chain: str
    ) -> None:
        self.node = node
        self._chain = chain
        self.lease = lease
        """Seconds for which `renew` holds."""
        self._connections = connections
        self._apart = Connections(replace(connections.address, most=1))
        """For the lease, which is renewed however much there is to commit."""
        self._clock = clock
        self._telemetry = telemetry
        self._queues: dict[str | None, deque[Waiting]] = {}
        """By tenant; None: units that look after all tenants."""
        self._waiting = 0
        self._working: dict[str | None, asyncio.Task[None]] = {}
        self._closing = False

    def commit(self, unit: Sequence[Operation[Row]]) -> asyncio.Future[Rows]:
        """All of the unit, durable on return, or (`refused` set) nothing of it.

        Raises `Unavailable`, and whatever a callable of an operation raised; ValueError for a unit of two tenants. A
        caller that is cancelled does not know what became of its unit.
        """
        if self._closing or self._waiting >= QUEUE_UNITS_MAX:
            raise Unavailable("store")
        operations = tuple(unit)
        tenant = tenant_of(operations)
        waiting = Waiting(operations, Rows(operations), asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(waiting)
        self._waiting += 1
        if tenant not in self._working:
            self._working[tenant] = asyncio.create_task(self._work(tenant))
        return waiting.future

    async def close(self) -> None:
        """Finish what is gathered, end the lease, and close the connections."""
        self._closing = True
        while self._working:
            await asyncio.wait(list(self._working.values()))
        with contextlib.suppress(Unavailable):
            await self._asking(lambda connection: nodes.leave(connection, self.node))
        await self._connections.close()
        await self._apart.close()

    # --- the lease

    async def renew(self) -> bool:
        """Live on for `lease`. False: others took this node for dead; what it held is theirs to find out about, and it
        writes nothing more. Raises `Unavailable`.
        """
        return await self._asking(lambda connection: nodes.renew(connection, self.node, self.lease))

    async def take_over(self, *, expire: bool) -> TakenOver:
        """Make unknown what nobody holds any more; with `expire`, those are dead whose lease has run out. Raises
        `Unavailable`.
        """
        now = self._clock.now()
        return await self._asking(lambda connection: nodes.take_over(connection, self.node, now, expire=expire))

    async def _asking(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            async with self._apart.taken() as connection:
                return await ask(connection)
        except (asyncpg.PostgresError, *LOST) as error:
            raise unavailable(error) from error

    async def _work(self, tenant: str | None) -> None:
        """Until nobody of this tenant waits. Raises nothing."""
        queue = self._queues[tenant]
        while queue:
            await self._gather(queue)
            batch = _batch(queue) if tenant is not None else [queue.popleft()]
            self._waiting -= len(batch)
            later = await self._write(tenant, batch)
            self._waiting += len(later)
            queue.extendleft(reversed(later))
            done = [waiting for waiting in batch if waiting not in later] if later else batch
            for result, units in Counter(waiting.result for waiting in done).items():
                self._telemetry.count(Metric.STORE_UNITS, result, by=units)
            for waiting in done:
                waiting.answer()
        del self._queues[tenant], self._working[tenant]

    async def _gather(self, queue: deque[Waiting]) -> None:
        """Wait for company as long as every turn of the loop brings some; it costs a lone unit one turn."""
        seen = 0
        for _ in range(GATHERING_TURNS_MAX):
            if len(queue) <= seen or self._closing:
                return
            seen = len(queue)
            await asyncio.sleep(0)

    # --- writing

    async def _write(self, tenant: str | None, batch: list[Waiting]) -> list[Waiting]:
        """Run the units and commit; sets the errors. The units that have to wait. Raises nothing."""
        began = self._clock.monotonic()
        try:
            wrote, later = await self._transact(tenant, batch)
        except _AWAY as error:
            self._fail(batch, error)
            return []
        except BaseException as error:  # noqa: BLE001 - whatever it was: the store that all wait for goes on
            if len(batch) > 1:
                return await self._one_by_one(tenant, batch)
            self._fail(batch, error)
            return []
        if wrote:
            self._telemetry.count(Metric.STORE_COMMITS)
            self._telemetry.observe(Metric.STORE_COMMIT_SECONDS, self._clock.monotonic() - began)
        return later

    async def _one_by_one(self, tenant: str | None, batch: list[Waiting]) -> list[Waiting]:
        """One of these units cannot be run, whoever runs it: let the others not be harmed by it."""
        for waiting in batch:
            await self._write(tenant, [waiting])
        return []

    async def _transact(self, tenant: str | None, batch: list[Waiting]) -> tuple[bool, list[Waiting]]:
        """One transaction, begun as often as it takes; whether it wrote, and what has to wait."""
        for again in range(_TRIES, 0, -1):
            async with self._connections.taken() as connection:
                try:
                    if tenant is None:
                        return await run_alone(connection, *batch), []
                    return await run_units(connection, batch, self._chain)
                except _TRANSIENT as error:
                    if again == 1:
                        raise
                    self._log("store_began_again", error, level="info")
                except LOST as error:
                    if connection.committing:
                        raise _LostInCommitError from error
                    if again == 1 or isinstance(error, TimeoutError):
                        raise
        raise AssertionError("the last try ends it")

    def _fail(self, batch: list[Waiting], error: BaseException) -> None:
        self._log("store_failed", error, level="error", units=len(batch))
        for waiting in batch:
            waiting.error = unavailable(error, committing=isinstance(error, _LostInCommitError))

    def _log(self, event: str, error: BaseException, **fields: object) -> None:
        with contextlib.suppress(Exception):  # a line that cannot be written stops no payment
            self._telemetry.log(event, error=type(error).__name__, **fields)


def _batch(queue: deque[Waiting]) -> list[Waiting]:
    """From the front of a queue, the units that touch nothing that one before them touches; the others stay."""
    taken, left, things = list[Waiting](), list[Waiting](), set[Thing]()
    for _ in range(min(len(queue), BATCH_UNITS_MAX)):
        waiting = queue.popleft()
        touches = touched(waiting.unit)
        (taken if things.isdisjoint(touches) else left).append(waiting)
        things |= touches
    queue.extendleft(reversed(left))
    return taken
