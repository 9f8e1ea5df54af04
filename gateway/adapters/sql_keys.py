"""Idempotency keys in SQL.

A claim that finds its key taken holds the row until its transaction ends, so that what is read of it then is true.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Final

from gateway.adapters.sql_statements import Handlers, Steps, change, changed, micros, query
from gateway.operations import (
    AskKey,
    ClaimKey,
    DoubtKey,
    FinishKey,
    KeyRow,
    KeyState,
    PurgedRow,
    PurgeKeys,
    ReleaseKey,
    Row,
    Rows,
)

_CLAIM = """INSERT INTO keys (tenant, scope, state, fingerprint, owner, claimed_at)
    VALUES (:tenant, :scope, 'in_flight', :fingerprint, :owner, :now)
    ON CONFLICT (tenant, scope) DO UPDATE SET state = excluded.state, fingerprint = excluded.fingerprint,
        owner = excluded.owner, claimed_at = excluded.claimed_at, response = NULL, settled_at = NULL, expires_at = NULL
    WHERE keys.state = 'done' AND keys.expires_at < excluded.claimed_at"""
_CLAIM_KEY = change(
    "tenant text, scope bytea, fingerprint bytea, owner text, now bigint",
    _CLAIM,
    key="tenant scope",
    postgres=_CLAIM.replace("response = NULL", "holder = excluded.holder, response = NULL"),
)
_KEY = query(
    "tenant text, scope bytea",
    "SELECT state, fingerprint, response FROM keys WHERE tenant = :tenant AND scope = :scope",
)
_KNOWN_KEY = query(
    "tenant text, scope bytea, now bigint",
    """SELECT state, fingerprint, response FROM keys
    WHERE tenant = :tenant AND scope = :scope AND NOT (state = 'done' AND expires_at < :now)""",
)
_FINISH_KEY = change(
    "tenant text, scope bytea, owner text, response bytea, now bigint, expires_at bigint",
    """UPDATE keys SET state = 'done', response = :response, settled_at = :now, expires_at = :expires_at
    WHERE tenant = :tenant AND scope = :scope AND owner = :owner AND state <> 'done'""",
)
_RELEASE_KEY = change(
    "tenant text, scope bytea, owner text",
    "DELETE FROM keys WHERE tenant = :tenant AND scope = :scope AND owner = :owner AND state <> 'done'",
)
_DOUBT_KEY = change(
    "tenant text, scope bytea, owner text, now bigint",
    """UPDATE keys SET state = 'unknown', settled_at = :now
    WHERE tenant = :tenant AND scope = :scope AND owner = :owner AND state = 'in_flight'""",
)
_EXPIRED = query(
    "now bigint, limit bigint",
    """SELECT tenant, scope FROM keys WHERE state = 'done' AND expires_at < :now
    ORDER BY expires_at LIMIT :limit""",
)
_FORGET = change(
    "tenant text, scope bytea, now bigint",
    "DELETE FROM keys WHERE tenant = :tenant AND scope = :scope AND state = 'done' AND expires_at < :now",
)


def _claim_key(op: ClaimKey, _: Rows) -> Steps[KeyRow]:
    if (yield _CLAIM_KEY, (op.tenant, op.scope, op.fingerprint, op.owner, micros(op.now))):
        return KeyRow(state=KeyState.NEW)
    ((state, fingerprint, response),) = yield _KEY, (op.tenant, op.scope)
    return KeyRow(refused=True, state=KeyState(state), fingerprint=fingerprint, response=response or b"")


def _ask_key(op: AskKey, _: Rows) -> Steps[KeyRow]:
    found = yield _KNOWN_KEY, (op.tenant, op.scope, micros(op.now))
    if not found:
        return KeyRow(state=KeyState.NEW)
    ((state, fingerprint, response),) = found
    return KeyRow(state=KeyState(state), fingerprint=fingerprint, response=response or b"")


def _finish_key(op: FinishKey, rows: Rows) -> Steps[Row]:
    times = micros(op.now), micros(op.expires_at)
    return changed((yield _FINISH_KEY, (op.tenant, op.scope, op.owner, op.response(rows), *times)))


def _release_key(op: ReleaseKey, _: Rows) -> Steps[Row]:
    return changed((yield _RELEASE_KEY, (op.tenant, op.scope, op.owner)))


def _doubt_key(op: DoubtKey, _: Rows) -> Steps[Row]:
    return changed((yield _DOUBT_KEY, (op.tenant, op.scope, op.owner, micros(op.now))))


def _purge_keys(op: PurgeKeys, _: Rows) -> Steps[PurgedRow]:
    now, count = micros(op.now), 0
    expired = yield _EXPIRED, (now, op.limit)
    for _tenant, keys in groupby(sorted(expired), itemgetter(0)):
        count += sum((yield _FORGET, [(*key, now) for key in keys]))
    return PurgedRow(count=count)


HANDLERS: Final[Handlers] = {
    ClaimKey: _claim_key,
    AskKey: _ask_key,
    FinishKey: _finish_key,
    ReleaseKey: _release_key,
    DoubtKey: _doubt_key,
    PurgeKeys: _purge_keys,
}
