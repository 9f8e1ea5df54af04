"""Takes the rows of tenants to their newest keys, a few at a time, while requests go on.

How far it has come is written with the rows themselves, so that another process goes on from there. Rows are gone over
again until there is nothing to do, and the last time begins only when nobody can be writing by an older key any more:
what that time found to be so, stays so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gateway.operations import (
    CountValues,
    DueRewraps,
    NoteRewrap,
    Operation,
    ReadKeys,
    ReadValues,
    RecordAudit,
    RenewValues,
    RetireKey,
    Rewrap,
    Row,
    TakeRewrap,
    VaultValue,
)
from gateway.ports import Clock, Ring, Soon, Store, Telemetry, Unavailable, settled
from gateway.pure.errors import Refused
from gateway.pure.key_hierarchy import (
    DISTRIBUTED_SECONDS,
    Fields,
    KeyRecord,
    Purpose,
    Tally,
    aim,
    is_rewrapped,
    of,
    settled_at,
    superseded,
)
from gateway.pure.metrics import Metric
from gateway.pure.tokens import associated_data, fingerprint

PAGE_ROWS = 128
"""Rows that are taken at a time: opening and sealing them keeps the event loop for one or two milliseconds."""
COUNTED_ROWS = 10_000
_TAKEN_SECONDS = 10.0
"""Who has taken on a tenant says so again this often at the latest, or somebody else goes on."""
_IDLE_SECONDS = 5.0
_PAUSE_SECONDS = 0.002
"""Between pages in which there is nothing to do."""


class Keyring(Protocol):
    """The keys of tenants (`gateway.adapters.keyrings.Keyrings`)."""

    def ring(self, tenant: str) -> Soon[Ring]: ...
    async def reread(self, tenant: str) -> Ring: ...
    async def rotate(self, tenant: str, purpose: Purpose) -> str: ...
    async def rewrap(self, tenant: str) -> int: ...
    def on_record(self, tenant: str, done: str, *about: str) -> RecordAudit: ...


class Rewrapper:
    """One loop, one tenant at a time. `wake` tells that something was asked for."""

    def __init__(self, store: Store, keys: Keyring, clock: Clock, telemetry: Telemetry) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._telemetry = telemetry
        self._work: Rewrap | None = None
        """What this process has taken on."""
        self._woken = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Step until `stop`."""
        while not self._stopping:
            self._woken.clear()
            delay = await self.step()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), delay)

    async def stop(self) -> None:
        """Begin nothing more; whoever asks next goes on with it."""
        self._stopping = True
        self.wake()

    async def step(self) -> float:
        """Do a page; seconds until it is worth going on."""
        try:
            if self._work is None:
                self._hold(await self._taken())
            return _IDLE_SECONDS if self._work is None else await self._step(self._work)
        except Refused:  # shredded: there is nothing left that could be sealed
            assert self._work is not None
            return await self._noted(replace(self._work, finished_at=self._clock.now()))
        except Unavailable as error:
            self._telemetry.log("vault_rewrap_waits", level="warning", missing=str(error))
            self._hold(None)
            return _IDLE_SECONDS

    def _hold(self, work: Rewrap | None) -> None:
        """Nothing is left to do of a work that is finished."""
        self._work = work if work is not None and work.finished_at is None else None
        left = 0 if self._work is None else max(0, self._work.total - self._work.seen)
        self._telemetry.set(Metric.VAULT_REWRAP_LEFT, left)

    async def _taken(self) -> Rewrap | None:
        now = self._clock.now()
        due = DueRewraps(now, 1)
        for tenant in (await self._store.commit([due]))[due].tenants:
            take = TakeRewrap(tenant, now, now + _TAKEN_SECONDS)
            rows = await self._store.commit([take])
            if rows.refused is None:
                return rows[take].rewrap
        return None

    async def _step(self, work: Rewrap) -> float:
        records = await self._records(work.tenant)
        if not work.began_at:
            return await self._begin(work, records)
        now = self._clock.now()
        if now < work.began_at:
            return await self._noted(work, work.began_at - now)
        return await self._page(work, records, now)

    async def _records(self, tenant: str) -> Sequence[KeyRecord]:
        ask = ReadKeys(tenant)
        return (await self._store.commit([ask]))[ask].records

    # --- passes

    async def _begin(self, work: Rewrap, records: Sequence[KeyRecord]) -> float:
        """Keys first. The rows, unless they are as they should be, when all know of the key that is to seal them."""
        now = self._clock.now()
        if work.tenant:
            await settled(self._keys.ring(work.tenant))  # makes the keys of a tenant that has none yet
        await self._keys.rewrap(work.tenant)
        if not work.tenant:
            return await self._noted(replace(work, began_at=now, finished_at=now))
        records = records or await self._records(work.tenant)
        if not any(key.version for key in of(records, "fingerprint")):
            await self._keys.rotate(work.tenant, "fingerprint")
        versions = of(records, "vault")
        known = versions[-1].created_at + DISTRIBUTED_SECONDS if len(versions) > 1 else now
        tally = await count_values(self._store, work.tenant)
        if is_rewrapped(records, tally, now):
            return await self._noted(replace(work, began_at=now, seen=tally.rows, total=tally.rows, finished_at=now))
        began = max(now, known)
        return await self._noted(replace(work, began_at=began, after="", seen=0, changed=0, total=tally.rows))

    async def _page(self, work: Rewrap, records: Sequence[KeyRecord], now: float) -> float:
        limit = max(1, min(PAGE_ROWS, work.rate))
        ask = ReadValues(work.tenant, work.after, limit)
        values = (await self._store.commit([ask]))[ask].values
        renewed = await self._renewed(work.tenant, records, values, now)
        renew = RenewValues(work.tenant, renewed)
        work = replace(
            work,
            after=values[-1].token if values else work.after,
            seen=work.seen + len(values),
            changed=work.changed + len(renewed),
            renewed=work.renewed + len(renewed),
        )
        if len(values) < limit:
            work = await self._passed(work, records, now)
        await self._store.commit([renew, *self._note(work, now)])
        self._telemetry.count(Metric.VAULT_REWRAPPED, by=len(renewed))
        self._hold(work)
        return max(len(renewed) / work.rate, _PAUSE_SECONDS)

    async def _renewed(
        self, tenant: str, records: Sequence[KeyRecord], values: Sequence[VaultValue], now: float
    ) -> list[tuple[VaultValue, Fields]]:
        """The rows of a page that are not as they should be, and how they should be."""
        wanted = aim(records, now)
        left = [value for value in values if not wanted.meets(value.fields)]
        if not left:
            return []
        ring = await settled(self._keys.ring(tenant))
        if not set(wanted.fingerprints) <= dict(ring.fingerprints).keys():
            ring = await self._keys.reread(tenant)
        macs = dict(ring.fingerprints)
        renewed: list[tuple[VaultValue, Fields]] = []
        for value in left:
            bound = associated_data(tenant, value.token, value.token_class)
            plain = ring.open(value.fields.sealed, bound)

            def known_by(version: int, number: str = plain.decode(), merchant: str | None = value.merchant) -> bytes:
                return fingerprint(number, macs[version], merchant)

            renewed.append((value, wanted.met(value.fields, ring.seal(plain, bound), known_by)))
        return renewed

    async def _passed(self, work: Rewrap, records: Sequence[KeyRecord], now: float) -> Rewrap:
        """All rows were looked at: once more, when what was written meanwhile is as it should be, or it is done."""
        settled_then = settled_at(records)
        if not work.changed and work.began_at >= settled_then:
            former = superseded(records)
            if not former:
                self._telemetry.log("vault_rewrapped", tenant=work.tenant, rows=work.seen, renewed=work.renewed)
                return replace(work, finished_at=now)
            for key in former:
                retired = self._keys.on_record(work.tenant, "retired", f"fingerprint {key.version}")
                await self._store.commit([RetireKey(work.tenant, "fingerprint", key.version, now), retired])
                self._telemetry.log("vault_key_retired", tenant=work.tenant, version=key.version)
            settled_then = settled_at(await self._records(work.tenant))
        return replace(work, began_at=max(now, settled_then), after="", seen=0, changed=0)

    async def _noted(self, work: Rewrap, delay: float = 0.0) -> float:
        await self._store.commit(self._note(work, self._clock.now()))
        self._hold(work)
        return delay

    def _note(self, work: Rewrap, now: float) -> Sequence[Operation[Row]]:
        """How far it has come; its end is on record, and then whoever is asked next may take it on."""
        if work.finished_at is None:
            return [NoteRewrap(work.tenant, work, max(now, work.began_at) + _TAKEN_SECONDS)]
        note = NoteRewrap(work.tenant, work, 0.0)
        return [note, self._keys.on_record(work.tenant, "rewrap ended", f"{work.renewed} rows renewed")]


async def count_values(store: Store, tenant: str) -> Tally:
    """All rows of a tenant, a part at a time. Raises `Unavailable`."""
    sealed: dict[int, int] = {}
    prints = [0, 0]
    after: str | None = ""
    while after is not None:
        ask = CountValues(tenant, after, COUNTED_ROWS)
        row = (await store.commit([ask]))[ask]
        for version, count in row.tally.sealed.items():
            sealed[version] = sealed.get(version, 0) + count
        prints = [total + count for total, count in zip(prints, row.tally.fingerprints, strict=True)]
        after = row.last
    return Tally(sealed, (prints[0], prints[1]))
