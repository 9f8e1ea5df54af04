"""kill -9 at random moments under load: every token that anyone received must still reveal to its card.

The gateway is a process of its own, on a store of its own, started the way a user starts it; everyone else lives here.
`attack` is the promise, `control` is the same against a store that answers before it commits: it must be caught.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from examples.demo.wire import Server
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_port
from tests.faults.ledger import Ledger, Tally
from tests.faults.load import Ask, Connect, Load, connected
from tests.faults.programs import EAGER, PRODUCT

HERE = Path(__file__).parent
EGRESS_HOST = "provider.egress.internal"
CLIENTS = {"/opaque": 4, "/6t4": 4}
CHARGING = 2
WITNESSES = {"client", "shop", "service"}
"""Who is given tokens: through the first gate the shop, through the second clients and, at the egress, services."""
MOMENTS = (0.005, 0.4)
"""Seconds after load flows, between which a kill falls."""
FLOW_SECONDS = 30.0
BATCH = 100
"""Tokens that the checker reveals with one request."""
CONTROL_KILLS_MAX = 40


class Campaign:
    """One store, one ledger, and gateways that come and go."""

    def __init__(self, folder: Path, seed: int, program: Sequence[str]) -> None:
        shutil.copytree(HERE / "config", folder, dirs_exist_ok=True)
        make_dev_certificates(folder / "certs")
        ports = {name: free_port() for name in ("edge", "egress", "admin", "shop", "provider")}
        # The modules are compiled by the first start and not by every one.
        self.gateway = Gateway(folder, ports, env={"PYTHONDONTWRITEBYTECODE": ""}, program=program)
        self.ledger = Ledger()
        self.load = Load(self.ledger, seed)
        self._moments = random.Random(seed)
        self._kills = 0
        self._damaged = 0

    @asynccontextmanager
    async def peers(self) -> AsyncIterator[None]:
        """Shop and provider, listening; on the way out no gateway is left."""
        sides = (("shop", self.load.shop), ("provider", self.load.provider))
        servers = [
            asyncio.create_task(Server(handler, Path(os.devnull)).serve(self.gateway.ports[name]))
            for name, handler in sides
        ]
        try:
            yield
        finally:
            if self.gateway.process is not None:
                self.gateway.kill()
            for server in servers:
                server.cancel()
            await asyncio.gather(*servers, return_exceptions=True)

    async def kill(self, times: int) -> None:
        """Start a gateway, kill it at a random moment while payments flow, start the next one on the same store."""
        self.load.over = False
        async with asyncio.TaskGroup() as group:
            for client in self._clients():
                group.create_task(client)
            for _ in range(times):
                await self._start()
                self.load.flowing.clear()
                await asyncio.wait_for(self.load.flowing.wait(), FLOW_SECONDS)
                await asyncio.sleep(self._moments.uniform(*MOMENTS))
                self.gateway.kill()
                self._kills += 1
            self.load.over = True

    async def check(self) -> Tally:
        """Reveal every token of the ledger through the egress listener, and have SQLite look over the file.

        It does so twice: as the last kill left it, and after an orderly end.
        """
        self._look_over()
        await self._start()
        lost = await self._lost()
        if await asyncio.to_thread(self.gateway.stop) != 0:
            raise AssertionError(f"the gateway ended badly: {self.gateway.log()[-2000:]}")
        self._look_over()
        ledger = self.ledger
        return Tally(self._kills, len(ledger.cards), lost, len(ledger.wrong), self._damaged)

    async def _start(self) -> None:
        await asyncio.to_thread(self.gateway.start, "admin")

    def _clients(self) -> Iterator[Coroutine[Any, Any, None]]:
        edge = self._line("edge", "localhost", "partner")
        egress = self._line("egress", EGRESS_HOST, "shop")
        for target, count in CLIENTS.items():
            for _ in range(count):
                yield self.load.persist(edge, functools.partial(self.load.pay, target=target))
        for _ in range(CHARGING):
            yield self.load.persist(egress, self.load.charge)

    def _line(self, listener: str, host: str, identity: str) -> Connect:
        return functools.partial(connected, self.gateway.ports[listener], host, self.gateway.trust(identity))

    async def _lost(self) -> int:
        """How many tokens are not known any more; a refused batch is asked again one by one."""
        lost = 0
        tokens = self.ledger.tokens
        async with self._line("egress", EGRESS_HOST, "shop")() as ask:
            for start in range(0, len(tokens), BATCH):
                batch = tokens[start : start + BATCH]
                if not await self._revealed(ask, batch):
                    lost += sum([not await self._revealed(ask, [token]) for token in batch])
        return lost

    async def _revealed(self, ask: Ask, tokens: Sequence[str]) -> bool:
        status, answer = await ask("/reveal", {"cards": [{"number": token} for token in tokens]})
        if status == 422 and answer["type"].endswith(":card_token_unknown"):
            return False
        if status != 200:
            raise AssertionError(f"a reveal was answered {status}: {answer}")
        for token, number in zip(tokens, answer["numbers"], strict=True):
            self.ledger.revealed(token, number)
        return True

    def _look_over(self) -> None:
        """SQLite's integrity check, on a copy: opening the store itself would change what the gateway finds."""
        with tempfile.TemporaryDirectory() as folder:
            for path in (self.gateway.folder / "var").glob("faults.db*"):
                shutil.copy(path, folder)
            db = apsw.Connection(str(Path(folder) / "faults.db"))
            self._damaged += db.pragma("integrity_check") != "ok"
            db.close()


async def attack(folder: Path, kills: int, seed: int) -> Tally:
    """The promise: whatever the tally holds, its `harm` is 0."""
    campaign = Campaign(folder, seed, PRODUCT)
    async with campaign.peers():
        await campaign.kill(kills)
        if campaign.ledger.receipts.keys() != WITNESSES:
            raise AssertionError(f"tokens came to {campaign.ledger.receipts} alone")
        return await campaign.check()


async def control(folder: Path, seed: int) -> Tally:
    """The same with the eager store, until the checker finds harm or the kills run out."""
    campaign = Campaign(folder, seed, EAGER)
    async with campaign.peers():
        for _ in range(CONTROL_KILLS_MAX):
            await campaign.kill(1)
            tally = await campaign.check()
            if tally.harm:
                break
    return tally
