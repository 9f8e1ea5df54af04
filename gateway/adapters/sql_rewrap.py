"""Taking the vault's rows from old keys to new ones, in SQL: the rows themselves, and how far the work has come."""

from __future__ import annotations

from typing import Any, Final

from gateway.adapters.sql_statements import (
    DONE,
    Handlers,
    Steps,
    change,
    changed,
    micros,
    query,
    returning,
    seconds,
    seconds_if_any,
)
from gateway.operations import (
    AskRewrap,
    CountValues,
    DueRewraps,
    NoteRewrap,
    ReadRewrap,
    ReadValues,
    RenewedRow,
    RenewValues,
    Rewrap,
    RewrapRow,
    Row,
    Rows,
    TakeRewrap,
    TallyRow,
    TenantsRow,
    ValuesRow,
    VaultTenants,
    VaultValue,
)
from gateway.pure.key_hierarchy import DERIVED, Fields, Tally, header, version_of

_VALUES = query(
    "tenant text, after text, limit bigint",
    """SELECT token, class, merchant, sealed, fingerprint, fingerprint_odd FROM tokens
    WHERE tenant = :tenant AND token > :after ORDER BY token LIMIT :limit""",
)
_RENEW = change(
    """tenant text, token text, before bytea, sealed bytea, even bytea, odd bytea""",
    """UPDATE tokens SET sealed = :sealed, fingerprint = :even, fingerprint_odd = :odd
    WHERE tenant = :tenant AND token = :token AND sealed = :before""",
)
_COUNT = query(
    "tenant text, after text, limit bigint, first bytea, derived bytea, nothing bytea",
    """SELECT head, even, odd, count(*), max(token) FROM (
        SELECT token, CASE WHEN sealed = :nothing THEN :nothing
        WHEN sealed < :first THEN :derived ELSE substr(sealed, 1, 5) END AS head,
        fingerprint IS NOT NULL AS even, fingerprint_odd IS NOT NULL AS odd
        FROM tokens WHERE tenant = :tenant AND token > :after ORDER BY token LIMIT :limit
    ) AS page GROUP BY head, even, odd""",
)
_TENANTS = query(
    "",
    """WITH RECURSIVE having_rows (tenant) AS (
        SELECT min(tenant) FROM tokens
        UNION ALL SELECT (SELECT min(tenant) FROM tokens WHERE tenant > having_rows.tenant) FROM having_rows
        WHERE having_rows.tenant IS NOT NULL
    ) SELECT tenant FROM having_rows WHERE tenant IS NOT NULL
    UNION SELECT tenant FROM vault_keys ORDER BY tenant""",
)
_WORK = "rate, requested_at, began_at, after, seen, total, changed, renewed, finished_at"
_ASK = change(
    "tenant text, rate bigint, now bigint",
    f"""INSERT INTO vault_rewraps (tenant, {_WORK}, taken_until)
    VALUES (:tenant, :rate, :now, 0, '', 0, 0, 0, 0, NULL, 0)
    ON CONFLICT (tenant) DO UPDATE SET rate = excluded.rate, requested_at = excluded.requested_at, began_at = 0,
    after = '', seen = 0, total = 0, changed = 0, renewed = 0, finished_at = NULL
    WHERE vault_rewraps.finished_at IS NOT NULL""",
    key="tenant",
)
_REWRAP = query("tenant text", f"SELECT {_WORK} FROM vault_rewraps WHERE tenant = :tenant")
_DUE = query(
    "now bigint, limit bigint",
    """SELECT tenant FROM vault_rewraps WHERE finished_at IS NULL AND taken_until < :now
    ORDER BY taken_until, tenant LIMIT :limit""",
)
_TAKE = returning(
    "tenant text, now bigint, until bigint",
    """UPDATE vault_rewraps SET taken_until = :until
    WHERE tenant = :tenant AND finished_at IS NULL AND taken_until < :now""",
    _WORK,
)
_NOTE = change(
    """tenant text, began bigint, after text, seen bigint, total bigint, changed bigint, renewed bigint,
    finished bigint, until bigint""",
    """UPDATE vault_rewraps SET began_at = :began, after = :after, seen = :seen, total = :total, changed = :changed,
    renewed = :renewed, finished_at = :finished, taken_until = :until WHERE tenant = :tenant""",
)


def _read_values(op: ReadValues, _: Rows) -> Steps[ValuesRow]:
    rows = yield _VALUES, (op.tenant, op.after, op.limit)
    return ValuesRow(
        values=tuple(VaultValue(token, kind, merchant, Fields(*fields)) for token, kind, merchant, *fields in rows)
    )


def _renew_values(op: RenewValues, _: Rows) -> Steps[RenewedRow]:
    written = yield (
        _RENEW,
        [
            (op.tenant, value.token, value.fields.sealed, fields.sealed, fields.even, fields.odd)
            for value, fields in op.renewed
        ],
    )
    return RenewedRow(count=sum(written))


def _count_values(op: CountValues, _: Rows) -> Steps[TallyRow]:
    rows = yield _COUNT, (op.tenant, op.after, op.limit, header(1)[:1], DERIVED, b"")
    sealed: dict[int, int] = {}
    prints = [0, 0]
    for head, even, odd, count, _last in rows:
        if not head:
            continue  # deleted
        version = version_of(head)
        sealed[version] = sealed.get(version, 0) + count
        prints[0] += count * bool(even)
        prints[1] += count * bool(odd)
    return TallyRow(tally=Tally(sealed, (prints[0], prints[1])), last=max((row[4] for row in rows), default=None))


def _vault_tenants(_op: VaultTenants, _: Rows) -> Steps[TenantsRow]:
    return TenantsRow(tenants=tuple(tenant for (tenant,) in (yield _TENANTS, ())))


def _ask_rewrap(op: AskRewrap, _: Rows) -> Steps[Row]:
    return changed((yield _ASK, (op.tenant, op.rate, micros(op.now))))


def _read_rewrap(op: ReadRewrap, _: Rows) -> Steps[RewrapRow]:
    return _work(op.tenant, (yield _REWRAP, (op.tenant,)))


def _work(tenant: str, rows: list[Any]) -> RewrapRow:
    if not rows:
        return RewrapRow(refused=True, rewrap=None)
    rate, requested, began, after, seen, total, changed, renewed, finished = rows[0]
    times = (seconds(requested), seconds(began))
    return RewrapRow(
        rewrap=Rewrap(tenant, rate, *times, after, seen, total, changed, renewed, seconds_if_any(finished))
    )


def _due_rewraps(op: DueRewraps, _: Rows) -> Steps[TenantsRow]:
    return TenantsRow(tenants=tuple(tenant for (tenant,) in (yield _DUE, (micros(op.now), op.limit))))


def _take_rewrap(op: TakeRewrap, _: Rows) -> Steps[RewrapRow]:
    return _work(op.tenant, (yield _TAKE, (op.tenant, micros(op.now), micros(op.until))))


def _note_rewrap(op: NoteRewrap, _: Rows) -> Steps[Row]:
    work = op.rewrap
    finished = None if work.finished_at is None else micros(work.finished_at)
    counts = (work.after, work.seen, work.total, work.changed, work.renewed)
    yield _NOTE, (op.tenant, micros(work.began_at), *counts, finished, micros(op.until))
    return DONE


HANDLERS: Final[Handlers] = {
    ReadValues: _read_values,
    RenewValues: _renew_values,
    CountValues: _count_values,
    VaultTenants: _vault_tenants,
    AskRewrap: _ask_rewrap,
    ReadRewrap: _read_rewrap,
    DueRewraps: _due_rewraps,
    TakeRewrap: _take_rewrap,
    NoteRewrap: _note_rewrap,
}
