"""The vault's keys: made when a tenant first needs them, wrapped in the store, unwrapped in memory for a while.

Many gateways share a store: of several that make the same key at once the first one's commit counts, and the others
take what it made. What is unwrapped is used for `FRESH_SECONDS`, then the store is asked whether it still is what it
was; a key service is asked again only every half of `keep`, and while it is away what it said last holds to the end of
`keep`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.adapters.keys import DerivedKeys
from gateway.operations import AddKeys, DestroyKeys, ReadKeys, RecordAudit, UseKey, WrapKey
from gateway.ports import Clock, Entropy, KeyService, Ring, Soon, Store, Telemetry, Unavailable
from gateway.pure import key_hierarchy as pure
from gateway.pure.audit import Entry
from gateway.pure.errors import Reason, Refused
from gateway.pure.key_hierarchy import FRESH_SECONDS, KEY_BYTES, NONCE_BYTES, KeyRecord, Purpose
from gateway.pure.lru import Lru
from gateway.pure.macs import Mac

TENANTS_KEPT = 4096
_BLOCK = 65_536
"""Uses of a key that a gateway sets aside at a time."""
_PACE_SECONDS = 1.0
"""After a failure the next try is so much later, and who asks meanwhile is told at once."""
_SHREDDED = "The card data of this tenant was destroyed, and cannot be brought back."


class _DataKey:
    """A cipher and how often it may be used before the store is asked for more."""

    __slots__ = ("cipher", "left", "version")

    def __init__(self, version: int, secret: bytes) -> None:
        self.version = version
        self.cipher = AESGCM(secret)
        self.left = 0


class StoredRing:
    """Implements `ports.Ring`. A value of version 0 is opened by the key that is derived for it."""

    __slots__ = ("_current", "_derived", "_entropy", "_keys", "fingerprints")

    def __init__(
        self,
        keys: Mapping[int, _DataKey],
        current: _DataKey,
        fingerprints: Sequence[tuple[int, Mac]],
        derived: Ring,
        entropy: Entropy,
    ) -> None:
        self._keys = keys
        self._current = current
        self.fingerprints = fingerprints
        self._derived = derived
        self._entropy = entropy

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        key = self._current
        key.left -= 1
        return pure.seal(key.cipher, key.version, self._entropy(NONCE_BYTES), plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        try:
            version = pure.version_of(sealed)
            if version == 0:
                return self._derived.open(sealed, associated)
            return pure.unseal(self._keys[version].cipher, sealed, associated)
        except (ValueError, KeyError):
            raise Unavailable("keys") from None


@dataclass(frozen=True, slots=True)
class _TenantKey:
    """As it is stored, unwrapped, and when that was."""

    wrapped: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    at: float


@dataclass(slots=True)
class _Held:
    """What is in memory of a tenant, by version of the key."""

    ring: StoredRing
    fresh_until: float
    tenant_keys: Mapping[int, _TenantKey]
    data_keys: Mapping[int, _DataKey]


class Keyrings(DerivedKeys):
    """Implements `ports.Keys`: derived ones by the deployment's key `root`, and the rings of tenants.

    `keep` is in seconds; a data key that was used `rotate_after` times is followed by the next.
    """

    def __init__(
        self,
        root: bytes,
        store: Store,
        service: KeyService,
        *,
        clock: Clock,
        entropy: Entropy,
        telemetry: Telemetry,
        keep: float,
        rotate_after: int,
    ) -> None:
        super().__init__(root)
        self._store = store
        self._service = service
        self._clock = clock
        self._entropy = entropy
        self._telemetry = telemetry
        self._keep = keep
        self._rotate_after = rotate_after
        self._block = max(1, min(_BLOCK, rotate_after // 8))
        self._held: Lru[str, _Held] = Lru(TENANTS_KEPT)
        self._failed: Lru[str, tuple[float, Exception]] = Lru(TENANTS_KEPT)
        self._loading: dict[str, asyncio.Task[Ring]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def ring(self, tenant: str) -> Soon[Ring]:
        """See `ports.Keys`."""
        held = self._held.get(tenant)
        if held is not None and self._clock.monotonic() < held.fresh_until:
            return held.ring
        return self._looked_up(tenant)

    async def reread(self, tenant: str) -> Ring:
        """The tenant's keys as they are in the store now."""
        held = self._held.get(tenant)
        if held is not None:
            held.fresh_until = 0.0
        return await self._looked_up(tenant)

    async def _looked_up(self, tenant: str) -> Ring:
        """One look for all who ask meanwhile."""
        failed = self._failed.get(tenant)
        if failed is not None and self._clock.monotonic() < failed[0]:
            raise failed[1].with_traceback(None)
        loading = self._loading.get(tenant)
        if loading is None:
            loading = self._loading[tenant] = asyncio.create_task(self._load(tenant))
            loading.add_done_callback(lambda _: self._loading.pop(tenant))
        return await asyncio.shield(loading)

    async def _load(self, tenant: str) -> Ring:
        try:
            held = await self._read(tenant)
        except (Unavailable, Refused) as error:
            if isinstance(error, Refused):
                self._held.drop(tenant)
            self._failed.put(tenant, (self._clock.monotonic() + _PACE_SECONDS, error))
            raise
        self._failed.drop(tenant)
        self._held.put(tenant, held)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self._keep, self._sweep)
        return held.ring

    def _sweep(self) -> None:
        """Forget the keys of tenants that nobody asked for."""
        latest = self._clock.monotonic() - self._keep
        self._held.drop_idle(lambda held: held.fresh_until < latest)
        again = asyncio.get_running_loop().call_later(self._keep, self._sweep) if len(self._held) else None
        self._sweeping = again

    async def _read(self, tenant: str) -> _Held:
        began = self._clock.monotonic()
        records = await self._records(tenant)
        if pure.is_shredded(records):
            raise Refused(Reason.TENANT_SHREDDED, _SHREDDED)
        held = self._held.get(tenant)
        before: Mapping[int, _TenantKey] = {} if held is None else held.tenant_keys
        known: Mapping[int, _DataKey] = {} if held is None else held.data_keys
        tenant_keys = {
            key.version: await self._tenant_key(key, before.get(key.version)) for key in pure.of(records, "tenant")
        }
        data_keys = {
            key.version: known.get(key.version) or _DataKey(key.version, _unwrapped(key, tenant_keys))
            for key in pure.of(records, "vault")
        }
        sealing = pure.sealing(records, self._clock.now())
        current = data_keys[sealing.version]
        await self._set_aside(sealing, current, records, tenant_keys)
        prints = [key for key in pure.of(records, "fingerprint") if key.live]
        ring = StoredRing(
            data_keys,
            current,
            [(key.version, self._fingerprints_by(key, tenant_keys)) for key in prints],
            self.derived_ring(tenant),
            self._entropy,
        )
        return _Held(ring, began + FRESH_SECONDS, tenant_keys, data_keys)

    def _fingerprints_by(self, key: KeyRecord, tenant_keys: Mapping[int, _TenantKey]) -> Mac:
        return Mac(_unwrapped(key, tenant_keys)) if key.version else self.keyed(key.tenant, "fingerprint")

    # --- records

    async def _records(self, tenant: str) -> Sequence[KeyRecord]:
        """The tenant's keys; made, if there are none."""
        ask = ReadKeys(tenant)
        row = (await self._store.commit([ask]))[ask]
        if not row.records:
            await self._store.commit([AddKeys(tenant, await self._first_keys(tenant, older=row.older))])
            row = (await self._store.commit([ask]))[ask]
        return row.records

    async def _first_keys(self, tenant: str, *, older: bool) -> tuple[KeyRecord, ...]:
        """Of a tenant that has older rows, numbers go on being known by the key by which they are known already."""
        now = self._clock.now()
        top, secret = await self._new_tenant_key(tenant, 1, now)
        data = self._new_key(KeyRecord(tenant, "vault", 1, 1, b"", now), secret)
        prints = KeyRecord(tenant, "fingerprint", 0 if older else 1, 0 if older else 1, b"", now)
        return (top, data, prints if older else self._new_key(prints, secret))

    async def _new_tenant_key(self, tenant: str, version: int, now: float) -> tuple[KeyRecord, bytes]:
        secret = self._entropy(KEY_BYTES)
        wrapped = await self._service.wrap(tenant, pure.signed(secret, pure.whose(tenant, "tenant", version)))
        return KeyRecord(tenant, "tenant", version, 0, wrapped, now), secret

    def _new_key(self, key: KeyRecord, tenant_key: bytes) -> KeyRecord:
        """A key of this description, wrapped by the tenant's."""
        return self._wrapped_by(key, self._entropy(KEY_BYTES), tenant_key)

    def _wrapped_by(self, key: KeyRecord, secret: bytes, tenant_key: bytes) -> KeyRecord:
        bound = pure.whose(key.tenant, key.purpose, key.version)
        return replace(key, wrapped=pure.wrap(AESGCM(tenant_key), self._entropy(NONCE_BYTES), secret, bound))

    async def _tenant_key(self, key: KeyRecord, known: _TenantKey | None) -> _TenantKey:
        """Unwrapped, or as it was, for as long as that holds."""
        now = self._clock.monotonic()
        same = known if known is not None and known.wrapped == key.wrapped else None
        if same is not None and now < same.at + self._keep / 2:
            return same
        try:
            plaintext = await self._service.unwrap(key.tenant, key.wrapped)
            secret = pure.checked(plaintext, pure.whose(key.tenant, "tenant", key.version))
        except (Unavailable, ValueError) as error:
            if same is not None and now < same.at + self._keep:
                return same
            raise Unavailable("keys") from error
        return _TenantKey(key.wrapped, secret, now)

    async def _set_aside(
        self,
        sealing: KeyRecord,
        current: _DataKey,
        records: Sequence[KeyRecord],
        tenant_keys: Mapping[int, _TenantKey],
    ) -> None:
        """Uses of the data key until the next look; the next version, when there were enough of them."""
        if current.left > self._block // 2:
            return
        count = self._block - current.left
        await self._store.commit([UseKey(sealing.tenant, "vault", sealing.version, count)])
        current.left += count
        if sealing.uses + count >= self._rotate_after and sealing is pure.of(records, "vault")[-1]:
            await self._add(records, "vault", tenant_keys)

    async def _add(self, records: Sequence[KeyRecord], purpose: Purpose, tenant_keys: Mapping[int, _TenantKey]) -> None:
        """The next version of a data key. Refused means that somebody else has just made it."""
        tenant, under = records[0].tenant, max(tenant_keys)
        version = pure.next_version(records, purpose)
        key = KeyRecord(tenant, purpose, version, under, b"", self._clock.now())
        await self._added(self._new_key(key, tenant_keys[under].secret))

    async def _added(self, key: KeyRecord) -> None:
        rotated = self.on_record(key.tenant, "rotated", f"{key.purpose} {key.version}")
        await self._store.commit([AddKeys(key.tenant, (key,)), rotated])
        self._telemetry.log("vault_key_rotated", tenant=key.tenant, purpose=key.purpose, version=key.version)

    async def close(self) -> None:
        """Let go of the service."""
        await self._service.close()

    # --- what an operator asks for

    async def rotate(self, tenant: str, purpose: Purpose) -> str:
        """Make the next version of a key; why not, or nothing. Raises `Unavailable`, and `Refused`."""
        await self.reread(tenant)
        held = self._held.get(tenant)
        assert held is not None
        records = await self._records(tenant)
        if not pure.may_rotate(records, purpose):
            return "rows have room for the fingerprints of two keys: rewrap, and destroy the older one, before that"
        if purpose == "tenant":
            version = pure.next_version(records, "tenant")
            key, _ = await self._new_tenant_key(tenant, version, self._clock.now())
            await self._added(key)
        else:
            await self._add(records, purpose, held.tenant_keys)
        await self.reread(tenant)
        return ""

    async def rewrap(self, tenant: str) -> int:
        """Have the tenant's keys wrapped by the newest key of the service (which does it unseen), and its data keys by
        the newest of the tenant's. How many were wrapped anew. No row is read. Raises `Unavailable`, and `Refused`.
        """
        ask = ReadKeys(tenant)
        records = (await self._store.commit([ask]))[ask].records
        changed = 0
        for key in (key for key in records if key.purpose in ("tenant", "deployment") and key.destroyed_at is None):
            wrapped = await self._service.rewrap(tenant, key.wrapped)
            if wrapped != key.wrapped:
                changed += (await self._store.commit([WrapKey(tenant, key, 0, wrapped)])).refused is None
        return changed + (await self._rewrap_data_keys(tenant, records) if tenant else 0)

    async def _rewrap_data_keys(self, tenant: str, records: Sequence[KeyRecord]) -> int:
        newest = max((key.version for key in pure.of(records, "tenant")), default=0)
        left = [key for key in records if 0 < key.under < newest and key.destroyed_at is None]
        if not left:
            return 0
        await self.reread(tenant)
        held = self._held.get(tenant)
        assert held is not None
        changed = 0
        for key in left:
            secret = _unwrapped(key, held.tenant_keys)
            wrapped = self._wrapped_by(key, secret, held.tenant_keys[newest].secret).wrapped
            changed += (await self._store.commit([WrapKey(tenant, key, newest, wrapped)])).refused is None
        return changed

    async def shred(self, tenant: str) -> None:
        """Destroy all keys of a tenant, here and at the service; may be asked again. Raises `Unavailable`."""
        ask = ReadKeys(tenant)
        records = (await self._store.commit([ask]))[ask].records
        shredded = self.on_record(tenant, "shredded")
        await self._store.commit([DestroyKeys(tenant, records, self._clock.now()), shredded])
        self._held.drop(tenant)
        await self._service.destroy(tenant)

    def on_record(self, tenant: str, done: str, *about: str) -> RecordAudit:
        """What is done with keys of a tenant, for its audit chain; to be committed with it. One entry `about` each."""
        at = round(self._clock.now() * 1_000_000)
        entries = tuple(Entry("keys", at, purpose=done, outcome=each) for each in about or ("",))
        return RecordAudit(tenant, self.mac(tenant, "audit"), entries)


def _unwrapped(key: KeyRecord, tenant_keys: Mapping[int, _TenantKey]) -> bytes:
    """Raises `Unavailable` if it does not open."""
    try:
        cipher = AESGCM(tenant_keys[key.under].secret)
        return pure.unwrap(cipher, key.wrapped, pure.whose(key.tenant, key.purpose, key.version))
    except (KeyError, ValueError) as error:
        raise Unavailable("keys") from error


async def deployment_key(
    store: Store, service: KeyService, inherited: bytes | None, *, clock: Clock, entropy: Entropy
) -> bytes:
    """The key of the deployment, from which all are derived that are not of the vault: `inherited`, or random, when it
    is first asked for, and what was committed then for ever after. Raises `Unavailable`.
    """
    ask, bound = ReadKeys(""), pure.whose("", "deployment", 1)
    row = (await store.commit([ask]))[ask]
    if not row.records:
        wrapped = await service.wrap("", pure.signed(inherited or entropy(KEY_BYTES), bound))
        await store.commit([AddKeys("", (KeyRecord("", "deployment", 1, 0, wrapped, clock.now()),))])
        row = (await store.commit([ask]))[ask]
    try:
        return pure.checked(await service.unwrap("", row.records[0].wrapped), bound)
    except ValueError as error:
        raise Unavailable("keys") from error
