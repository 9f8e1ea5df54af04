"""Keys wrapped by the transit engine of a real OpenBao."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.adapters.openbao import OpenBao
from gateway.adapters.sqlite import open_sqlite
from gateway.ports import Unavailable
from gateway.pure.errors import Refused
from tests.conftest import HandClock, Recorder
from tests.key_world import NUMBERS, Vault
from tests.openbao import ROOT_TOKEN, Bao, bao
from tests.servers import free_port

__all__ = ["bao"]

Make = Callable[..., OpenBao]


@pytest.fixture
def told() -> Counter[tuple[str, str]]:
    return Counter()


@pytest.fixture
async def make(bao: Bao, told: Counter[tuple[str, str]]) -> AsyncIterator[Make]:
    made: list[OpenBao] = []

    def service(key: str, token: str = ROOT_TOKEN, *, per_tenant: bool = False, url: str = bao.url) -> OpenBao:
        made.append(
            OpenBao(
                url,
                token,
                key,
                mount="transit",
                per_tenant=per_tenant,
                timeout=30.0,
                tls=None,
                told=lambda *what: told.update([what]),
            )
        )
        return made[-1]

    yield service
    for one in made:
        await one.close()


@pytest.fixture
def key(bao: Bao) -> str:
    name = f"pangate-{uuid.uuid4().hex[:12]}"
    bao.ask("POST", f"transit/keys/{name}")
    return name


async def test_what_it_wraps_it_unwraps_and_no_other_key_does(make: Make, key: str, bao: Bao) -> None:
    service = make(key)
    wrapped = await service.wrap("shop", b"\0secret\xff")
    assert b"secret" not in wrapped
    assert service.wrapped(wrapped)
    assert await service.unwrap("shop", wrapped) == b"\0secret\xff"
    assert not make("another").wrapped(wrapped)


async def test_rewrapping_changes_what_is_wrapped_only_if_the_engines_key_was_rotated(
    make: Make, key: str, bao: Bao
) -> None:
    service = make(key)
    wrapped = await service.wrap("shop", b"secret")
    assert await service.rewrap("shop", wrapped) == wrapped
    bao.ask("POST", f"transit/keys/{key}/rotate")
    again = await service.rewrap("shop", wrapped)
    assert b":vault:v2:" in again
    bao.ask("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    assert await service.unwrap("shop", again) == b"secret"
    with pytest.raises(Unavailable):
        await service.unwrap("shop", wrapped)


async def test_who_may_only_rewrap_takes_keys_to_the_newest_version_and_sees_none(
    make: Make, key: str, bao: Bao, told: Counter[tuple[str, str]]
) -> None:
    wrapped = await make(key).wrap("shop", b"secret")
    bao.ask("POST", f"transit/keys/{key}/rotate")
    role = make(key, bao.token(f"transit/rewrap/{key}"))
    again = await role.rewrap("shop", wrapped)
    with pytest.raises(Unavailable):
        await role.unwrap("shop", again)
    assert told["decrypt", "denied"] == 1
    assert await make(key).unwrap("shop", again) == b"secret"


async def test_a_tenants_own_key_is_made_with_its_first_use_and_deleted_with_the_tenant(
    make: Make, key: str, bao: Bao
) -> None:
    service = make(key, per_tenant=True)
    mine, others = await service.wrap("shop", b"mine"), await service.wrap("a/../b", b"others")
    assert await service.unwrap("shop", mine) == b"mine"
    await service.destroy("shop")
    await service.destroy("shop")
    with pytest.raises(Unavailable):
        await service.unwrap("shop", mine)
    assert await service.unwrap("a/../b", others) == b"others"


async def test_keys_of_the_deployment_are_never_deleted(make: Make, key: str) -> None:
    for service in (make(key), make(key, per_tenant=True)):
        wrapped = await service.wrap("", b"deployment")
        await service.destroy("")
        assert await service.unwrap("", wrapped) == b"deployment"


async def test_tenants_get_keys_of_their_own_by_rewrapping(make: Make, key: str) -> None:
    wrapped = await make(key).wrap("shop", b"secret")
    service = make(key, per_tenant=True)
    assert service.wrapped(wrapped)
    again = await service.rewrap("shop", wrapped)
    assert again != wrapped
    assert await service.unwrap("shop", again) == b"secret"


async def test_who_does_not_answer_or_refuses_is_told_apart(
    make: Make, key: str, told: Counter[tuple[str, str]]
) -> None:
    with pytest.raises(Unavailable, match="keys"):
        await make(key, url=f"http://127.0.0.1:{free_port()}").wrap("shop", b"x")
    with pytest.raises(Unavailable, match="keys"):
        await make(key, "not the token").wrap("shop", b"x")
    assert told == {("encrypt", "unavailable"): 1, ("encrypt", "denied"): 1}


@pytest.mark.parametrize("wrapped", [b"", b"\xff", b"file:x", b"transit:", b"transit:k:vault:v1:AAAA"])
async def test_what_no_engine_has_wrapped_does_not_unwrap(make: Make, key: str, wrapped: bytes) -> None:
    with pytest.raises(Unavailable):
        await make(key).unwrap("shop", wrapped.replace(b":k:", f":{key}:".encode()))


async def test_a_vault_lives_through_rotation_and_end_of_the_engines_key(
    make: Make, key: str, bao: Bao, tmp_path: Path
) -> None:
    """The whole of it: wrap, rotate, rewrap, destroy the old, read all; then shred."""
    clock, telemetry = HandClock(), Recorder()
    vault = Vault(open_sqlite(":memory:", clock=clock, telemetry=telemetry), clock, telemetry, tmp_path)
    vault.service = make(key, per_tenant=True)  # type: ignore[assignment]
    gateway = vault.gateway()
    held = {(await gateway.put(number)).token: number for number in NUMBERS}
    own = vault.service._name("shop")  # type: ignore[attr-defined]
    bao.ask("POST", f"transit/keys/{own}/rotate")
    await gateway.admin.rewrap("shop", 1000)
    await gateway.work()
    bao.ask("POST", f"transit/keys/{own}/config", {"min_decryption_version": 2})
    assert await vault.gateway().read_all(held) == list(held.values())
    assert await gateway.admin.shred("shop") == ""
    with pytest.raises(Refused):
        await vault.gateway().ring()
    await vault.store.close()
