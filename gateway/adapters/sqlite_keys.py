"""Idempotency keys in SQL."""

from __future__ import annotations

from typing import Final

import apsw

from gateway.adapters.sqlite_tools import Handlers, changed, micros
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

SCHEMA: Final = """
CREATE TABLE keys (
    tenant TEXT NOT NULL, scope BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('in_flight', 'unknown', 'done')),
    fingerprint BLOB NOT NULL, owner TEXT NOT NULL, response BLOB,
    claimed_at INTEGER NOT NULL, settled_at INTEGER, expires_at INTEGER,
    PRIMARY KEY (tenant, scope)
) STRICT;
CREATE INDEX keys_by_state ON keys (state, expires_at);
"""
_CLAIM_KEY = """INSERT INTO keys (tenant, scope, state, fingerprint, owner, claimed_at)
    VALUES (?, ?, 'in_flight', ?, ?, ?)
    ON CONFLICT (tenant, scope) DO UPDATE SET state = excluded.state, fingerprint = excluded.fingerprint,
        owner = excluded.owner, claimed_at = excluded.claimed_at, response = NULL, settled_at = NULL, expires_at = NULL
    WHERE state = 'done' AND expires_at < excluded.claimed_at"""
_KEY = "SELECT state, fingerprint, response FROM keys WHERE tenant = ? AND scope = ?"
_KNOWN_KEY = f"{_KEY} AND NOT (state = 'done' AND expires_at < ?)"
_FINISH_KEY = """UPDATE keys SET state = 'done', response = ?, settled_at = ?, expires_at = ?
    WHERE tenant = ? AND scope = ? AND owner = ? AND state <> 'done'"""
_RELEASE_KEY = "DELETE FROM keys WHERE tenant = ? AND scope = ? AND owner = ? AND state <> 'done'"
_DOUBT_KEY = """UPDATE keys SET state = 'unknown', settled_at = ?
    WHERE tenant = ? AND scope = ? AND owner = ? AND state = 'in_flight'"""
_PURGE_KEYS = """DELETE FROM keys WHERE rowid IN
    (SELECT rowid FROM keys WHERE state = 'done' AND expires_at < ? ORDER BY expires_at LIMIT ?)"""

ON_OPENING: Final = "UPDATE keys SET state = 'unknown', settled_at = :now WHERE state = 'in_flight'"
"""For a store that is opened: whoever held these claims is gone, and nobody guesses how far it came."""


def _claim_key(db: apsw.Connection, op: ClaimKey, _: Rows) -> KeyRow:
    db.execute(_CLAIM_KEY, (op.tenant, op.scope, op.fingerprint, op.owner, micros(op.now)))
    if db.changes():
        return KeyRow(state=KeyState.NEW)
    state, fingerprint, response = db.execute(_KEY, (op.tenant, op.scope)).get
    return KeyRow(refused=True, state=KeyState(state), fingerprint=fingerprint, response=response or b"")


def _ask_key(db: apsw.Connection, op: AskKey, _: Rows) -> KeyRow:
    found = db.execute(_KNOWN_KEY, (op.tenant, op.scope, micros(op.now))).get
    if found is None:
        return KeyRow(state=KeyState.NEW)
    state, fingerprint, response = found
    return KeyRow(state=KeyState(state), fingerprint=fingerprint, response=response or b"")


def _finish_key(db: apsw.Connection, op: FinishKey, rows: Rows) -> Row:
    times = micros(op.now), micros(op.expires_at)
    db.execute(_FINISH_KEY, (op.response(rows), *times, op.tenant, op.scope, op.owner))
    return changed(db)


def _release_key(db: apsw.Connection, op: ReleaseKey, _: Rows) -> Row:
    db.execute(_RELEASE_KEY, (op.tenant, op.scope, op.owner))
    return changed(db)


def _doubt_key(db: apsw.Connection, op: DoubtKey, _: Rows) -> Row:
    db.execute(_DOUBT_KEY, (micros(op.now), op.tenant, op.scope, op.owner))
    return changed(db)


def _purge_keys(db: apsw.Connection, op: PurgeKeys, _: Rows) -> PurgedRow:
    db.execute(_PURGE_KEYS, (micros(op.now), op.limit))
    return PurgedRow(count=db.changes())


HANDLERS: Final[Handlers] = {
    ClaimKey: _claim_key,
    AskKey: _ask_key,
    FinishKey: _finish_key,
    ReleaseKey: _release_key,
    DoubtKey: _doubt_key,
    PurgeKeys: _purge_keys,
}
