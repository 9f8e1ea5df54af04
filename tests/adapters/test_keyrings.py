"""Keys of tenants: made once by whoever is first, wrapped in the store, unwrapped for a while, gone when destroyed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.keys import FileService, Succession
from gateway.operations import AddKeys, DestroyKeys, KeysRow, ReadKeys, WrapKey
from gateway.ports import Store, Unavailable, settled
from gateway.pure.errors import Reason, Refused
from gateway.pure.key_hierarchy import DISTRIBUTED_SECONDS, FRESH_SECONDS, KeyRecord, of, version_of
from gateway.pure.macs import Mac
from tests.adapters.operations import ask
from tests.conftest import HandClock, Recorder
from tests.key_world import NUMBERS, ROOT, Vault, key_file

VISA = NUMBERS[0]


@pytest.fixture
def vault(store: Store, clock: HandClock, telemetry: Recorder, tmp_path: Path) -> Vault:
    return Vault(store, clock, telemetry, tmp_path)


async def records(vault: Vault, tenant: str = "shop") -> tuple[KeyRecord, ...]:
    row = await ask(vault.store, ReadKeys(tenant))
    assert isinstance(row, KeysRow)
    return row.records


async def test_the_first_to_ask_makes_a_tenants_keys_and_all_others_use_them(vault: Vault) -> None:
    gateways = [vault.gateway() for _ in range(4)]
    rings = await asyncio.gather(*(gateway.ring() for gateway in gateways))
    sealed = rings[0].seal(b"4242", b"row")
    assert [ring.open(sealed, b"row") for ring in rings] == [b"4242"] * 4
    assert len({tuple((n, mac.digest(b"")) for n, mac in ring.fingerprints) for ring in rings}) == 1
    assert [(key.purpose, key.version, key.under) for key in await records(vault)] == [
        ("fingerprint", 1, 1),
        ("tenant", 1, 0),
        ("vault", 1, 1),
    ]


async def test_no_key_is_in_the_store_in_clear(vault: Vault) -> None:
    ring = await vault.gateway().ring()
    stored = b"".join(key.wrapped for key in await records(vault))
    expected = ring.fingerprints[0][1].digest(b"")
    assert all(Mac(stored[n : n + 32]).digest(b"") != expected for n in range(len(stored) - 31))


async def test_a_fresh_ring_is_at_hand_without_a_look_into_the_store(vault: Vault) -> None:
    gateway = vault.gateway()
    ring = await gateway.ring()
    assert gateway.keys.ring("shop") is ring
    vault.clock.advance(FRESH_SECONDS)
    assert await gateway.ring() is not ring


async def test_the_store_is_asked_once_for_all_who_wait(vault: Vault) -> None:
    gateway = vault.gateway()
    rings = await asyncio.gather(*(gateway.ring() for _ in range(10)))
    assert len(set(map(id, rings))) == 1
    assert vault.service.asked == ["wrap", "unwrap"]


@pytest.mark.parametrize("what", ["tenant", "associated", "version"])
async def test_a_value_in_anothers_place_does_not_open(vault: Vault, what: str) -> None:
    gateway = vault.gateway()
    sealed = (await gateway.ring()).seal(VISA.encode(), b"row")
    if what == "version":
        await gateway.admin.rotate("shop", "vault")
        sealed = sealed[:4] + b"\x02" + sealed[5:]
    ring = await gateway.ring("other" if what == "tenant" else "shop")
    with pytest.raises(Unavailable):
        ring.open(sealed, b"another row" if what == "associated" else b"row")


async def test_a_wrapped_key_in_anothers_place_does_not_unwrap(vault: Vault) -> None:
    await vault.gateway().ring("shop")
    await vault.gateway().ring("other")
    mine, others = {k.purpose: k for k in await records(vault)}, {k.purpose: k for k in await records(vault, "other")}
    for purpose in ("tenant", "vault"):
        await vault.store.commit([WrapKey("shop", mine[purpose], mine[purpose].under, others[purpose].wrapped)])
        with pytest.raises(Unavailable):
            await vault.gateway().ring("shop")
        await vault.store.commit([WrapKey("shop", *await _one(vault, purpose), mine[purpose].wrapped)])
    await vault.gateway().ring("shop")


async def _one(vault: Vault, purpose: str) -> tuple[KeyRecord, int]:
    key = next(key for key in await records(vault) if key.purpose == purpose)
    return key, key.under


async def test_numbers_of_an_older_database_are_still_known_and_read(vault: Vault) -> None:
    token = await vault.put_old(VISA)
    gateway = vault.gateway()
    assert await gateway.read(token) == VISA
    assert (await gateway.put(VISA)).token == token
    fresh = await gateway.put(NUMBERS[1])
    assert await gateway.read(fresh.token) == NUMBERS[1]
    assert version_of((await gateway.ring()).seal(b"x", b"")) == 1
    assert next((key.purpose, key.version) for key in await records(vault)) == ("fingerprint", 0)


async def test_a_new_version_seals_only_when_every_gateway_knows_of_it(vault: Vault) -> None:
    one, other = vault.gateway(), vault.gateway()
    await other.ring()
    assert await one.admin.rotate("shop", "vault") == ""
    assert version_of((await one.ring()).seal(b"x", b"")) == 1
    vault.clock.advance(DISTRIBUTED_SECONDS)
    sealed = (await one.ring()).seal(b"x", b"")
    assert version_of(sealed) == 2
    assert (await other.ring()).open(sealed, b"") == b"x"


async def test_a_data_key_is_followed_by_the_next_when_it_was_used_often_enough(vault: Vault) -> None:
    gateway = vault.gateway(rotate_after=1000)
    for _ in range(12):
        ring = await gateway.ring()
        for _ in range(100):
            ring.seal(b"x", b"")
        vault.clock.advance(FRESH_SECONDS)
    vault.clock.advance(DISTRIBUTED_SECONDS)
    assert version_of((await gateway.ring()).seal(b"x", b"")) >= 2
    first = of(await records(vault), "vault")[0]
    assert 1000 <= first.uses <= 2000


async def test_uses_of_a_process_that_was_killed_stay_counted(vault: Vault) -> None:
    for _ in range(4):
        (await vault.gateway(rotate_after=1000).ring()).seal(b"x", b"")
    assert of(await records(vault), "vault")[0].uses >= 4


async def test_while_the_service_is_away_keys_that_are_known_serve_and_new_tenants_wait(vault: Vault) -> None:
    gateway = vault.gateway(keep=600.0)
    await gateway.ring()
    vault.service.away = True
    for _ in range(50):
        vault.clock.advance(11)
        await gateway.ring()
    with pytest.raises(Unavailable, match="keys"):
        await gateway.ring("newcomer")
    vault.clock.advance(60)
    with pytest.raises(Unavailable, match="keys"):
        await gateway.ring()
    vault.service.away = False
    vault.clock.advance(1)
    await gateway.ring()
    await gateway.ring("newcomer")


async def test_who_fails_is_not_asked_again_at_once(vault: Vault) -> None:
    gateway = vault.gateway()
    vault.service.away = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            await gateway.ring()
    assert len(vault.service.asked) == 1


async def test_a_key_that_is_wrapped_as_before_is_not_unwrapped_again(vault: Vault) -> None:
    gateway = vault.gateway(keep=600.0)
    await gateway.ring()
    asked = len(vault.service.asked)
    for _ in range(20):
        vault.clock.advance(FRESH_SECONDS)
        await gateway.ring()
    assert len(vault.service.asked) == asked


async def test_after_the_service_rotated_its_key_the_old_one_is_needed_until_all_was_rewrapped(vault: Vault) -> None:
    gateway = vault.gateway()
    token = (await gateway.put(VISA)).token
    await vault.deployment()
    vault.service.version = 2
    assert [await gateway.keys.rewrap(tenant) for tenant in ("", "shop")] == [1, 1]
    vault.service.oldest = 2  # the old one is destroyed
    assert await vault.gateway().read(token) == VISA
    await vault.deployment()
    assert vault.service.asked[-4:] == ["rewrap", "rewrap", "unwrap", "unwrap"]


async def test_without_rewrapping_a_destroyed_service_key_takes_all_with_it(vault: Vault) -> None:
    token = (await vault.gateway().put(VISA)).token
    vault.service.version = vault.service.oldest = 2
    with pytest.raises(Unavailable):
        await vault.gateway().read(token)


async def test_a_new_tenant_key_wraps_all_data_keys_and_the_old_one_can_go(vault: Vault) -> None:
    gateway = vault.gateway()
    token = (await gateway.put(VISA)).token
    assert await gateway.admin.rotate("shop", "tenant") == ""
    assert ("tenant", 1) not in await gateway.admin.destroy("shop")
    assert await gateway.keys.rewrap("shop") == 2
    assert await gateway.admin.destroy("shop") == [("tenant", 1)]
    assert await vault.gateway().read(token) == VISA


async def test_a_shredded_tenant_is_told_so_everywhere_within_the_time_of_a_look(vault: Vault) -> None:
    one, other = vault.gateway(), vault.gateway()
    token = (await one.put(VISA)).token
    assert await other.read(token) == VISA
    assert await one.admin.shred("shop") == ""
    vault.clock.advance(FRESH_SECONDS)
    for gateway in (one, other, vault.gateway()):
        with pytest.raises(Refused) as refused:
            await gateway.ring()
        assert refused.value.reason is Reason.TENANT_SHREDDED
    assert all(not key.wrapped for key in await records(vault))
    assert vault.service.asked[-1] == "destroy shop"
    assert await other.ring("another") is not None


async def test_a_tenant_with_rows_under_the_deployments_key_cannot_be_shredded_yet(vault: Vault) -> None:
    token = await vault.put_old(VISA)
    gateway = vault.gateway()
    await gateway.ring()
    assert "rewrap" in await gateway.admin.shred("shop")
    assert await gateway.read(token) == VISA


async def test_a_tenant_without_keys_cannot_be_shredded(vault: Vault) -> None:
    assert await vault.gateway().admin.shred("nobody") == "no tenant of this name has keys"


async def test_the_key_of_the_deployment_is_what_was_committed_first(vault: Vault) -> None:
    first = await asyncio.gather(*(vault.deployment() for _ in range(3)))
    assert len(set(first)) == 1
    assert await vault.deployment(ROOT) == first[0]


async def test_the_key_of_the_deployment_is_the_files_if_there_is_one(vault: Vault) -> None:
    assert await vault.deployment(ROOT) == ROOT


async def test_keys_that_nobody_asks_for_leave_the_memory(vault: Vault) -> None:
    gateway = vault.gateway(keep=600.0)
    await gateway.ring()
    vault.clock.advance(700)
    gateway.keys._sweep()
    assert len(gateway.keys._held) == 0


async def test_a_former_service_unwraps_what_it_has_wrapped_until_it_was_rewrapped(tmp_path: Path) -> None:
    former, service = (FileService(key_file(tmp_path / name)) for name in ("old.key", "new.key"))
    both = Succession(service, former)
    wrapped = await former.wrap("shop", b"secret")
    assert await both.unwrap("shop", wrapped) == b"secret"
    again = await both.rewrap("shop", wrapped)
    assert await service.unwrap("shop", again) == b"secret"
    assert await both.rewrap("shop", again) == again
    assert service.wrapped(await both.wrap("shop", b"x"))
    assert both.wrapped(wrapped)
    assert not service.wrapped(wrapped)
    with pytest.raises(Unavailable):
        await service.unwrap("shop", wrapped)


async def test_a_wrapped_key_is_rewrapped_only_if_it_is_what_it_was(vault: Vault) -> None:
    await vault.gateway().ring()
    key = (await records(vault))[0]
    assert not (await ask(vault.store, WrapKey("shop", key, 1, b"new"))).refused
    assert (await ask(vault.store, WrapKey("shop", key, 1, b"other"))).refused


async def test_keys_are_added_all_or_none(vault: Vault) -> None:
    await vault.gateway().ring()
    now = vault.clock.now()
    new = [KeyRecord("shop", "vault", n, 1, b"w", now) for n in (2, 1)]
    rows = await vault.store.commit([AddKeys("shop", tuple(new))])
    assert rows.refused == 0
    assert [key.version for key in of(await records(vault), "vault")] == [1]


async def test_a_destroyed_key_leaves_nothing_but_when_it_ended(vault: Vault) -> None:
    await vault.gateway().ring()
    await vault.store.commit([DestroyKeys("shop", await records(vault), vault.clock.now())])
    assert [(key.wrapped, key.destroyed_at) for key in await records(vault)] == [(b"", vault.clock.now())] * 3


@given(tenant=st.text(max_size=20), other=st.text(max_size=20), plain=st.binary(max_size=64))
async def test_no_tenant_opens_what_another_has_sealed(tenant: str, other: str, plain: bytes) -> None:
    import tempfile

    from gateway.adapters.sqlite import open_sqlite

    clock, telemetry = HandClock(), Recorder()
    store = open_sqlite(":memory:", clock=clock, telemetry=telemetry)
    try:
        with tempfile.TemporaryDirectory() as folder:
            gateway = Vault(store, clock, telemetry, Path(folder)).gateway()
            mine, theirs = await gateway.ring(f"a{tenant}"), await gateway.ring(f"b{other}")
            sealed = mine.seal(plain, b"row")
            assert mine.open(sealed, b"row") == plain
            with pytest.raises(Unavailable):
                theirs.open(sealed, b"row")
    finally:
        await store.close()


async def test_a_ring_that_is_asked_for_while_the_store_is_away_says_so(vault: Vault) -> None:
    gateway = vault.gateway()
    await vault.store.close()
    with pytest.raises(Unavailable, match="store"):
        await settled(gateway.keys.ring("shop"))


async def test_what_no_service_has_wrapped_does_not_unwrap(tmp_path: Path) -> None:
    service = FileService(key_file(tmp_path / "one.key"))
    for wrapped in (b"", os.urandom(60), (await service.wrap("t", b"secret"))[:-1]):
        with pytest.raises(Unavailable):
            await service.unwrap("t", wrapped)
