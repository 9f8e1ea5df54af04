"""What an operator asks of the vault's keys: how it stands with them, new versions, the end of old ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.operations import AskRewrap, DestroyKeys, ReadKeys, ReadRewrap, Rewrap, VaultTenants
from gateway.ports import Clock, Store, Telemetry
from gateway.pure.errors import Refused
from gateway.pure.key_hierarchy import KeyRecord, Purpose, Tally, needless, of, sealing
from gateway.workers.rewrap import Keyring, count_values

_STILL_NEEDED = (
    "rows of this tenant are still under the deployment's key, which others need: rewrap the tenant, destroy its old"
    " keys, then shred it"
)


class Keeper(Keyring, Protocol):
    """As the rewrapper's, and what ends a tenant."""

    async def shred(self, tenant: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a tenant: its keys, which of them seals, and which may be destroyed; its rows; the last rewrapping."""

    tenant: str
    records: Sequence[KeyRecord]
    tally: Tally
    rewrap: Rewrap | None
    sealing: int
    needless: frozenset[tuple[Purpose, int]]


class VaultKeys:
    """Answers are complaints, empty if there is none. `wake` tells the rewrapper. All raise `Unavailable`."""

    def __init__(
        self, store: Store, keys: Keeper, clock: Clock, telemetry: Telemetry, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._telemetry = telemetry
        self._wake = wake

    async def tenants(self) -> Sequence[str]:
        """All that have rows or keys."""
        ask = VaultTenants()
        return [tenant for tenant in (await self._store.commit([ask]))[ask].tenants if tenant]

    async def standing(self, tenant: str) -> Standing:
        """Counts all rows of the tenant, a part at a time."""
        began = self._clock.now()
        asked, work = ReadKeys(tenant), ReadRewrap(tenant)
        records = (await self._store.commit([asked]))[asked].records
        tally = await count_values(self._store, tenant)
        rewrap = (await self._store.commit([work])).answered[0]
        unneeded = [] if not of(records, "vault") else needless(records, tally, began)
        return Standing(
            tenant,
            records,
            tally,
            getattr(rewrap, "rewrap", None),
            sealing(records, began).version if of(records, "vault") else 0,
            frozenset((key.purpose, key.version) for key in unneeded),
        )

    async def rotate(self, tenant: str, purpose: Purpose) -> str:
        """Make the next version of a key."""
        try:
            return await self._keys.rotate(tenant, purpose)
        except Refused as refused:
            return refused.detail

    async def rewrap(self, tenant: str | None, rate: int) -> Sequence[str]:
        """Have the rows of one tenant, or of all, taken to the newest keys: whose are, or were already being."""
        chosen = ["", *await self.tenants()] if tenant is None else [tenant]
        for each in chosen:
            begun = self._keys.on_record(each, "rewrap begun")
            await self._store.commit([AskRewrap(each, rate, self._clock.now()), begun])
        self._telemetry.log("vault_rewrap_asked", tenant=tenant or "", rate=rate)
        self._wake()
        return [each for each in chosen if each]

    async def rewrapping(self, tenants: Sequence[str]) -> Mapping[str, Rewrap | None]:
        """How far it has come."""
        found: dict[str, Rewrap | None] = {}
        for tenant in tenants:
            ask = ReadRewrap(tenant)
            rows = await self._store.commit([ask])
            found[tenant] = rows[ask].rewrap
        return found

    async def destroy(self, tenant: str) -> Sequence[tuple[Purpose, int]]:
        """Destroy the keys that nothing needs, as it is now; which they were."""
        standing = await self.standing(tenant)
        gone = tuple(key for key in standing.records if (key.purpose, key.version) in standing.needless)
        if gone:
            destroyed = self._keys.on_record(tenant, "destroyed", *(f"{key.purpose} {key.version}" for key in gone))
            await self._store.commit([DestroyKeys(tenant, gone, self._clock.now()), destroyed])
            await self._keys.reread(tenant)
        for key in gone:
            self._telemetry.log("vault_key_destroyed", tenant=tenant, purpose=key.purpose, version=key.version)
        return [(key.purpose, key.version) for key in gone]

    async def shred(self, tenant: str) -> str:
        """Destroy all keys of a tenant, and with them what they have sealed."""
        standing = await self.standing(tenant)
        if not standing.records:
            return "no tenant of this name has keys"
        prints = of(standing.records, "fingerprint")
        if standing.tally.sealed.get(0) or any(key.version == 0 for key in prints):
            return _STILL_NEEDED
        await self._keys.shred(tenant)
        self._telemetry.log("vault_tenant_shredded", level="warning", tenant=tenant, rows=standing.tally.rows)
        return ""
