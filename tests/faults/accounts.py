"""The accounts of a payment as the oracle compares them: the ledger's entry, the client's answer, the store's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import apsw

from gateway.ports import Keys
from gateway.pure.replay import decode, scope
from tests.faults.bank import Entry
from tests.faults.oracle import Book, Movement


def told(content: Any) -> Movement:
    """What a client reads in an answer."""
    return Movement(content["id"], "charge", content["amount"], content["currency"])


def moved(entry: Entry) -> tuple[str, Movement]:
    """What an entry of the provider's ledger counts, and for which reference."""
    effect = entry.effect
    return effect.reference, Movement(effect.payment, effect.kind, effect.amount, effect.currency)


def held(
    db: apsw.Connection, keys: Keys, tenant: str, principal: str, route: str, references: Iterable[str]
) -> dict[str, Movement | None]:
    """What a store says of each idempotency key that it knows. None: in flight, or nobody knows."""
    secret = keys.mac(tenant, "replay")
    by_scope = {scope(secret, principal, route, reference): reference for reference in references}
    found: dict[str, Movement | None] = {}
    for each, state, sealed in db.execute("SELECT scope, state, response FROM keys"):
        movement = None
        if state == "done":
            kept = decode(keys.open(tenant, "replay", sealed, each))
            content = json.loads(kept.body or b"{}")
            movement = told(content) if kept.status == 201 else Movement("", f"{kept.status}", 0, "")
        found[by_scope[each]] = movement
    return found


def books(db: apsw.Connection) -> list[Book]:
    """What a store says of each payment's life, and what its events told."""
    kept = []
    query = "SELECT id, coalesce(alias, ''), captured, pending <> '{}', events, violation FROM payments"
    rows: list[Any] = db.execute(query).fetchall()
    for payment, alias, captured, pending, events, violation in rows:
        told = db.execute("SELECT sequence, payload FROM outbox WHERE aggregateid = ? ORDER BY sequence", (payment,))
        listed = [(sequence, json.loads(payload)["data"]) for sequence, payload in told]
        whole = [sequence for sequence, _ in listed] == list(range(1, events + 1))
        last = listed[-1][1]["captured"] if listed else 0
        kept.append(Book(alias, captured, bool(pending), last if whole else None, violation))
    return kept


def written(db: apsw.Connection) -> dict[str, int]:
    """How many events a store has written of each payment."""
    return dict(db.execute("SELECT id, events FROM payments"))
