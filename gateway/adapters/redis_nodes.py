"""Commands on the servers that hold their keys, each one atomic, many to a round trip, and none of them done twice.

Who gets no answer in time gets an exception, and the connection is thrown away with whatever may still arrive on it. A
server that failed is asked again in the background, soon and then twice a second; nobody waits for it in the
meantime.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as NotConnected

from gateway.adapters.redis_node import Address, Command, Node
from gateway.adapters.redis_topology import SLOTS, Topology
from gateway.ports import Telemetry, Unavailable

_LOOK_EVERY = 5.0
"""Seconds after which the topology is looked at again although nothing went wrong."""
_LOOK_APART = 0.05
_PROBE_PAUSES = (0.05, 0.5)
"""The first pause between probes of a server that failed, and the longest."""
_PROBE_SECONDS = 2.0
"""For connecting to a server that is lost: longer than any call may take, so that a slow handshake ends once."""
_MIGRATING_PAUSE = 0.01
_NO_ANSWER = (LookupError, ValueError, TypeError, AttributeError)
"""What comes of an answer about the topology that is none."""
_UNASKED = NotConnected("nobody was asked")


class Script:
    """A script and the name by which the server knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Call:
    """A command, and in the end what came of it. `key` is what it is about, or one of several of one hash tag."""

    __slots__ = ("_key", "answer", "asking", "command", "node")

    def __init__(self, key: str, command: Command) -> None:
        self._key = key
        self.command = command
        self.answer: Any = _UNASKED
        """An exception if there is none."""
        self.node: Node | None = None
        """Where a server said that it is to be sent, `asking` (a slot is on its way there) or for good."""
        self.asking = False

    @property
    def slot(self) -> int:
        slot: int = key_slot(self._key.encode())
        return slot

    @property
    def failed(self) -> bool:
        return isinstance(self.answer, Exception)

    def spell_out(self) -> bool:
        """The server does not know the script by its name. Is there more to be told?"""
        return False


class Run(Call):
    """A run of a script, by its name, or in full for a server that has not met it."""

    __slots__ = ("_script",)

    def __init__(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> None:
        super().__init__(keys[0], ("EVALSHA", script.digest, len(keys), *keys, *arguments))
        self._script = script

    def spell_out(self) -> bool:
        known_by, _, *rest = self.command
        self.command = ("EVAL", self._script.source, *rest)
        return known_by == "EVALSHA"


class Nodes:
    """All servers of a deployment. `make` makes the Node of an address; `timeout`: seconds a call may take in all.

    `note_lost` is told how many servers are lost, whenever one is lost or found.
    """

    def __init__(
        self,
        topology: Topology,
        make: Callable[[Address], Node],
        timeout: float,
        telemetry: Telemetry,
        note_lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._topology = topology
        self.make = make
        self._timeout = timeout
        self._telemetry = telemetry
        self._note_lost = note_lost
        self._nodes: dict[Address, Node] = {}
        self._holders: list[Node] = []
        """By slot; one alone holds all of them."""
        self._masters: set[Node] = set()
        self._waiting: list[tuple[Sequence[Call], asyncio.Future[None]]] = []
        self._trips: set[asyncio.Task[None]] = set()
        self._looked = asyncio.Event()
        self._look_again = 0.0
        self._tending: asyncio.Task[None] | None = None
        self._blind = False
        self._refused = ""

    async def ask(self, port: str, call: Call) -> Any:
        """The answer, in time. Raises `Unavailable` in the name of `port`."""
        await self.ask_all((call,))
        if call.failed:
            raise Unavailable(port)
        return call.answer

    async def ask_all(self, calls: Sequence[Call]) -> None:
        """Each has its answer in the end, or an exception, in time; those to one server are sent in this order.

        All that is asked in one turn of the event loop shares a round trip to each server.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._depart, loop)
        self._waiting.append((calls, answered))
        await answered

    async def masters(self) -> Sequence[Node]:
        """Those that hold keys. Raises RedisError if nobody knows them."""
        await self._find_holders(asyncio.get_running_loop().time() + self._timeout)
        if not self._holders:
            raise NotConnected("no server is known")
        return list(self._masters)

    def node(self, address: Address) -> Node:
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = self.make(address)
        return found

    async def close(self) -> None:
        """Waits for what is under way."""
        while self._waiting or self._trips:
            await asyncio.sleep(0)
            await asyncio.gather(*self._trips)
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
            await asyncio.sleep(0)  # a handshake that was cut off closes its socket in the next turn
        await asyncio.gather(self._topology.close(), *(node.close() for node in self._nodes.values()))

    # --- one round trip to each server

    def _depart(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        trip = loop.create_task(self._trip(loop, waiting))
        self._trips.add(trip)
        trip.add_done_callback(self._trips.discard)

    async def _trip(
        self, loop: asyncio.AbstractEventLoop, waiting: Sequence[tuple[Sequence[Call], asyncio.Future[None]]]
    ) -> None:
        until = loop.time() + self._timeout
        calls = [call for group, _ in waiting for call in group]
        todo: Sequence[Call] = calls
        try:
            await self._find_holders(until)
            while todo and loop.time() < until:
                todo = await self._round(todo, until)
            self._note_refusals(calls)
        finally:
            for _, answered in waiting:
                if not answered.done():
                    answered.set_result(None)

    async def _round(self, calls: Sequence[Call], until: float) -> Sequence[Call]:
        """Those to be asked again, because their server says that it did nothing."""
        parts: dict[Node | None, list[Call]] = {}
        for call in calls:
            parts.setdefault(call.node or self._holder(call), []).append(call)
        if len(parts) == 1:
            ((node, part),) = parts.items()
            await self._visit(node, part, until)
        else:
            await asyncio.gather(*(self._visit(node, part, until) for node, part in parts.items()))
        again = [call for call in calls if call.failed and self._redirected(call)]
        if any(isinstance(call.answer, TryAgainError) for call in again):
            await asyncio.sleep(_MIGRATING_PAUSE)
        return again

    def _holder(self, call: Call) -> Node | None:
        holders = self._holders
        if len(holders) > 1:
            return holders[call.slot]
        return holders[0] if holders else None

    async def _visit(self, node: Node | None, calls: Sequence[Call], until: float) -> None:
        if node is None or node.lost:
            for call in calls:
                call.answer = _UNASKED
            return
        commands: list[Command] = []
        for call in calls:
            if call.asking:
                commands.append(("ASKING",))
            commands.append(call.command)
        try:
            replies = iter(await node.ask(commands, until))
        except (RedisError, OSError) as error:
            self._suspect(node, error)
            for call in calls:
                call.answer = error
            return
        for call in calls:
            if call.asking:
                next(replies)
            call.answer = next(replies)

    def _redirected(self, call: Call) -> bool:
        answer = call.answer
        if isinstance(answer, NoScriptError):
            return call.spell_out()
        if isinstance(answer, AskError):  # MovedError is one
            call.asking = not isinstance(answer, MovedError)
            call.node = self.node(Address(answer.host, answer.port))
            if not call.asking:
                self._tend()
            return True
        if isinstance(answer, (ClusterDownError, ReadOnlyError)) or "READONLY" in str(answer):
            self._tend()
        return isinstance(answer, TryAgainError)

    def _note_refusals(self, calls: Sequence[Call]) -> None:
        """What a server that answers will not do: memory that is full, a permission that lacks."""
        refused = next((type(call.answer).__name__ for call in calls if isinstance(call.answer, ResponseError)), "")
        if refused != self._refused:
            self._refused = refused
            if refused:
                self._telemetry.log("redis_refused", level="error", error=refused)

    # --- which servers there are, and whether they answer

    async def _find_holders(self, until: float) -> None:
        if not self._holders:
            self._tend()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._looked.wait()
        elif not self._topology.fixed and until > self._look_again:
            self._tend()

    def _suspect(self, node: Node, error: Exception) -> None:
        if not node.suspect:
            node.suspect = True
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._telemetry.log("redis_lost", level="warning", server=str(node.address), error=text)
            self._tell()
        self._tend()

    def _tend(self) -> None:
        """Look around in the background, until all is well."""
        if self._tending is None or self._tending.done():
            self._tending = asyncio.get_running_loop().create_task(self._look_around())

    async def _look_around(self) -> None:
        loop = asyncio.get_running_loop()
        pause, longest = _PROBE_PAUSES
        await asyncio.sleep(_LOOK_APART if self._looked.is_set() else 0)
        while True:
            self._look_again = loop.time() + _LOOK_EVERY
            await self._look()
            self._looked.set()
            suspects = [node for node in self._nodes.values() if node.suspect]
            await asyncio.gather(*(self._probe(node, loop) for node in suspects))
            if self._holders and not any(node.suspect for node in self._nodes.values()):
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _look(self) -> None:
        try:
            spans = await self._topology.find(list(self._nodes.values()), self.node, self._timeout)
        except (RedisError, OSError, *_NO_ANSWER) as error:
            self._note_blind(f"{type(error).__name__}: {error}")
            self._tell()
            return
        self._note_blind("")
        holders = [self.node(spans[0].holder)]
        if len(spans) > 1:
            holders *= SLOTS
            for span in spans:
                holders[span.first : span.last + 1] = [self.node(span.holder)] * (span.last + 1 - span.first)
        self._holders = holders
        there = set(holders)
        gone = [node for node in self._nodes.values() if node not in there]
        self._nodes = {node.address: node for node in there}
        if there != self._masters:
            self._masters = there
            if not self._topology.fixed:
                self._telemetry.log("redis_topology", servers=sorted(str(node.address) for node in there))
        await asyncio.gather(*(node.retire() for node in gone))
        self._tell()

    async def _probe(self, node: Node, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if node.lost:
                await node.ask([("PING",)], loop.time() + _PROBE_SECONDS)
            await node.ask([("PING",)], loop.time() + self._timeout)
        except (RedisError, OSError):
            node.lost = True
            return
        node.suspect = node.lost = False
        self._telemetry.log("redis_found", server=str(node.address))
        self._tell()

    def _note_blind(self, error: str) -> None:
        if error and not self._blind:
            self._telemetry.log("redis_topology_lost", level="warning", error=error)
        self._blind = bool(error)

    def _tell(self) -> None:
        lost = sum(node.suspect for node in self._nodes.values())
        self._note_lost(lost or int(not self._holders))
