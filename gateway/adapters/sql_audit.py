"""The audit chain in SQL. Entries gather while the units of a commit run, and are linked together at its end: so the
chain of a tenant has one order, whatever ran side by side, and costs one statement however many were revealed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.adapters.sql_statements import DONE, Handlers, Steps, change, micros, query, seconds, seconds_if_any
from gateway.operations import (
    ChainRow,
    ChainsRow,
    FindReveals,
    ListChains,
    PurgeAudit,
    PurgedRow,
    ReadChain,
    RecordAudit,
    RevealsRow,
    Row,
    Rows,
)
from gateway.pure.audit import End, Ends, Entry, Linked, Mark, Place, cleaned, linked, sealed_end

_CHAIN = "tenant text, chain text"
_COLUMNS = "sequence, at, skew, token, mac, event, exchange, principal, origin, route, destination, purpose, outcome"
_HEAD = query(
    _CHAIN,
    "SELECT sequence, mac, at FROM audit_ends WHERE tenant = :tenant AND chain = :chain AND mark = 'head'",
    lock=True,
)
_ADD = change(
    f"""{_CHAIN}, sequence bigint, at bigint, skew bigint, token bytea, mac bytea, event text, exchange text,
    principal text, origin text, route text, destination text, purpose text, outcome text""",
    f"""INSERT INTO audit (tenant, chain, {_COLUMNS})
    VALUES (:tenant, :chain, :sequence, :at, :skew, :token, :mac, :event, :exchange, :principal, :origin, :route,
    :destination, :purpose, :outcome)""",
)
_MARK = change(
    f"{_CHAIN}, mark text, sequence bigint, mac bytea, at bigint, seal bytea",
    """INSERT INTO audit_ends (tenant, chain, mark, sequence, mac, at, seal)
    VALUES (:tenant, :chain, :mark, :sequence, :mac, :at, :seal)
    ON CONFLICT (tenant, chain, mark) DO UPDATE
    SET sequence = excluded.sequence, mac = excluded.mac, at = excluded.at, seal = excluded.seal""",
    key="tenant chain mark",
)
_ENDS = query("", "SELECT tenant, chain, mark, sequence, mac, at, seal FROM audit_ends")
_PLACES = query("", "SELECT DISTINCT tenant, chain FROM audit")
_READ = query(
    f"{_CHAIN}, after bigint, limit bigint",
    f"""SELECT {_COLUMNS} FROM audit WHERE tenant = :tenant AND chain = :chain AND sequence > :after
    ORDER BY sequence LIMIT :limit""",
)
_CUT = change(
    f"{_CHAIN}, sequence bigint",
    "DELETE FROM audit WHERE tenant = :tenant AND chain = :chain AND sequence <= :sequence",
)
_OF_TOKEN = query(
    "tenant text, token bytea",
    f"""SELECT {_COLUMNS} FROM audit WHERE tenant = :tenant AND event IN ('reveal', 'refused') AND token = :token""",
)
_SETTLED = query(
    "tenant text, exchange text",
    f"""SELECT {_COLUMNS} FROM audit WHERE tenant = :tenant AND event = 'settled' AND exchange = :exchange""",
)
_BEFORE_THE_CHAIN = query(
    "tenant text, token text",
    """SELECT intended_at, exchange, principal, route, destination, outcome, settled_at FROM reveals
    WHERE tenant = :tenant AND token = :token""",
)
_KNOWN = query(
    "tenant text, token text",
    "SELECT class, format, created_at, deleted_at FROM tokens WHERE tenant = :tenant AND token = :token",
)


def write(chain: str, recorded: Iterable[RecordAudit]) -> Steps[None]:
    """Link what the units of a commit recorded, tenant by tenant, as the last thing before it."""
    by_tenant: dict[str, list[RecordAudit]] = {}
    for record in recorded:
        by_tenant.setdefault(record.tenant, []).append(record)
    for tenant, records in by_tenant.items():
        place, key = Place(tenant, chain), records[-1].key
        found = yield _HEAD, place
        end, rows = End(*found[0]) if found else End(), []
        for record in records:
            for entry in record.entries:
                link = linked(entry, place, end, record.key)
                end = link.end
                rows.append((*place, link.sequence, entry.at, link.skew, entry.token, link.mac, *entry.texts))
        yield _ADD, rows
        yield _MARK, _marked("head", place, end, sealed_end("head", place, end, key))


def _marked(mark: Mark, place: Place, end: End, seal: bytes) -> tuple[Any, ...]:
    return (*place, mark, end.sequence, end.mac, end.at, seal)


def _record(op: RecordAudit, rows: Rows) -> Steps[Row]:
    """Linked once here already, so that what cannot be linked fails its own unit and no other."""
    entries = tuple(map(cleaned, op.entries))
    for entry in entries:
        linked(entry, Place(op.tenant, ""), End(), op.key)
    rows.recorded += (RecordAudit(op.tenant, op.key, entries),)
    yield from ()
    return DONE


def _list_chains(op: ListChains, _: Rows) -> Steps[ChainsRow]:
    chains = yield from _chains()
    listed = list(chains)
    if op.unmarked:
        unmarked = {Place(*row) for row in (yield _PLACES, ())} - {chain.place for chain in chains}
        listed += map(Ends, unmarked)
    asked = (chain for chain in listed if op.tenant in (None, chain.place.tenant))
    return ChainsRow(chains=tuple(sorted(asked, key=lambda chain: chain.place)))


def _chains() -> Steps[list[Ends]]:
    """By the ends that are marked."""
    found: dict[Place, dict[str, tuple[End, bytes]]] = {}
    for tenant, chain, mark, sequence, mac, at, seal in (yield _ENDS, ()):
        found.setdefault(Place(tenant, chain), {})[mark] = End(sequence, mac, at), seal
    none = End(), b""
    return [Ends(place, *marks.get("base", none), *marks.get("head", none)) for place, marks in found.items()]


def _entry(row: tuple[Any, ...]) -> Linked:
    sequence, at, skew, token, mac, event, *texts = row
    exchange, principal, origin, route, destination, purpose, outcome = texts
    entry = Entry(event, at, exchange, principal, origin, route, destination, purpose, token, outcome)
    return Linked(entry, sequence, skew, mac)


def _read_chain(op: ReadChain, _: Rows) -> Steps[ChainRow]:
    rows = yield _READ, (op.tenant, op.chain, op.after, op.limit)
    return ChainRow(entries=tuple(map(_entry, rows)))


def _find_reveals(op: FindReveals, _: Rows) -> Steps[RevealsRow]:
    asked = [_entry(row).entry for row in (yield _OF_TOKEN, (op.tenant, op.digest))]
    exchanges = list(dict.fromkeys(entry.exchange for entry in asked if entry.event == "reveal"))
    settled = yield _SETTLED, [(op.tenant, exchange) for exchange in exchanges]
    outcomes = [_entry(row).entry for rows in settled for row in rows]
    older = yield _BEFORE_THE_CHAIN, (op.tenant, op.token)
    known = yield _KNOWN, (op.tenant, op.token)
    found = None
    if known:
        token_class, token_format, created, deleted = known[0]
        found = token_class, token_format, seconds(created), seconds_if_any(deleted)
    return RevealsRow(entries=(*asked, *outcomes, *_older(older)), found=found)


def _older(rows: Iterable[tuple[Any, ...]]) -> Iterable[Entry]:
    """Reveals from before there was a chain."""
    for at, exchange, principal, route, destination, outcome, settled_at in rows:
        yield Entry("reveal", at, exchange, principal, route=route, destination=destination)
        if outcome is not None:
            yield Entry("settled", settled_at, exchange, outcome=outcome)


def _purge(op: PurgeAudit, _: Rows) -> Steps[PurgedRow]:
    most, before = 0, micros(op.before)
    for ends in (yield from _chains()):
        oldest = yield _READ, (*ends.place, ends.base.sequence, op.limit)
        end, count = ends.base, 0
        for link in map(_entry, oldest):
            if link.entry.at >= before:
                break
            end, count = link.end, count + 1
        if count:
            yield _CUT, (*ends.place, end.sequence)
            yield _MARK, _marked("base", ends.place, end, op.seal(ends.place, end))
        most = max(most, count)
    return PurgedRow(count=most)


HANDLERS: Final[Handlers] = {
    RecordAudit: _record,
    ListChains: _list_chains,
    ReadChain: _read_chain,
    FindReveals: _find_reveals,
    PurgeAudit: _purge,
}
