"""Recipes of what is done to a record, and of what a record has to say: by a reveal, and by hands at the database."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.commands.vault import lines
from gateway.operations import FindReveals, ListChains, ReadChain
from gateway.ports import Response
from gateway.pure.audit import GATEWAY, End, Entry, Place, first_wrong, linked, paired, token_digest, wrong_ends
from gateway.workers.witness import Witness
from tests.rules.vault import World

VISA, CODE = "4242424242424242", "98765432"
TENANT, CHAIN = "default", "gateway"
_NUMBER = {"select": "$.card.number", "class": "pan"}
_CVC = {"select": "$.card.cvc", "class": "cvc"}
_REVEALS: Final = 3
_PLACE: Final = Place(TENANT, CHAIN)

TAMPERING: Sequence[tuple[str, str]] = [
    (r"rewrit|new chain|forge.*chain|re-?hash", "REWRITE"),
    (r"truncat|last|tail|cut", "DELETE FROM audit WHERE tenant = 'default' AND sequence > 4"),
    (r"delet|remov|drop", "DELETE FROM audit WHERE tenant = 'default' AND sequence = 2"),
    (
        r"duplicat|cop(y|ied)|replay",
        """INSERT INTO audit SELECT tenant, 'copy', sequence, at, skew, event, exchange, principal, origin, route,
        destination, purpose, token, outcome, mac FROM audit""",
    ),
    (
        r"swap|reorder|exchange",
        """UPDATE audit SET sequence = -2 WHERE sequence = 2; UPDATE audit SET sequence = 2 WHERE sequence = 4;
        UPDATE audit SET sequence = 4 WHERE sequence = -2""",
    ),
    (r"time|backdat", "UPDATE audit SET at = at + 1 WHERE sequence = 2"),
    (
        r"insert|inject.*record|fake|add",
        """INSERT INTO audit SELECT tenant, chain, 99, at, skew, event, exchange, principal, origin, route,
        destination, purpose, token, outcome, mac FROM audit WHERE sequence = 1""",
    ),
    (r"edit|modif|chang|alter|flip|byte|bit", "UPDATE audit SET principal = 'nobody' WHERE sequence = 2"),
]
"""By names of cases: what somebody does who may write to the database and does not have the key."""
_BREAKS = {r"2028": "\u2028", r"2029": "\u2029", r"ansi|escape seq": "\x1b[2J", r"nul": "\0", r"bidi|202e": "\u202e"}


def question(name: str) -> Callable[[], Awaitable[str]] | None:
    """What is wrong with the record in this case; None for other names."""
    for pattern, ask in _ASKED.items():
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(_with_world, ask)
    for pattern, text in {**_BREAKS, r"newline|crlf|line (break|feed)": "\r\n"}.items():
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(_with_world, functools.partial(_broken_line, text=text))
    for pattern, statement in TAMPERING:
        if re.search(pattern, name, re.IGNORECASE):
            return functools.partial(_with_world, functools.partial(_tampered, statement=statement))
    return None


async def _with_world(ask: Callable[[World], Awaitable[str]]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            return await ask(world)
        finally:
            await world.store.close()


async def revealed(world: World, headers: dict[str, str] | None = None, **call: Any) -> tuple[str, Response]:
    """A token that was revealed, and the answer."""
    token = await world.token(VISA)
    body = {"card": {"number": token}}
    return token, await world.call(world.reveal(_NUMBER, purpose="refund"), body, headers=headers, **call)


async def complaints(world: World) -> list[str]:
    """What `pangate audit verify` would find."""
    found: list[str] = []
    listing = ListChains(None, unmarked=True)
    for ends in (await world.store.commit([listing]))[listing].chains:
        key = world.keys.mac(ends.place.tenant, "audit")
        reading = ReadChain(*ends.place, ends.base.sequence, 1000)
        links = (await world.store.commit([reading]))[reading].entries
        found += [*wrong_ends(ends, key), first_wrong(ends.place, ends.base, links, key)]
        found.append("" if (links[-1].end if links else ends.base) == ends.head else "the end is missing")
    return list(filter(None, found))


async def entries(world: World, tenant: str = TENANT) -> list[Entry]:
    reading = ReadChain(tenant, CHAIN, 0, 1000)
    return [link.entry for link in (await world.store.commit([reading]))[reading].entries]


# --- the record as evidence ------------------------------------------------------------------------------------------


async def _tampered(world: World, statement: str) -> str:
    for _ in range(_REVEALS):
        await revealed(world)
    if await complaints(world):
        return "a record that nobody touched does not verify"
    db = world.store._store._db  # noqa: SLF001
    if statement == "REWRITE":
        _rewrite(db, await entries(world))
    else:
        db.execute(statement)
    return "" if await complaints(world) else "nothing was detected"


def _rewrite(db: Any, kept: Sequence[Entry]) -> None:
    """All but the first entry as a chain of its own, by somebody's own key."""
    db.execute("DELETE FROM audit WHERE tenant = 'default'")
    end, key = End(), b"not the key" * 3
    for entry in kept[1:]:
        link = linked(entry, _PLACE, end, key)
        end = link.end
        row = (*_PLACE, link.sequence, entry.at, 0, entry.token, link.mac, *entry.texts)
        columns = "tenant, chain, sequence, at, skew, token, mac, event, exchange, principal, origin, route"
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO audit ({columns}, destination, purpose, outcome) VALUES ({marks})", row)
    db.execute("UPDATE audit_ends SET sequence = ?, mac = ?, at = ?", (end.sequence, end.mac, end.at))


async def _broken_line(world: World, text: str) -> str:
    token, _ = await revealed(world, sans=(f"spiffe://shop.example/a{text}b",))
    finding = FindReveals(TENANT, token, token_digest(token, world.keys.mac(TENANT, "audit")))
    (reveal,) = paired((await world.store.commit([finding]))[finding].entries)
    shown = {"at": reveal.meant.at / 1e6, "principal": reveal.meant.principal, "outcome": reveal.outcome}
    shown |= {name: getattr(reveal.meant, name) for name in ("origin", "route", "destination", "purpose", "exchange")}
    stored = {"known": True, "class": "pan", "format": "opaque", "created_at": None, "deleted_at": None}
    told = list(lines({"tenant": TENANT, **stored, "reveals": [shown], "refusals": []}))
    if await complaints(world):
        return "the record does not verify"
    return "" if len(told) == 2 and told[1].isascii() and told[1].isprintable() else "one entry is more than one line"


# --- what it says, and does not ---------------------------------------------------------------------------------------


async def _masked(world: World) -> str:
    """A number wherever a caller can put one, a code in a request that is refused."""
    _, answer = await revealed(world, {"User-Agent": f"browser {VISA}", "X-Note": VISA}, sans=(f"spiffe://x/{VISA}",))
    refused = await world.call(world.tokenize(_CVC), {"card": {"cvc": CODE, "number": VISA}})
    rows = world.store._store._db.execute("SELECT * FROM audit").fetchall()  # noqa: SLF001
    told = repr((rows, world.telemetry.lines, answer.body, answer.headers, refused.body, refused.headers))
    if refused.status < 400:
        return "a request that had to be refused was not"
    return "card data is in the record, the log or the answer" if VISA in told or CODE in told else ""


async def _full(world: World) -> str:
    token = await world.token(VISA)
    db = world.store._store._db  # noqa: SLF001
    db.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT raise(FAIL, 'disk full'); END")
    sent = len(world.wire.sent)
    answer = await world.call(world.reveal(_NUMBER), {"card": {"number": token}})
    if len(world.wire.sent) != sent:
        return "a value left that could not be recorded"
    alarmed = any(line["event"] == "store_failed" for line in world.telemetry.lines)
    return "" if answer.status == 503 and alarmed else "nobody is told that nothing can be recorded"


async def _whole(world: World) -> str:
    await revealed(world)
    meant, settled = await entries(world)
    said = (meant.principal, meant.event, meant.at, meant.origin, meant.token, meant.route, meant.destination)
    return "" if all((*said, meant.purpose, settled.outcome)) else "an entry lacks what PCI DSS 10.2.2 asks for"


async def _lives(world: World) -> str:
    witness = Witness(world.store, world.keys, world.clock, world.telemetry)
    await witness.began("digest")
    await witness.ended()
    events = [entry.event for entry in await entries(world, GATEWAY)]
    return "" if events == ["started", "stopped"] else "begin and end of the record are not in it"


async def _skewed(world: World) -> str:
    await revealed(world)
    world.clock.advance(-60)
    await revealed(world)
    reading = ReadChain(TENANT, CHAIN, 0, 10)
    skews = [link.skew for link in (await world.store.commit([reading]))[reading].entries]
    return "" if max(skews) >= 59_000_000 else "a clock that was put back is not on record"


_ASKED: dict[str, Callable[[World], Awaitable[str]]] = {
    r"mask|\b(pan|cvc|cvv|token) in\b": _masked,
    r"disk full|full disk|no space|cannot be written": _full,
    r"carries|fields|10\.2\.2": _whole,
    r"start/?stop|stopped|started|logging (off|disabled)": _lives,
    r"clock|skew|ntp": _skewed,
}
