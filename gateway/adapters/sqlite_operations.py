"""What each operation of the store means in SQL: the schema, and one small function for every kind of operation.

A handler runs inside the unit on the store's thread. It answers a row; what a refused or raising unit wrote is undone
by the caller. Times are integers, microseconds of Unix time. No column holds card data in clear: values are
sealed and fingerprints are keyed by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import apsw

from gateway.operations import (
    ClaimKey,
    Delivery,
    DeliveryRow,
    DeliveryVerdict,
    DoubtKey,
    DueDeliveries,
    DueRow,
    FinishKey,
    ForwardedDelivery,
    KeyRow,
    KeyState,
    KnowTokens,
    Operation,
    PurgedRow,
    PurgeKeys,
    PutDelivery,
    PutToken,
    ReleaseKey,
    RetryDelivery,
    RevealRow,
    RevealTokens,
    Row,
    Rows,
    SealedToken,
    SettleReveal,
    TokenRow,
)

QUARANTINED_PER_KEY_MAX = 16
"""Bodies kept in quarantine for one key: a signature that covers only part of a body must not help to fill the disk."""

_DONE = Row()
_REFUSED = Row(refused=True)


def undoes_itself(unit: tuple[Operation[Row], ...]) -> bool:
    """Whether a unit that refuses or raises has written nothing even without a savepoint to return to."""
    return len(unit) == 1 and type(unit[0]) in WRITES_LAST


def run_unit(db: apsw.Connection, unit: tuple[Operation[Row], ...], rows: Rows) -> None:
    """Run the operations in order, up to the first that refuses."""
    for position, operation in enumerate(unit):
        row = HANDLERS[type(operation)](db, operation, rows)
        rows.answered.append(row)
        if row.refused:
            rows.refused = position
            return


def micros(seconds: float) -> int:
    """A time as it is stored."""
    return round(seconds * 1_000_000)


def _changed(db: apsw.Connection) -> Row:
    """Done if the last statement found its row, else refused."""
    return _DONE if db.changes() else _REFUSED


# --- Vault -----------------------------------------------------------------------------------------------------------

_VAULT = """
CREATE TABLE tokens (
    tenant TEXT NOT NULL, token TEXT NOT NULL, class TEXT NOT NULL, format TEXT NOT NULL,
    fingerprint BLOB, sealed BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, token)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX tokens_by_value ON tokens (tenant, fingerprint, class, format) WHERE fingerprint IS NOT NULL;
CREATE TABLE reveals (
    tenant TEXT NOT NULL, exchange TEXT NOT NULL, position INTEGER NOT NULL, token TEXT, codes INTEGER NOT NULL,
    principal TEXT NOT NULL, route TEXT NOT NULL, destination TEXT NOT NULL, intended_at INTEGER NOT NULL,
    outcome TEXT, settled_at INTEGER,
    PRIMARY KEY (tenant, exchange, position)
) STRICT, WITHOUT ROWID;
"""
_TOKEN_OF_VALUE = "SELECT token FROM tokens WHERE tenant = ? AND fingerprint = ? AND class = ? AND format = ?"
_ADD_TOKEN = """INSERT INTO tokens (tenant, token, class, format, fingerprint, sealed, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, token) DO NOTHING"""
_TOKEN = "SELECT class, format, sealed FROM tokens WHERE tenant = ? AND token = ?"
_KNOWN = "SELECT 1 FROM tokens WHERE tenant = ? AND token = ? AND class = ?"
_NEXT_REVEAL = "SELECT coalesce(max(position) + 1, 0) FROM reveals WHERE tenant = ? AND exchange = ?"
_ADD_REVEAL = """INSERT INTO reveals
    (tenant, exchange, position, token, codes, principal, route, destination, intended_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_SETTLE_REVEAL = """UPDATE reveals SET outcome = ?, settled_at = ?
    WHERE tenant = ? AND exchange = ? AND outcome IS NULL"""


def _put_token(db: apsw.Connection, op: PutToken, _: Rows) -> TokenRow:
    if op.fingerprint is not None:
        token = db.execute(_TOKEN_OF_VALUE, (op.tenant, op.fingerprint, op.token_class, op.token_format)).get
        if token is not None:
            return TokenRow(token=token, new=False)
    for n in range(op.tries):
        candidate = op.mint(n)
        value = (op.token_class, op.token_format, op.fingerprint, candidate.sealed, micros(op.now))
        db.execute(_ADD_TOKEN, (op.tenant, candidate.token, *value))
        if db.changes():
            return TokenRow(token=candidate.token, new=True)
    return TokenRow(refused=True, token="", new=False)


def _reveal_tokens(db: apsw.Connection, op: RevealTokens, _: Rows) -> RevealRow:
    found = tuple(_sealed_token(db, op.tenant, token) for token in op.tokens)
    if None in found:
        return RevealRow(refused=True, found=found)
    intents: list[tuple[str | None, int]] = [(token, 0) for token in dict.fromkeys(op.tokens)]
    if op.codes or not intents:
        intents.append((None, op.codes))
    # Numbered on, not keyed by token: an exchange that reveals one token twice leaves two records.
    first = db.execute(_NEXT_REVEAL, (op.tenant, op.exchange)).get
    meant = (op.principal, op.route, op.destination, micros(op.now))
    for position, intent in enumerate(intents, first):
        db.execute(_ADD_REVEAL, (op.tenant, op.exchange, position, *intent, *meant))
    return RevealRow(found=found)


def _sealed_token(db: apsw.Connection, tenant: str, token: str) -> SealedToken | None:
    row = db.execute(_TOKEN, (tenant, token)).get
    return None if row is None else SealedToken(token, *row)


def _know_tokens(db: apsw.Connection, op: KnowTokens, _: Rows) -> Row:
    known = all(db.execute(_KNOWN, (op.tenant, token, op.token_class)).get for token in op.tokens)
    return _DONE if known else _REFUSED


def _settle_reveal(db: apsw.Connection, op: SettleReveal, _: Rows) -> Row:
    db.execute(_SETTLE_REVEAL, (op.outcome, micros(op.now), op.tenant, op.exchange))
    return _DONE


# --- Idempotency keys ------------------------------------------------------------------------------------------------

_KEYS = """
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
_FINISH_KEY = """UPDATE keys SET state = 'done', response = ?, settled_at = ?, expires_at = ?
    WHERE tenant = ? AND scope = ? AND owner = ? AND state = 'in_flight'"""
_RELEASE_KEY = "DELETE FROM keys WHERE tenant = ? AND scope = ? AND owner = ? AND state = 'in_flight'"
_DOUBT_KEY = """UPDATE keys SET state = 'unknown', settled_at = ?
    WHERE tenant = ? AND scope = ? AND owner = ? AND state = 'in_flight'"""
_PURGE_KEYS = """DELETE FROM keys WHERE rowid IN
    (SELECT rowid FROM keys WHERE state = 'done' AND expires_at < ? ORDER BY expires_at LIMIT ?)"""

DOUBT_ALL_KEYS: Final = "UPDATE keys SET state = 'unknown', settled_at = ? WHERE state = 'in_flight'"
"""For a store that is opened: whoever held these claims is gone, and nobody guesses how far it came."""


def _claim_key(db: apsw.Connection, op: ClaimKey, _: Rows) -> KeyRow:
    db.execute(_CLAIM_KEY, (op.tenant, op.scope, op.fingerprint, op.owner, micros(op.now)))
    if db.changes():
        return KeyRow(state=KeyState.NEW)
    state, fingerprint, response = db.execute(_KEY, (op.tenant, op.scope)).get
    return KeyRow(refused=True, state=KeyState(state), fingerprint=fingerprint, response=response or b"")


def _finish_key(db: apsw.Connection, op: FinishKey, rows: Rows) -> Row:
    times = micros(op.now), micros(op.expires_at)
    db.execute(_FINISH_KEY, (op.response(rows), *times, op.tenant, op.scope, op.owner))
    return _changed(db)


def _release_key(db: apsw.Connection, op: ReleaseKey, _: Rows) -> Row:
    db.execute(_RELEASE_KEY, (op.tenant, op.scope, op.owner))
    return _changed(db)


def _doubt_key(db: apsw.Connection, op: DoubtKey, _: Rows) -> Row:
    db.execute(_DOUBT_KEY, (micros(op.now), op.tenant, op.scope, op.owner))
    return _changed(db)


def _purge_keys(db: apsw.Connection, op: PurgeKeys, _: Rows) -> PurgedRow:
    db.execute(_PURGE_KEYS, (micros(op.now), op.limit))
    return PurgedRow(count=db.changes())


# --- Inbox -----------------------------------------------------------------------------------------------------------

_INBOX = """
CREATE TABLE deliveries (
    tenant TEXT NOT NULL, id TEXT NOT NULL, route TEXT NOT NULL, provider TEXT NOT NULL, key TEXT NOT NULL,
    digest BLOB NOT NULL, sealed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'forwarded', 'parked', 'quarantined')),
    received_at INTEGER NOT NULL, next_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    forwarded_at INTEGER, note TEXT,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE UNIQUE INDEX deliveries_by_key ON deliveries (tenant, key, route, provider, digest);
CREATE INDEX deliveries_pending ON deliveries (received_at, next_at) WHERE state = 'pending';
"""
_DELIVERIES_OF_KEY = """SELECT digest, state FROM deliveries
    WHERE tenant = ? AND key = ? AND route = ? AND provider = ?"""
_ADD_DELIVERY = """INSERT INTO deliveries
    (tenant, id, route, provider, key, digest, sealed, state, received_at, next_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_DUE = """SELECT tenant, id, route, provider, key, sealed, received_at / 1e6, attempts FROM deliveries
    WHERE state = 'pending' AND next_at <= ? ORDER BY received_at, rowid LIMIT ?"""
_PENDING = "SELECT count(*), coalesce(min(received_at), 0) / 1e6 FROM deliveries WHERE state = 'pending'"
_FORWARDED = """UPDATE deliveries SET state = 'forwarded', forwarded_at = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ?"""
_RETRY = """UPDATE deliveries SET next_at = ?, note = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ? AND state = 'pending'"""
_PARK = """UPDATE deliveries SET state = 'parked', note = ?, attempts = attempts + 1
    WHERE tenant = ? AND id = ? AND state = 'pending'"""


def _put_delivery(db: apsw.Connection, op: PutDelivery, _: Rows) -> DeliveryRow:
    rows: list[Any] = db.execute(_DELIVERIES_OF_KEY, (op.tenant, op.key, op.route, op.provider)).fetchall()
    seen: dict[bytes, str] = dict(rows)
    if not seen:
        _add_delivery(db, op, "pending")
        return DeliveryRow(verdict=DeliveryVerdict.ACCEPTED)
    if seen.get(op.digest, "quarantined") != "quarantined":
        return DeliveryRow(verdict=DeliveryVerdict.DUPLICATE)
    if op.digest not in seen and len(seen) <= QUARANTINED_PER_KEY_MAX:
        _add_delivery(db, op, "quarantined")
    return DeliveryRow(verdict=DeliveryVerdict.CONFLICT)


def _add_delivery(db: apsw.Connection, op: PutDelivery, state: str) -> None:
    now = micros(op.now)
    db.execute(_ADD_DELIVERY, (op.tenant, op.id, op.route, op.provider, op.key, op.digest, op.sealed, state, now, now))


def _due_deliveries(db: apsw.Connection, op: DueDeliveries, _: Rows) -> DueRow:
    due: list[Any] = db.execute(_DUE, (micros(op.now), op.limit)).fetchall()
    pending, oldest = db.execute(_PENDING).get
    return DueRow(due=tuple(Delivery(*columns) for columns in due), pending=pending, oldest=oldest)


def _forwarded_delivery(db: apsw.Connection, op: ForwardedDelivery, _: Rows) -> Row:
    db.execute(_FORWARDED, (micros(op.now), op.tenant, op.id))
    return _DONE


def _retry_delivery(db: apsw.Connection, op: RetryDelivery, _: Rows) -> Row:
    if op.next_at is None:
        db.execute(_PARK, (op.note, op.tenant, op.id))
    else:
        db.execute(_RETRY, (micros(op.next_at), op.note, op.tenant, op.id))
    return _DONE


MIGRATIONS: Final = (_VAULT + _KEYS + _INBOX,)
"""Scripts in the order in which they are applied; the schema's version is how many have been."""

HANDLERS: Final[Mapping[type[Operation[Any]], Callable[[apsw.Connection, Any, Rows], Row]]] = {
    PutToken: _put_token,
    KnowTokens: _know_tokens,
    RevealTokens: _reveal_tokens,
    SettleReveal: _settle_reveal,
    ClaimKey: _claim_key,
    FinishKey: _finish_key,
    ReleaseKey: _release_key,
    DoubtKey: _doubt_key,
    PurgeKeys: _purge_keys,
    PutDelivery: _put_delivery,
    DueDeliveries: _due_deliveries,
    ForwardedDelivery: _forwarded_delivery,
    RetryDelivery: _retry_delivery,
}

WRITES_LAST: Final[frozenset[type[Operation[Any]]]] = frozenset(
    {PutToken, KnowTokens, SettleReveal, ClaimKey, FinishKey, ReleaseKey, DoubtKey}
)
"""The kinds of a request's operations whose handlers change rows with one statement at most, and then neither refuse
nor raise. A statement of SQLite is atomic."""
