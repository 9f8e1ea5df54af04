"""The vault in SQL: tokens, and the record of reveals. Values are sealed and fingerprints keyed by whoever asks."""

from __future__ import annotations

from typing import Final

from gateway.adapters.sql_statements import DONE, REFUSED, Handlers, Steps, change, micros, query
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

_TOKEN_OF_VALUE = query(
    "tenant text, fingerprint bytea, class text, format text",
    """SELECT token FROM tokens
    WHERE tenant = :tenant AND fingerprint = :fingerprint AND class = :class AND format = :format""",
)
_ADD_TOKEN = change(
    "tenant text, fingerprint bytea, class text, format text, token text, sealed bytea, now bigint",
    """INSERT INTO tokens (tenant, token, class, format, fingerprint, sealed, created_at)
    VALUES (:tenant, :token, :class, :format, :fingerprint, :sealed, :now) ON CONFLICT DO NOTHING""",
    key="tenant token",
)
_TOKEN = query(
    "tenant text, token text", "SELECT class, format, sealed FROM tokens WHERE tenant = :tenant AND token = :token"
)
_KNOWN = query(
    "tenant text, token text, class text",
    "SELECT 1 FROM tokens WHERE tenant = :tenant AND token = :token AND class = :class",
)
_NEXT_REVEAL = query(
    "tenant text, exchange text",
    "SELECT coalesce(max(position) + 1, 0) FROM reveals WHERE tenant = :tenant AND exchange = :exchange",
)
_ADD_REVEAL = change(
    """tenant text, exchange text, position bigint, token text, codes bigint, principal text, route text,
    destination text, now bigint""",
    """INSERT INTO reveals (tenant, exchange, position, token, codes, principal, route, destination, intended_at)
    VALUES (:tenant, :exchange, :position, :token, :codes, :principal, :route, :destination, :now)""",
)
_SETTLE_REVEAL = change(
    "tenant text, exchange text, outcome text, now bigint",
    """UPDATE reveals SET outcome = :outcome, settled_at = :now
    WHERE tenant = :tenant AND exchange = :exchange AND outcome IS NULL""",
)


def _put_token(op: PutToken, _: Rows) -> Steps[TokenRow]:
    known = yield from _token_of_value(op)
    tries = iter(range(op.tries))
    while known is None:
        n = next(tries, None)
        if n is None:
            return TokenRow(refused=True, token="", new=False)
        candidate = op.mint(n)
        put = (candidate.token, candidate.sealed, micros(op.now))
        if (yield _ADD_TOKEN, (op.tenant, op.fingerprint, op.token_class, op.token_format, *put)):
            return TokenRow(token=candidate.token, new=True)
        known = yield from _token_of_value(op)  # the token is taken, or somebody else has just put the value
    return TokenRow(token=known, new=False)


def _token_of_value(op: PutToken) -> Steps[str | None]:
    if op.fingerprint is None:
        return None
    found = yield _TOKEN_OF_VALUE, (op.tenant, op.fingerprint, op.token_class, op.token_format)
    return found[0][0] if found else None


def _reveal_tokens(op: RevealTokens, _: Rows) -> Steps[RevealRow]:
    rows = yield _TOKEN, [(op.tenant, token) for token in op.tokens]
    pairs = zip(op.tokens, rows, strict=True)
    found = tuple(SealedToken(token, *known[0]) if known else None for token, known in pairs)
    if None in found:
        return RevealRow(refused=True, found=found)
    intents: list[tuple[str | None, int]] = [(token, 0) for token in dict.fromkeys(op.tokens)]
    if op.codes or not intents:
        intents.append((None, op.codes))
    # Numbered on, not keyed by token: an exchange that reveals one token twice leaves two records.
    ((first,),) = yield _NEXT_REVEAL, (op.tenant, op.exchange)
    meant = (op.principal, op.route, op.destination, micros(op.now))
    numbered = enumerate(intents, first)
    yield _ADD_REVEAL, [(op.tenant, op.exchange, position, *intent, *meant) for position, intent in numbered]
    return RevealRow(found=found)


def _know_tokens(op: KnowTokens, _: Rows) -> Steps[Row]:
    known = yield _KNOWN, [(op.tenant, token, op.token_class) for token in op.tokens]
    return DONE if all(known) else REFUSED


def _settle_reveal(op: SettleReveal, _: Rows) -> Steps[Row]:
    yield _SETTLE_REVEAL, (op.tenant, op.exchange, op.outcome, micros(op.now))
    return DONE


HANDLERS: Final[Handlers] = {
    PutToken: _put_token,
    KnowTokens: _know_tokens,
    RevealTokens: _reveal_tokens,
    SettleReveal: _settle_reveal,
}
