"""Rows are taken to a new key under load, and the gateway is killed in the middle: no request fails, no row is lost.

The vault is made beforehand, by the store's own operations and with the real keys, minutes ago by its own clock, so
that its second key is one of which all know. Everything else is what an operator does: `pangate vault rewrap`, `status`
and `destroy`. The control destroys the old key in the middle.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.adapters.keyrings import Keyrings
from gateway.adapters.keys import read_secret
from gateway.adapters.sqlite import open_sqlite
from gateway.config.load import load
from gateway.keeping import open_keys
from gateway.operations import Candidate, PutToken
from gateway.ports import Ring, Store
from gateway.pure.macs import Mac
from gateway.pure.tokens import OPAQUE_BYTES, associated_data, fingerprints, opaque
from tests.conftest import HandClock, Recorder
from tests.faults.campaign import Campaign
from tests.faults.ledger import Tally, card
from tests.faults.load import CARDS, Ask
from tests.faults.programs import CARELESS, PRODUCT

TENANT = "faults"
MADE_SECONDS, ROTATED_SECONDS = 400.0, 200.0
"""So long ago the first and the second key were made: both are settled."""
PUT_AT_A_TIME = 1_000
CONTROL_ROWS = 2_000
RATE = 500
"""Rows a second; more, if there are so many that it would take longer than a few minutes."""
MIDDLE = (0.2, 0.4)
"""The share of rows that is renewed when the kill falls."""
PACE_SECONDS = 0.05
STALLED_SECONDS = 120.0
"""Without any progress for so long it is said to stand still."""
_RENEWED = re.compile(r"(\d+)(?: rows)? renewed")


@dataclass(frozen=True, slots=True)
class Found:
    """Of so many rows; `complaints` are sentences about what did not go as an operator is promised."""

    rows: int
    requests: int
    failed: int
    tally: Tally
    complaints: Sequence[str]

    @property
    def harm(self) -> int:
        return self.failed + self.tally.harm + len(self.complaints)


class Rewrapping(Campaign):
    """A vault of so many rows under its first key; callers count what is refused, and never give up."""

    def __init__(self, folder: Path, rows: int, seed: int, program: Sequence[str]) -> None:
        super().__init__(folder, seed, program)
        self.rows = rows
        self.requests = 0
        self.failed = 0
        self.failing = asyncio.Event()
        self.complaints: list[str] = []
        self.kill_after = int(rows * random.Random(seed).uniform(*MIDDLE))
        self._shown = folder / "rewrap.txt"

    async def fill(self) -> None:
        """The vault, and its second key."""
        clock, telemetry = HandClock(time.time() - MADE_SECONDS), Recorder()
        (self.gateway.folder / "var").mkdir(exist_ok=True)
        config = load(self.gateway.folder / "config.yaml", self.gateway.environment())
        path = str(self.gateway.folder / "var" / "faults.db")
        store = open_sqlite(path, clock=clock, telemetry=telemetry)
        try:
            read = functools.partial(read_secret, base=self.gateway.folder)
            keys = await open_keys(config, read, store, clock=clock, telemetry=telemetry)
            assert keys is not None
            for start in range(0, self.rows, PUT_AT_A_TIME):
                await self._put(store, keys, range(start, min(start + PUT_AT_A_TIME, self.rows)), clock.now())
            clock.advance(MADE_SECONDS - ROTATED_SECONDS)
            await keys.rotate(TENANT, "vault")
            await keys.close()
        finally:
            await store.close()

    async def _put(self, store: Store, keys: Keyrings, numbers: range, now: float) -> None:
        """Cards that no caller sends."""
        ring = await keys.reread(TENANT)
        puts = [_put(card(CARDS + n), ring, keys.keyed(TENANT, "token"), now) for n in numbers]
        answers = await store.commit(puts)
        for n, put in zip(numbers, puts, strict=True):
            self.ledger.received("vault", answers[put].token, CARDS + n)

    def _clients(self) -> Iterator[Coroutine[Any, Any, None]]:
        """As in every campaign, but what is refused is counted."""
        pay, charge = self.load.pay, self.load.charge
        self.load.pay = self._counted(pay)  # type: ignore[method-assign]
        self.load.charge = self._counted(charge)  # type: ignore[method-assign]
        return super()._clients()

    def _counted(self, once: Callable[..., Awaitable[None]]) -> Callable[..., Coroutine[Any, Any, None]]:
        async def counted(ask: Ask, **more: Any) -> None:
            try:
                await once(ask, **more)
            except AssertionError:
                self.failed += 1
                self.failing.set()
            self.requests += 1
            await asyncio.sleep(PACE_SECONDS)

        return counted

    @asynccontextmanager
    async def callers(self) -> AsyncIterator[None]:
        """Requests flow; on the way out the gateway is gone."""
        async with asyncio.TaskGroup() as group:
            for client in self._clients():
                group.create_task(client)
            try:
                yield
            finally:
                self.load.over = True
                self.gateway.kill()

    async def _revealed(self, ask: Ask, tokens: Sequence[str]) -> bool:
        """A row that cannot be opened is lost, like one that is not there."""
        try:
            return await super()._revealed(ask, tokens)
        except AssertionError:
            return False

    # --- what an operator does

    def command(self, *words: str) -> str:
        """What `pangate vault` prints."""
        done = subprocess.run(self._line_of(words), env=self.gateway.environment(), capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"pangate vault {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _line_of(self, words: Sequence[str]) -> list[str]:
        config = str(self.gateway.folder / "config.yaml")
        return [sys.executable, *PRODUCT, "vault", *words, "--config", config]

    @asynccontextmanager
    async def rewrap(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """`pangate vault rewrap`, which shows how far it has come and ends with the work, or with the gateway."""
        command = self._rewrapping()
        try:
            yield command
        finally:
            command.kill()
            command.wait()

    def _rewrapping(self) -> subprocess.Popen[bytes]:
        line = self._line_of(("rewrap", TENANT, "--rate", str(max(RATE, self.rows // 200))))
        with self._shown.open("ab") as shown:
            return subprocess.Popen(line, env=self.gateway.environment(), stdout=shown, stderr=subprocess.DEVNULL)

    async def until(self, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The work, as soon as it has come so far. Raises AssertionError when it stands still."""
        last, changed_at = "", time.monotonic()
        while True:
            status, body = await asyncio.to_thread(self.gateway.admin, f"/vault/rewrap?tenant={TENANT}")
            works = json.loads(body)["rewraps"] if status == 200 else []
            if works and enough(works[0]):
                return dict(works[0])
            if body != last:
                last, changed_at = body, time.monotonic()
            if time.monotonic() > changed_at + STALLED_SECONDS:
                raise AssertionError(f"rewrapping stands still: {body}")
            await asyncio.sleep(PACE_SECONDS)

    async def die_in_the_middle(self) -> None:
        """And go on there with the next gateway: what was seen is not looked at once more."""
        self.expect(not await self._destroyed(), "the old key was destroyed while rows needed it")
        async with self.rewrap():
            before = await self.until(lambda work: work["renewed"] >= self.kill_after)
            self.gateway.kill()
            self._kills += 1
        await self._start()
        after = await self.until(lambda _: True)
        self.expect(before["renewed"] < self.rows, "the kill came after the work")
        self.expect(after["pass_began_at"] == before["pass_began_at"], "the pass was begun anew")
        self.expect(after["seen"] >= before["seen"], "it did not go on from where it was")

    async def finish(self) -> None:
        """Wait for the end, then destroy the old key."""
        async with self.rewrap() as command:
            done = await self.until(lambda work: work["finished_at"] is not None)
            self.expect(await asyncio.to_thread(command.wait, STALLED_SECONDS) == 0, "the command did not end well")
        self.expect(done["renewed"] == self.rows, f"{done['renewed']} rows were renewed")
        shown = [int(count) for count in _RENEWED.findall(self._shown.read_text())]
        rising = shown == sorted(shown) and shown[-1] == self.rows
        self.expect(rising and any(0 < count < self.rows for count in shown), f"progress was shown as {shown}")
        self.expect((await self._key(1))["rows"] == 0, "rows are left under the old key")
        self.expect(await self._destroyed(), "the old key could not be destroyed")
        self.expect((await self._key(1))["state"] == "destroyed", "the old key is still there")

    async def _destroyed(self) -> bool:
        return "data key 1: destroyed" in await asyncio.to_thread(self.command, "destroy", TENANT)

    async def _key(self, version: int) -> dict[str, Any]:
        status = json.loads(await asyncio.to_thread(self.command, "status", TENANT, "--json"))
        return next(key for key in status["keys"] if (key["key"], key["version"]) == ("data", version))

    def expect(self, met: bool, otherwise: str) -> None:
        if not met:
            self.complaints.append(otherwise)

    async def found(self) -> Found:
        """Every row is read by a gateway that has never held the old key."""
        tally = await self.check()
        return Found(self.rows, self.requests, self.failed, tally, self.complaints)


def _put(number: str, ring: Ring, checksum: Mac, now: float) -> PutToken:
    def mint(_: int) -> Candidate:
        token = opaque("pan", "live", os.urandom(OPAQUE_BYTES), checksum)
        return Candidate(token, ring.seal(number.encode(), associated_data(TENANT, token, "pan")))

    even, odd = fingerprints(number, ring.fingerprints)
    return PutToken(TENANT, "pan", "opaque", even, mint, now, fingerprint_odd=odd)


async def attack(folder: Path, rows: int, seed: int, program: Sequence[str] = PRODUCT) -> Found:
    """The promise: its `harm` is 0."""
    campaign = Rewrapping(folder, rows, seed, program)
    await campaign.fill()
    async with campaign.peers():
        await campaign._start()
        async with campaign.callers():
            await campaign.die_in_the_middle()
            await campaign.finish()
        return await campaign.found()


async def control(folder: Path, seed: int) -> Found:
    """The old key is destroyed in the middle: what was not renewed by then is lost."""
    campaign = Rewrapping(folder, CONTROL_ROWS, seed, CARELESS)
    await campaign.fill()
    async with campaign.peers():
        await campaign._start()
        async with campaign.callers(), campaign.rewrap():
            await campaign.until(lambda work: work["renewed"] > 0)
            if not await campaign._destroyed():
                raise AssertionError("the control did not destroy the key")
            await asyncio.wait_for(campaign.failing.wait(), STALLED_SECONDS)
        return await campaign.found()
