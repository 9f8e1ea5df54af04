"""The vault in SQL: tokens. Values are sealed and fingerprints keyed by whoever asks."""

from __future__ import annotations

from typing import Final

from gateway.adapters.sql_statements import (
    DONE,
    REFUSED,
    Handlers,
    Steps,
    change,
    micros,
    query,
    seconds,
    seconds_if_any,
)
from gateway.operations import (
    DeletedRow,
    DeleteToken,
    FindByValue,
    FoundToken,
    FoundTokensRow,
    KnowTokens,
    LookUpToken,
    PutToken,
    RevealRow,
    RevealTokens,
    Row,
    Rows,
    SealedToken,
    TokenRow,
)

_BY_EVEN, _BY_ODD = (
    query(
        "tenant text, fingerprint bytea, class text, format text",
        f"""SELECT token, expiry FROM tokens
        WHERE tenant = :tenant AND {column} = :fingerprint AND class = :class AND format = :format""",
    )
    for column in ("fingerprint", "fingerprint_odd")
)
_ADD_TOKEN = change(
    """tenant text, fingerprint bytea, class text, format text, token text, sealed bytea, now bigint, odd bytea,
    merchant text, expiry text""",
    """INSERT INTO tokens (tenant, token, class, format, fingerprint, sealed, created_at, fingerprint_odd, merchant,
    expiry)
    VALUES (:tenant, :token, :class, :format, :fingerprint, :sealed, :now, :odd, :merchant, :expiry)
    ON CONFLICT DO NOTHING""",
    key="tenant token",
)
_SET_EXPIRY = change(
    "tenant text, token text, expiry text",
    "UPDATE tokens SET expiry = :expiry WHERE tenant = :tenant AND token = :token",
)
_TOKEN = query(
    "tenant text, token text",
    "SELECT class, format, sealed, deleted_at IS NOT NULL FROM tokens WHERE tenant = :tenant AND token = :token",
)
_KNOWN = query(
    "tenant text, token text, class text",
    "SELECT 1 FROM tokens WHERE tenant = :tenant AND token = :token AND class = :class",
)
_FOUND = "token, class, format, created_at, deleted_at, sealed, expiry, merchant"
_LOOK_UP = query("tenant text, token text", f"SELECT {_FOUND} FROM tokens WHERE tenant = :tenant AND token = :token")
_BY_VALUE = query(
    "tenant text, even bytea, odd bytea",
    f"""SELECT {_FOUND} FROM tokens WHERE tenant = :tenant AND (fingerprint = :even OR fingerprint_odd = :odd)
    ORDER BY created_at, token""",
)
_MERCHANTS = query(
    "tenant text, limit bigint",
    """WITH RECURSIVE named (merchant) AS (
        SELECT min(merchant) FROM tokens WHERE tenant = :tenant AND merchant IS NOT NULL
        UNION ALL SELECT (SELECT min(merchant) FROM tokens WHERE tenant = :tenant AND merchant > named.merchant)
        FROM named WHERE named.merchant IS NOT NULL
    ) SELECT merchant FROM named WHERE merchant IS NOT NULL LIMIT :limit""",
)
"""One step of an index for each, however many tokens they have."""
_DELETE = change(
    "tenant text, token text, nothing bytea, now bigint",
    """UPDATE tokens
    SET sealed = :nothing, fingerprint = NULL, fingerprint_odd = NULL, merchant = NULL, expiry = NULL,
    deleted_at = :now
    WHERE tenant = :tenant AND token = :token AND deleted_at IS NULL""",
)


def _put_token(op: PutToken, _: Rows) -> Steps[TokenRow]:
    known = yield from _known(op)
    tries = iter(range(op.tries))
    while known is None:
        n = next(tries, None)
        if n is None:
            return TokenRow(refused=True, token="", new=False)
        candidate = op.mint(n)
        put = (candidate.token, candidate.sealed, micros(op.now), op.fingerprint_odd, op.merchant, op.expiry)
        if (yield _ADD_TOKEN, (op.tenant, op.fingerprint, op.token_class, op.token_format, *put)):
            return TokenRow(token=candidate.token, new=True, expiry=op.expiry)
        known = yield from _known(op)  # the token is taken, or somebody else has just put the value
    return known


def _known(op: PutToken) -> Steps[TokenRow | None]:
    """The token that the value has; with the expiry that is told now, if one is."""
    found: list[tuple[str, str | None]] = []
    if op.fingerprint is not None:
        found = yield _BY_EVEN, (op.tenant, op.fingerprint, op.token_class, op.token_format)
    if not found and op.fingerprint_odd is not None:
        found = yield _BY_ODD, (op.tenant, op.fingerprint_odd, op.token_class, op.token_format)
    if not found:
        return None
    token, expiry = found[0]
    if op.expiry is not None and op.expiry != expiry:
        yield _SET_EXPIRY, (op.tenant, token, op.expiry)
    return TokenRow(token=token, new=False, expiry=op.expiry or expiry)


def _reveal_tokens(op: RevealTokens, _: Rows) -> Steps[RevealRow]:
    rows = yield _TOKEN, [(op.tenant, token) for token in op.tokens]
    pairs = zip(op.tokens, rows, strict=True)
    found = tuple(_sealed(token, *known[0]) if known else None for token, known in pairs)
    return RevealRow(refused=any(row is None or row.deleted for row in found), found=found)


def _sealed(token: str, token_class: str, token_format: str, sealed: bytes, deleted: object) -> SealedToken:
    return SealedToken(token, token_class, token_format, sealed, bool(deleted))


def _know_tokens(op: KnowTokens, _: Rows) -> Steps[Row]:
    known = yield _KNOWN, [(op.tenant, token, op.token_class) for token in op.tokens]
    return DONE if all(known) else REFUSED


def _look_up(op: LookUpToken, _: Rows) -> Steps[FoundTokensRow]:
    rows = yield _LOOK_UP, (op.tenant, op.token)
    return FoundTokensRow(tokens=tuple(_found(*row) for row in rows))


def _find_by_value(op: FindByValue, _: Rows) -> Steps[FoundTokensRow]:
    merchants = [op.merchant]
    if op.merchant is None:
        named = yield _MERCHANTS, (op.tenant, op.merchants_max + 1)
        if len(named) > op.merchants_max:
            return FoundTokensRow(refused=True, tokens=())
        merchants += [merchant for (merchant,) in named]
    found = yield _BY_VALUE, [(op.tenant, *op.known_by(merchant)) for merchant in merchants]
    tokens = [_found(*row) for rows in found for row in rows]
    return FoundTokensRow(tokens=tuple(sorted(tokens, key=lambda each: (each.created_at, each.token))))


def _found(
    token: str,
    token_class: str,
    token_format: str,
    created: int,
    deleted: int | None,
    sealed: bytes,
    *told: str | None,
) -> FoundToken:
    gone = seconds_if_any(deleted)
    return FoundToken(token, token_class, token_format, seconds(created), gone, sealed, *told)


def _delete_token(op: DeleteToken, _: Rows) -> Steps[DeletedRow]:
    if (yield _DELETE, (op.tenant, op.token, b"", micros(op.now))):
        return DeletedRow(now=True)
    known = yield _LOOK_UP, (op.tenant, op.token)
    return DeletedRow(refused=not known, now=False)


HANDLERS: Final[Handlers] = {
    PutToken: _put_token,
    KnowTokens: _know_tokens,
    RevealTokens: _reveal_tokens,
    LookUpToken: _look_up,
    FindByValue: _find_by_value,
    DeleteToken: _delete_token,
}
