"""The audit chain: entries are written with what they tell of, and linked when their commit ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.operations.base import Operation, PurgedRow, Row
from gateway.pure.audit import End, Ends, Entry, Linked, Place


@dataclass(frozen=True, slots=True, eq=False)
class RecordAudit(Operation[Row]):
    """Add entries to the tenant's chain that this gateway writes. `key` is the tenant's audit key."""

    tenant: str
    key: bytes = field(repr=False)
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsRow(Row):
    """All chains that have an end or an entry; one without a sealed head has `head_seal` empty."""

    chains: tuple[Ends, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ListChains(Operation[ChainsRow]):
    """The chains of one tenant or (None) of all. Reads only.

    With `unmarked` also those of which there are entries and no end, as no gateway leaves them; takes long.
    """

    tenant: str | None
    unmarked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow(Row):
    """Entries in their order."""

    entries: tuple[Linked, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ReadChain(Operation[ChainRow]):
    """The entries of a chain behind number `after`, at most `limit`. Reads only."""

    tenant: str
    chain: str
    after: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealsRow(Row):
    """Intents, outcomes, refusals, in no order; `found`: a stored token's (class, format, created at, deleted at)."""

    entries: tuple[Entry, ...]
    found: tuple[str, str, float, float | None] | None


@dataclass(frozen=True, slots=True, eq=False)
class FindReveals(Operation[RevealsRow]):
    """Every recorded reveal of a token, refused ones too, and what is known of the token itself. Reads only.

    `token` is in its canonical form, `digest` what stands for it in the chain.
    """

    tenant: str
    token: str
    digest: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PurgeAudit(Operation[PurgedRow]):
    """Delete at most `limit` entries of each chain that were written before `before`, from its beginning on.

    `seal` seals the new beginning; it may raise `Unavailable`.
    """

    before: float
    limit: int
    seal: Callable[[Place, End], bytes]
