"""The vault's keys in SQL."""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters.sql_statements import (
    DONE,
    REFUSED,
    Handlers,
    Steps,
    change,
    changed,
    micros,
    query,
    seconds_if_any,
)
from gateway.operations import AddKeys, DestroyKeys, KeysRow, ReadKeys, RetireKey, Row, Rows, UseKey, WrapKey
from gateway.pure.key_hierarchy import KeyRecord

_KEY = "tenant text, purpose text, version bigint"
_THIS_KEY = "WHERE tenant = :tenant AND purpose = :purpose AND version = :version"
_KEYS = query(
    "tenant text",
    """SELECT purpose, version, under, wrapped, created_at, retired_at, destroyed_at, uses FROM vault_keys
    WHERE tenant = :tenant ORDER BY purpose, version""",
)
_OLDER = query("tenant text", "SELECT 1 FROM tokens WHERE tenant = :tenant AND fingerprint IS NOT NULL LIMIT 1")
_ADD_KEY = change(
    f"{_KEY}, under bigint, wrapped bytea, now bigint",
    """INSERT INTO vault_keys (tenant, purpose, version, under, wrapped, created_at)
    VALUES (:tenant, :purpose, :version, :under, :wrapped, :now) ON CONFLICT (tenant, purpose, version) DO NOTHING""",
    key="tenant purpose version",
)
_USE_KEY = change(f"{_KEY}, count bigint", f"UPDATE vault_keys SET uses = uses + :count {_THIS_KEY}")
_WRAP_KEY = change(
    f"{_KEY}, before bytea, under bigint, wrapped bytea",
    f"UPDATE vault_keys SET under = :under, wrapped = :wrapped {_THIS_KEY} AND wrapped = :before",
)
_RETIRE_KEY = change(
    f"{_KEY}, now bigint", f"UPDATE vault_keys SET retired_at = :now {_THIS_KEY} AND retired_at IS NULL"
)
_DESTROY_KEY = change(
    f"{_KEY}, nothing bytea, now bigint",
    f"UPDATE vault_keys SET wrapped = :nothing, destroyed_at = :now {_THIS_KEY} AND destroyed_at IS NULL",
)


def _read_keys(op: ReadKeys, _: Rows) -> Steps[KeysRow]:
    rows = yield _KEYS, (op.tenant,)
    older = not rows and bool((yield _OLDER, (op.tenant,)))
    return KeysRow(records=tuple(_record(op.tenant, *row) for row in rows), older=older)


def _record(tenant: str, purpose: Any, version: int, under: int, wrapped: bytes, *columns: Any) -> KeyRecord:
    *times, uses = columns
    created_at, retired_at, destroyed_at = map(seconds_if_any, times)
    assert created_at is not None
    return KeyRecord(tenant, purpose, version, under, wrapped, created_at, retired_at, destroyed_at, uses)


def _add_keys(op: AddKeys, _: Rows) -> Steps[Row]:
    for key in op.records:
        put = (key.under, key.wrapped, micros(key.created_at))
        if not (yield _ADD_KEY, (op.tenant, key.purpose, key.version, *put)):
            return REFUSED
    return DONE


def _use_key(op: UseKey, _: Rows) -> Steps[Row]:
    return changed((yield _USE_KEY, (op.tenant, op.purpose, op.version, op.count)))


def _wrap_key(op: WrapKey, _: Rows) -> Steps[Row]:
    before = op.before
    values = (op.tenant, before.purpose, before.version, before.wrapped, op.under, op.wrapped)
    return changed((yield _WRAP_KEY, values))


def _retire_key(op: RetireKey, _: Rows) -> Steps[Row]:
    return changed((yield _RETIRE_KEY, (op.tenant, op.purpose, op.version, micros(op.now))))


def _destroy_keys(op: DestroyKeys, _: Rows) -> Steps[Row]:
    yield _DESTROY_KEY, [(op.tenant, key.purpose, key.version, b"", micros(op.now)) for key in op.records]
    return DONE


HANDLERS: Final[Handlers] = {
    ReadKeys: _read_keys,
    AddKeys: _add_keys,
    UseKey: _use_key,
    WrapKey: _wrap_key,
    RetireKey: _retire_key,
    DestroyKeys: _destroy_keys,
}
