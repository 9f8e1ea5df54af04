"""What an auditor asks over the admin listener: who had a token revealed, and is the chain that says so whole?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.operations import FindReveals, ListChains, ReadChain
from gateway.ports import Keys, Store
from gateway.pure.audit import End, Ends, Entry, Linked, Place, Reveal, first_wrong, paired, token_digest, wrong_ends
from gateway.pure.token_formats import canonical
from gateway.pure.tokens import opaque_class
from gateway.server.actions import Action, Reply

_PAGE_MAX = 1000


def audit_actions(store: Store, keys: Keys, only_tenant: Callable[[], str | None]) -> list[Action]:
    """`POST /vault/who` with `{"token", "tenant"}`; `GET /audit/chains?tenant=NAME`;
    `GET /audit/page?tenant=&chain=&after=&mac=&limit=`, which verifies so many entries behind one of this MAC, and
    `GET /audit/entries?tenant=&chain=&after=&limit=`, which tells them.

    `only_tenant` is meant where none is named; None: it has to be. 400 for what is not understood; 503 while the store
    or the keys are away.
    """

    async def who(_: Mapping[str, str], body: bytes) -> Reply:
        asked, token = _named(body, only_tenant())
        digest = token_digest(canonical(token), keys.mac(asked, "audit"))
        finding = FindReveals(asked, canonical(token), digest)
        row = (await store.commit([finding]))[finding]
        own = opaque_class(token, keys.keyed(asked, "token"))
        token_class, token_format, created, deleted = row.found or (own, None, None, None)
        reveals = paired(row.entries)
        refusals = sorted((e for e in row.entries if e.event == "refused"), key=lambda entry: entry.at)
        return 200, {
            "tenant": asked,
            "known": bool(row.found or own or reveals or refusals),
            "class": token_class,
            "format": token_format,
            "created_at": created,
            "deleted_at": deleted,
            "reveals": [_shown(reveal) for reveal in reveals],
            "refusals": [_entry(refusal) | {"reason": refusal.outcome} for refusal in refusals],
        }

    async def chains(query: Mapping[str, str], _: bytes) -> Reply:
        listing = ListChains(query.get("tenant"), unmarked=True)
        listed = (await store.commit([listing]))[listing].chains
        return 200, {"chains": [_chain(ends, keys.mac(ends.place.tenant, "audit")) for ends in listed]}

    async def page(query: Mapping[str, str], _: bytes) -> Reply:
        place, before, limit = _asked_page(query)
        reading = ReadChain(*place, before.sequence, limit)
        entries = (await store.commit([reading]))[reading].entries
        complaint = first_wrong(place, before, entries, keys.mac(place.tenant, "audit"))
        if not complaint and len(entries) < limit:
            complaint = f"entry {before.sequence + len(entries) + 1} is missing"
        return 200, _page(complaint, entries)

    async def told(query: Mapping[str, str], _: bytes) -> Reply:
        place, before, limit = _asked_page({"mac": "", **query})
        reading = ReadChain(*place, before.sequence, limit)
        return 200, {"entries": [_linked(link) for link in (await store.commit([reading]))[reading].entries]}

    return [
        Action("POST", "/vault/who", who),
        Action("GET", "/audit/entries", told),
        Action("GET", "/audit/chains", chains),
        Action("GET", "/audit/page", page),
    ]


def _named(body: bytes, tenant: str | None) -> tuple[str, str]:
    document: Any = orjson.loads(body)
    match document:
        case {"token": str(token), "tenant": str(named)}:
            return named, token
        case {"token": str(token)} if tenant is not None:
            return tenant, token
        case {"token": str()}:
            raise ValueError("there are several tenants: say whose token it is (--tenant)")
    raise ValueError('send {"token": ..., "tenant": ...}, each a text')


def _asked_page(query: Mapping[str, str]) -> tuple[Place, End, int]:
    try:
        after, limit, mac = int(query["after"]), int(query["limit"]), bytes.fromhex(query["mac"])
        place = Place(query["tenant"], query["chain"])
    except (KeyError, ValueError):
        raise ValueError("ask with tenant, chain, after, mac (in hex) and limit") from None
    return place, End(after, mac), max(1, min(limit, _PAGE_MAX))


def _chain(ends: Ends, key: bytes) -> dict[str, object]:
    return {
        "tenant": ends.place.tenant,
        "chain": ends.place.chain,
        "base": {"sequence": ends.base.sequence, "mac": ends.base.mac.hex()},
        "head": {"sequence": ends.head.sequence, "mac": ends.head.mac.hex()},
        "complaints": list(wrong_ends(ends, key)),
    }


def _page(complaint: str, entries: tuple[Linked, ...]) -> dict[str, object]:
    last = entries[-1].end if entries else End()
    skews = [{"sequence": link.sequence, "seconds": link.skew / 1e6} for link in entries if link.skew]
    return {"complaint": complaint, "sequence": last.sequence, "mac": last.mac.hex(), "skews": skews}


def _shown(reveal: Reveal) -> dict[str, object]:
    settled_at = None if reveal.settled_at is None else reveal.settled_at / 1e6
    return _entry(reveal.meant) | {"outcome": reveal.outcome or None, "settled_at": settled_at}


def _linked(link: Linked) -> dict[str, object]:
    entry = link.entry
    return {"sequence": link.sequence, "event": entry.event} | _entry(entry) | {"outcome": entry.outcome}


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "at": entry.at / 1e6,
        "principal": entry.principal,
        "origin": entry.origin,
        "route": entry.route,
        "destination": entry.destination,
        "purpose": entry.purpose,
        "exchange": entry.exchange,
    }
