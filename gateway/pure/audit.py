"""The audit chain: what was done with card data, each entry sealed to itself and to the one before it.

    mac(n) = HMAC-SHA256(key, place | number | mac(n - 1) | entry)        key: the tenant's, for nothing else

Each gateway writes a chain of its own for each tenant. Who changes, swaps, copies or takes out an entry breaks the
chain there, and nobody mends it without the key. Its two ends are sealed as well: `head`, without which the newest
entries could be cut off, and `base`, up to which retention has deleted. What a key cannot show is a whole database put
back to an earlier day: for that a witness keeps heads somewhere else (RFC 9162 section 2.1 has the same limit).

An entry names no card number and no token: a token is written as its digest under the same key (PCI DSS 10.2.2 lists
what an entry has to say).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from gateway.pure.redaction import redact

CLOCK_BACK_MAX: Final = 1_000_000
"""Microseconds by which an entry may be dated before its predecessor: requests are dated when they arrive."""

GATEWAY: Final = ""
"""The tenant whose chain says when a gateway began and ended: no caller's."""

Mark = Literal["head", "base"]
Event = Literal["started", "stopped", "reveal", "settled", "found", "looked_up", "deleted", "keys", "refused"]
"""`reveal` is the intent, before a byte leaves; `settled` says what became of the exchange that it was for. `refused`
is what was not to be revealed; `keys` what was done with those of the vault.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was done. `at` is Unix time in microseconds, `origin` the caller's address, `exchange` the request's id."""

    event: Event
    at: int
    exchange: str = ""
    principal: str = ""
    origin: str = ""
    route: str = ""
    destination: str = ""
    purpose: str = ""
    token: bytes | None = None
    """The digest of the token that it was done with."""
    outcome: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is text, in the order in which it is sealed and stored."""
        return (
            *(self.event, self.exchange, self.principal, self.origin),
            *(self.route, self.destination, self.purpose, self.outcome),
        )


class Place(NamedTuple):
    """Whose chain it is, and which gateway writes it."""

    tenant: str
    chain: str


@dataclass(frozen=True, slots=True)
class End:
    """An entry as its chain goes on from it: its number (from 1), its MAC, its time. Number 0: none was written."""

    sequence: int = 0
    mac: bytes = b""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Linked:
    """An entry in its chain. `skew`: microseconds by which the clock had been put back, 0 if it was not."""

    entry: Entry
    sequence: int
    skew: int
    mac: bytes

    @property
    def end(self) -> End:
        return End(self.sequence, self.mac, self.entry.at)


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a chain begins and ends, as it is stored. An end that nobody marked is number 0."""

    place: Place
    base: End = End()
    base_seal: bytes = b""
    head: End = End()
    head_seal: bytes = b""


def cleaned(entry: Entry) -> Entry:
    """The entry as it may be stored: its caller's name is the caller's choice, and may look like a card number."""
    principal = redact(entry.principal)
    return entry if principal == entry.principal else replace(entry, principal=principal)


def token_digest(token: str, key: bytes) -> bytes:
    """What stands for a token in the chain; `key` is the tenant's audit key."""
    return hmac.digest(key, b"pangate audit token\0" + token.encode(), "sha256")


def linked(entry: Entry, place: Place, before: End, key: bytes) -> Linked:
    """The entry as the next of its chain. Raises TypeError or AttributeError for one that is no entry."""
    back = before.at - entry.at
    return _link(entry, place, before, back if back > CLOCK_BACK_MAX else 0, key)


def _link(entry: Entry, place: Place, before: End, skew: int, key: bytes) -> Linked:
    sequence = before.sequence + 1
    texts = [text.encode() for text in (*place, *entry.texts)]
    numbers = (sequence, entry.at, skew)
    parts = [before.mac, b"" if entry.token is None else entry.token, *texts]
    sealed = b"".join([
        b"pangate audit entry\0",
        *(number.to_bytes(8, signed=True) for number in numbers),
        *(len(part).to_bytes(4) + part for part in parts),
    ])  # fmt: skip
    return Linked(entry, sequence, skew, hmac.digest(key, sealed, "sha256"))


def sealed_end(mark: Mark, place: Place, end: End, key: bytes) -> bytes:
    """The seal of one end of a chain."""
    texts = [part.encode() for part in (mark, *place)]
    parts = b"".join(len(part).to_bytes(4) + part for part in (*texts, end.mac))
    told = b"pangate audit end\0" + end.sequence.to_bytes(8) + end.at.to_bytes(8, signed=True) + parts
    return hmac.digest(key, told, "sha256")


# --- Verifying -------------------------------------------------------------------------------------------------------


def wrong_ends(ends: Ends, key: bytes) -> Iterator[str]:
    """What is wrong with the ends of a chain, a sentence each."""
    marks: tuple[tuple[Mark, End, bytes], ...] = (
        ("base", ends.base, ends.base_seal),
        ("head", ends.head, ends.head_seal),
    )
    for mark, end, seal in marks:
        if (end.sequence or mark == "head") and not hmac.compare_digest(sealed_end(mark, ends.place, end, key), seal):
            yield f"the {mark} of the chain was changed, or is not of this chain"


def first_wrong(place: Place, before: End, entries: Sequence[Linked], key: bytes) -> str:
    """What is wrong with the first entry that does not follow from the one before it; empty if all do."""
    for found in entries:
        if found.sequence != before.sequence + 1:
            return f"entry {before.sequence + 1} is missing"
        again = _link(found.entry, place, before, found.skew, key)
        if not hmac.compare_digest(again.mac, found.mac):
            return f"entry {found.sequence} was changed, or what stood before it was"
        before = found.end
    return ""


@dataclass(frozen=True, slots=True)
class Reveal:
    """An intent and what became of it. `outcome` empty: nobody recorded it, and the value may have left."""

    meant: Entry
    outcome: str = ""
    settled_at: int | None = None


def paired(entries: Iterable[Entry]) -> list[Reveal]:
    """Intents with their outcomes, oldest first. An outcome is that of all intents of its exchange still open then."""
    reveals: list[Reveal] = []
    open_now: dict[str, list[int]] = {}
    for entry in sorted(entries, key=lambda e: (e.at, e.event == "settled")):
        if entry.event == "reveal":
            open_now.setdefault(entry.exchange, []).append(len(reveals))
            reveals.append(Reveal(entry))
        elif entry.event == "settled":
            for position in open_now.pop(entry.exchange, ()):
                reveals[position] = replace(reveals[position], outcome=entry.outcome, settled_at=entry.at)
    return reveals
