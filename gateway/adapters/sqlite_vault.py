"""The vault in SQL: tokens, and the record of reveals. Values are sealed and fingerprints keyed by whoever asks."""

from __future__ import annotations

from typing import Final

import apsw

from gateway.adapters.sqlite_tools import DONE, REFUSED, Handlers, micros
from gateway.operations import (
    KnowTokens,
    PutToken,
    RevealRow,
    RevealTokens,
    Row,
    Rows,
    SealedToken,
    SettleReveal,
    TokenRow,
)

SCHEMA: Final = """
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
    return DONE if known else REFUSED


def _settle_reveal(db: apsw.Connection, op: SettleReveal, _: Rows) -> Row:
    db.execute(_SETTLE_REVEAL, (op.outcome, micros(op.now), op.tenant, op.exchange))
    return DONE


HANDLERS: Final[Handlers] = {
    PutToken: _put_token,
    KnowTokens: _know_tokens,
    RevealTokens: _reveal_tokens,
    SettleReveal: _settle_reveal,
}
