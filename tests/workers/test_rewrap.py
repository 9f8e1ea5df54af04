"""Rewrapping takes all rows to the newest keys while requests go on, is not stopped by dying, and then says the truth:
what it leaves, no older key is needed for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.operations import (
    AskRewrap,
    DeleteToken,
    ListChains,
    Operation,
    ReadChain,
    ReadKeys,
    ReadValues,
    Rewrap,
    Row,
    Rows,
    TakeRewrap,
)
from gateway.ports import Store, Unavailable
from gateway.pure.audit import End, first_wrong, wrong_ends
from gateway.pure.key_hierarchy import DISTRIBUTED_SECONDS, FRESH_SECONDS, SETTLED_SECONDS, Purpose, of
from gateway.pure.metrics import Metric
from gateway.workers.rewrap import PAGE_ROWS, count_values
from tests.adapters.conftest import postgres_address, postgres_server, store
from tests.adapters.operations import ask
from tests.conftest import HandClock, Recorder
from tests.key_world import NUMBERS, Gateway, Vault

__all__ = ["postgres_address", "postgres_server", "store"]


@pytest.fixture
def vault(store: Store, clock: HandClock, telemetry: Recorder, tmp_path: Path) -> Vault:
    return Vault(store, clock, telemetry, tmp_path)


async def asked(gateway: Gateway, tenant: str | None = "shop", rate: int = 100_000) -> None:
    await gateway.admin.rewrap(tenant, rate)


async def filled(gateway: Gateway, rows: int) -> dict[str, str]:
    """Numbers by their tokens; only the first of each number is known again."""
    ring = await gateway.ring()
    held: dict[str, str] = {}
    for n in range(rows):
        number = NUMBERS[n % len(NUMBERS)]
        merchant = None if n < len(NUMBERS) else f"m{n}"
        row = await gateway.put(number, ring=ring, merchant=merchant)
        held[row.token] = number
    return held


async def rewrap_of(gateway: Gateway, tenant: str = "shop") -> Rewrap:
    work = (await gateway.admin.rewrapping([tenant]))[tenant]
    assert work is not None
    return work


async def test_all_rows_come_to_the_newest_key_and_the_old_one_can_be_destroyed(vault: Vault) -> None:
    gateway = vault.gateway()
    held = await filled(gateway, 300)
    await gateway.admin.rotate("shop", "vault")
    assert await gateway.admin.destroy("shop") == []
    await asked(gateway)
    await gateway.work()
    assert (await count_values(vault.store, "shop")).sealed == {2: 300}
    assert await gateway.admin.destroy("shop") == [("vault", 1)]
    assert await vault.gateway().read_all(held) == list(held.values())
    assert vault.telemetry.counts[Metric.VAULT_REWRAPPED, ()] == 300


async def test_rows_of_an_older_database_come_under_the_hierarchy_with_their_fingerprints(vault: Vault) -> None:
    held = {await vault.put_old(number): number for number in NUMBERS}
    gateway = vault.gateway()
    await asked(gateway)
    await gateway.work()
    tally = await count_values(vault.store, "shop")
    assert (tally.sealed, tally.fingerprints) == ({1: 4}, (0, 4))
    assert await gateway.admin.destroy("shop") == [("fingerprint", 0)]
    assert [(await gateway.put(number)).token for number in held.values()] == list(held)
    assert await gateway.admin.shred("shop") == ""


async def test_a_number_stays_known_through_a_rotation_of_the_fingerprint_key(vault: Vault) -> None:
    one, other = vault.gateway(), vault.gateway()
    held = await filled(one, 8)
    await other.ring()
    await one.admin.rotate("shop", "fingerprint")
    await asked(one)
    while True:
        for gateway in (one, other):
            for token, number in list(held.items())[:4]:
                assert (await gateway.put(number)).token == token
        delay = await one.rewrapper.step()
        if one.rewrapper._work is None:
            break
        vault.clock.advance(delay)
    tally = await count_values(vault.store, "shop")
    assert tally.fingerprints == (8, 0)
    assert await one.admin.destroy("shop") == [("fingerprint", 1)]
    assert await one.read_all(held) == list(held.values())


async def test_two_gateways_that_know_different_keys_give_a_number_one_token(vault: Vault) -> None:
    one, other = vault.gateway(), vault.gateway()
    stale = await other.ring()
    await one.admin.rotate("shop", "fingerprint")
    rows = await asyncio.gather(*(g.put(NUMBERS[0], ring=r) for g, r in ((one, None), (other, stale))))
    assert len({row.token for row in rows}) == 1


async def test_a_third_fingerprint_key_waits_until_the_first_is_gone(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 4)
    assert await gateway.admin.rotate("shop", "fingerprint") == ""
    assert "destroy" in await gateway.admin.rotate("shop", "fingerprint")


async def test_what_is_written_by_a_gateway_that_knows_no_better_is_renewed_too(vault: Vault) -> None:
    gateway, stale = vault.gateway(), vault.gateway()
    await filled(gateway, 4)
    ring = await stale.ring()
    await gateway.admin.rotate("shop", "vault")
    await asked(gateway)
    late = ""
    while gateway.rewrapper._work is not None or not late:
        delay = await gateway.rewrapper.step()
        work = await rewrap_of(gateway)
        if not late and work.renewed:
            late = (await stale.put(NUMBERS[0], ring=ring, merchant="late")).token
        vault.clock.advance(delay)
    assert (await count_values(vault.store, "shop")).sealed == {2: 5}
    assert await gateway.read(late) == NUMBERS[0]


async def test_the_last_pass_begins_when_nobody_writes_by_an_older_key(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 4)
    began = vault.clock.now()
    await gateway.admin.rotate("shop", "vault")
    await asked(gateway)
    await gateway.work()
    assert (await rewrap_of(gateway)).began_at >= began + SETTLED_SECONDS


async def test_who_dies_in_the_middle_is_followed_by_somebody_who_goes_on_from_there(vault: Vault) -> None:
    first, second = vault.gateway(), vault.gateway()
    held = await filled(first, 3 * PAGE_ROWS)
    await first.admin.rotate("shop", "vault")
    vault.clock.advance(DISTRIBUTED_SECONDS)
    await asked(first)
    for _ in range(3):
        await first.rewrapper.step()
    done = await rewrap_of(second)
    assert 0 < done.renewed < 3 * PAGE_ROWS
    await second.rewrapper.step()
    assert second.rewrapper._work is None  # the first may be alive
    vault.clock.advance(11)
    await second.rewrapper.step()
    assert second.rewrapper._work is not None
    assert second.rewrapper._work.seen >= done.seen
    await second.work()
    assert (await rewrap_of(second)).renewed == 3 * PAGE_ROWS
    assert await second.read_all(held) == list(held.values())


async def test_a_row_that_changes_meanwhile_is_not_overwritten(vault: Vault) -> None:
    gateway = vault.gateway()
    ((token, *_),) = [list(await filled(gateway, 1))]
    await gateway.admin.rotate("shop", "vault")
    vault.clock.advance(DISTRIBUTED_SECONDS)
    await asked(gateway)
    await gateway.rewrapper.step()
    commit = vault.store.commit

    async def deletes_before(unit: object) -> object:
        if any(type(op).__name__ == "RenewValues" for op in unit):  # type: ignore[attr-defined]
            await commit([DeleteToken("shop", token, 0.0)])
        return await commit(unit)  # type: ignore[arg-type]

    gateway.rewrapper._store = type("Between", (), {"commit": staticmethod(deletes_before)})()
    await gateway.rewrapper.step()
    gateway.rewrapper._store = vault.store
    assert (await count_values(vault.store, "shop")).rows == 0


async def test_deleted_rows_are_left_alone(vault: Vault) -> None:
    gateway = vault.gateway()
    held = await filled(gateway, 4)
    gone, *left = held
    await vault.store.commit([DeleteToken("shop", gone, vault.clock.now())])
    await gateway.admin.rotate("shop", "vault")
    await asked(gateway)
    await gateway.work()
    assert (await count_values(vault.store, "shop")).sealed == {2: 3}
    assert await gateway.read_all(left) == [held[token] for token in left]


async def test_it_keeps_to_its_rate(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 100)
    await gateway.admin.rotate("shop", "vault")
    vault.clock.advance(DISTRIBUTED_SECONDS)
    await asked(gateway, rate=10)
    await gateway.rewrapper.step()
    assert await gateway.rewrapper.step() == pytest.approx(1.0)
    assert (await rewrap_of(gateway)).renewed == 10


async def test_all_tenants_and_the_deployment_are_meant_when_none_is_named(vault: Vault) -> None:
    gateway = vault.gateway()
    await vault.deployment()
    await gateway.put(NUMBERS[0], "shop")
    await vault.put_old(NUMBERS[0], "other")
    vault.service.version = 2
    assert await gateway.admin.rewrap(None, 1000) == ["other", "shop"]
    for _ in range(3):
        await gateway.work()
    vault.service.oldest = 2
    assert [await vault.gateway().admin.tenants(), await vault.deployment()][0] == ["other", "shop"]
    for tenant in ("shop", "other"):
        await vault.gateway().ring(tenant)


async def test_it_waits_while_the_service_is_away(vault: Vault) -> None:
    await vault.put_old(NUMBERS[0])
    gateway = vault.gateway()
    await asked(gateway)
    vault.service.away = True
    assert await gateway.rewrapper.step() > 1
    assert (await rewrap_of(gateway)).finished_at is None
    vault.service.away = False
    vault.clock.advance(30)
    await gateway.work()
    assert (await rewrap_of(gateway)).finished_at is not None


async def test_the_work_of_a_shredded_tenant_ends(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 4)
    await asked(gateway)
    await gateway.admin.shred("shop")
    vault.clock.advance(FRESH_SECONDS)
    await gateway.work()
    assert (await rewrap_of(gateway)).finished_at is not None


async def test_a_work_that_is_under_way_is_not_begun_again(vault: Vault) -> None:
    now = vault.clock.now()
    assert not (await vault.store.commit([AskRewrap("shop", 10, now)])).refused
    rows = await vault.store.commit([AskRewrap("shop", 20, now)])
    assert rows.refused == 0
    taken = TakeRewrap("shop", now, now + 10)
    rows = await vault.store.commit([taken])
    assert rows[taken].rewrap is not None
    assert rows[taken].rewrap.rate == 10
    assert (await vault.store.commit([TakeRewrap("shop", now + 5, now + 15)])).refused == 0


class Watched:
    """The store, and the kinds of what was asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: set[type] = set()

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        self.asked |= {type(operation) for operation in unit}
        return await self._store.commit(unit)

    async def close(self) -> None:
        await self._store.close()


async def test_asked_again_after_its_end_it_finds_nothing_left_and_opens_no_row(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 300)
    await gateway.admin.rotate("shop", "vault")
    await asked(gateway)
    await gateway.work()
    watched = gateway.rewrapper._store = Watched(vault.store)
    await asked(gateway)
    began = vault.clock.now()
    await gateway.work()
    work = await rewrap_of(gateway)
    assert (work.renewed, work.seen, work.total, work.finished_at) == (0, 300, 300, pytest.approx(began))
    assert ReadValues not in watched.asked


@pytest.mark.parametrize("purpose", ["vault", "fingerprint"])
async def test_asked_again_after_a_rotation_it_begins_anew(vault: Vault, purpose: Purpose) -> None:
    gateway = vault.gateway()
    await filled(gateway, 8)
    await asked(gateway)
    await gateway.work()
    await gateway.admin.rotate("shop", purpose)
    vault.clock.advance(SETTLED_SECONDS)
    await asked(gateway)
    await gateway.work()
    assert (await rewrap_of(gateway)).renewed >= 8


async def test_how_many_rows_are_left_is_told_until_none_is(vault: Vault) -> None:
    gateway, left = vault.gateway(), (Metric.VAULT_REWRAP_LEFT, ())
    await filled(gateway, 2 * PAGE_ROWS)
    await gateway.admin.rotate("shop", "vault")
    vault.clock.advance(DISTRIBUTED_SECONDS)
    await asked(gateway)
    told = []
    for _ in range(2):
        await gateway.rewrapper.step()
        told.append(vault.telemetry.counts[left])
    assert told == [2 * PAGE_ROWS, PAGE_ROWS]
    vault.service.away = True
    gateway.rewrapper._store = type("Away", (), {"commit": staticmethod(away)})()
    await gateway.rewrapper.step()
    assert vault.telemetry.counts[left] == 0  # of this process: another goes on with it
    gateway.rewrapper._store, vault.service.away = vault.store, False
    vault.clock.advance(30)
    await gateway.work()
    assert vault.telemetry.counts[left] == 0


async def away(_: object) -> None:
    raise Unavailable("store")


async def test_what_is_done_with_keys_is_in_the_audit_chain_which_holds(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 4)
    for purpose in ("vault", "tenant", "fingerprint"):
        await gateway.admin.rotate("shop", purpose)
    await asked(gateway)
    await asked(gateway)  # it is under way
    await gateway.work()
    await gateway.admin.destroy("shop")
    await gateway.admin.shred("shop")
    (chain,) = (await ask(vault.store, ListChains("shop"))).chains
    entries = (await ask(vault.store, ReadChain(*chain.place, 0, 100))).entries
    renewed = (await rewrap_of(gateway)).renewed
    assert [(e.entry.event, e.entry.purpose, e.entry.outcome) for e in entries] == [
        ("keys", "rotated", "vault 2"),
        ("keys", "rotated", "tenant 2"),
        ("keys", "rotated", "fingerprint 2"),
        ("keys", "rewrap begun", ""),
        ("keys", "retired", "fingerprint 1"),
        ("keys", "rewrap ended", f"{renewed} rows renewed"),
        *(("keys", "destroyed", name) for name in ("fingerprint 1", "tenant 1", "vault 1")),
        ("keys", "shredded", ""),
    ]
    key = gateway.keys.mac("shop", "audit")
    assert first_wrong(chain.place, End(), entries, key) == ""
    assert list(wrong_ends(chain, key)) == []


async def test_a_key_is_not_made_that_cannot_be_recorded(vault: Vault) -> None:
    gateway = vault.gateway()
    await filled(gateway, 1)
    gateway.keys.mac = lambda *_: None  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(TypeError):
        await gateway.admin.rotate("shop", "vault")
    assert [key.version for key in of((await ask(vault.store, ReadKeys("shop"))).records, "vault")] == [1]


async def test_a_destroyed_data_key_takes_with_it_what_was_not_renewed(vault: Vault) -> None:
    """What the checks above rest upon: a row under a destroyed key is lost."""
    from gateway.operations import DestroyKeys

    gateway = vault.gateway()
    (token,) = await filled(gateway, 1)
    await gateway.admin.rotate("shop", "vault")
    ask = ReadKeys("shop")
    records = (await vault.store.commit([ask]))[ask].records
    await vault.store.commit([DestroyKeys("shop", (of(records, "vault")[0],), 0.0)])
    with pytest.raises(Unavailable):
        await vault.gateway().read(token)
