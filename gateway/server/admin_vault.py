"""What an operator asks and says of the vault's keys, over the admin listener. No key is shown here, wrapped or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from gateway.operations import Rewrap
from gateway.pure.key_hierarchy import KeyRecord, Purpose, Tally
from gateway.server.actions import Action, Reply, decided

RATE_MAX = 1_000_000
_PURPOSES: Mapping[str, Purpose] = {"data": "vault", "tenant": "tenant", "fingerprint": "fingerprint"}
_NAMES = {purpose: name for name, purpose in _PURPOSES.items()}


class Standing(Protocol):
    """See `gateway.workers.vault_keys.Standing`."""

    @property
    def tenant(self) -> str: ...
    @property
    def records(self) -> Sequence[KeyRecord]: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def rewrap(self) -> Rewrap | None: ...
    @property
    def sealing(self) -> int: ...
    @property
    def needless(self) -> frozenset[tuple[Purpose, int]]: ...


class VaultKeys(Protocol):
    """Who does it (`gateway.workers.vault_keys.VaultKeys`)."""

    async def tenants(self) -> Sequence[str]: ...
    async def standing(self, tenant: str) -> Standing: ...
    async def rotate(self, tenant: str, purpose: Purpose) -> str: ...
    async def rewrap(self, tenant: str | None, rate: int) -> Sequence[str]: ...
    async def rewrapping(self, tenants: Sequence[str]) -> Mapping[str, Rewrap | None]: ...
    async def destroy(self, tenant: str) -> Sequence[tuple[Purpose, int]]: ...
    async def shred(self, tenant: str) -> str: ...


def vault_actions(vault: VaultKeys) -> list[Action]:
    """`GET /vault/keys?tenant=NAME`, `GET /vault/rewrap?tenant=NAME`; `POST /vault/rotate` with `{"tenant", "key"}`,
    `/vault/rewrap` with `{"tenant", "rate"}` (without a tenant: all), `/vault/destroy|shred` with `{"tenant"}`.

    200, or 409 with `complaints`; 400 for what is not understood; 503 while the store or the key service is away.
    """

    async def shown(query: Mapping[str, str], _: bytes) -> Reply:
        tenants = [query["tenant"]] if "tenant" in query else await vault.tenants()
        return 200, {"tenants": [_standing(await vault.standing(tenant)) for tenant in tenants]}

    async def progress(query: Mapping[str, str], _: bytes) -> Reply:
        tenants = [query["tenant"]] if "tenant" in query else await vault.tenants()
        found = await vault.rewrapping(tenants)
        return 200, {"rewraps": [_rewrap(work) for work in found.values() if work is not None]}

    async def rotate(_: Mapping[str, str], body: bytes) -> Reply:
        document = _document(body)
        purpose = _PURPOSES.get(_text(document, "key"))
        if purpose is None:
            raise ValueError("key is data, tenant or fingerprint")
        return decided(await vault.rotate(_text(document, "tenant"), purpose))

    async def rewrap(_: Mapping[str, str], body: bytes) -> Reply:
        document = _document(body)
        rate = document.get("rate")
        if not isinstance(rate, int) or not 1 <= rate <= RATE_MAX:
            raise ValueError(f"rate is a number of rows a second, from 1 to {RATE_MAX}")
        tenants = await vault.rewrap(_text(document, "tenant") if "tenant" in document else None, rate)
        return 200, {"tenants": list(tenants)}

    async def destroy(_: Mapping[str, str], body: bytes) -> Reply:
        gone = await vault.destroy(_text(_document(body), "tenant"))
        return 200, {"destroyed": [{"key": _NAMES[purpose], "version": version} for purpose, version in gone]}

    async def shred(_: Mapping[str, str], body: bytes) -> Reply:
        return decided(await vault.shred(_text(_document(body), "tenant")))

    return [
        Action("GET", "/vault/keys", shown),
        Action("GET", "/vault/rewrap", progress),
        Action("POST", "/vault/rotate", rotate),
        Action("POST", "/vault/rewrap", rewrap),
        Action("POST", "/vault/destroy", destroy),
        Action("POST", "/vault/shred", shred),
    ]


def _document(body: bytes) -> Mapping[str, Any]:
    document: Any = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("send an object")  # noqa: TRY004 - the caller's mistake, not ours
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    text = document.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= 255:
        raise ValueError(f"{name} is a text of 1 to 255 characters")
    return text


def _standing(standing: Standing) -> dict[str, object]:
    keys = [key for key in standing.records if key.purpose in _NAMES]
    return {
        "tenant": standing.tenant,
        "rows": standing.tally.rows,
        "keys": [_key(key, standing) for key in keys],
        "sealed_by_deployment_key": standing.tally.sealed.get(0, 0),
        "rewrap": None if standing.rewrap is None else _rewrap(standing.rewrap),
    }


def _key(key: KeyRecord, standing: Standing) -> dict[str, object]:
    rows: int | None = None
    if key.purpose == "vault":
        rows = standing.tally.sealed.get(key.version, 0)
    elif key.purpose == "fingerprint":
        rows = standing.tally.fingerprints[key.version % 2]
    return {
        "key": _NAMES[key.purpose],
        "version": key.version,
        "state": _state(key, standing),
        "created_at": key.created_at,
        "retired_at": key.retired_at,
        "destroyed_at": key.destroyed_at,
        "under": key.under,
        "uses": key.uses if key.purpose == "vault" else None,
        "rows": None if key.destroyed_at is not None else rows,
        "needless": (key.purpose, key.version) in standing.needless,
    }


def _state(key: KeyRecord, standing: Standing) -> str:
    if key.destroyed_at is not None:
        return "destroyed"
    if key.retired_at is not None:
        return "retired"
    return "sealing" if key.purpose == "vault" and key.version == standing.sealing else "live"


def _rewrap(work: Rewrap) -> dict[str, object]:
    return {
        "tenant": work.tenant,
        "rate": work.rate,
        "requested_at": work.requested_at,
        "pass_began_at": work.began_at or None,
        "seen": work.seen,
        "total": work.total,
        "renewed": work.renewed,
        "finished_at": work.finished_at,
    }
