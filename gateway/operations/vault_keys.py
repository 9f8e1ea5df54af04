"""The vault's keys as they are stored, and the work of taking rows from old ones to new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.operations.base import Operation, Row
from gateway.pure.key_hierarchy import Fields, KeyRecord, Purpose, Tally
from gateway.pure.tokens import TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRow(Row):
    """All keys that a tenant has or had. `older`: it has none, but rows from before there were any."""

    records: tuple[KeyRecord, ...]
    older: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ReadKeys(Operation[KeysRow]):
    """The keys of a tenant; those of the deployment are the tenant's without a name."""

    tenant: str


@dataclass(frozen=True, slots=True, eq=False)
class AddKeys(Operation[Row]):
    """Add keys, all of them or none. Refused if one of this version is there: somebody was faster."""

    tenant: str
    records: tuple[KeyRecord, ...]


@dataclass(frozen=True, slots=True, eq=False)
class UseKey(Operation[Row]):
    """Set aside so many uses of a key."""

    tenant: str
    purpose: Purpose
    version: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class WrapKey(Operation[Row]):
    """The same key, wrapped anew. Refused unless it is as it was in `before`."""

    tenant: str
    before: KeyRecord
    under: int
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class RetireKey(Operation[Row]):
    """Nobody is to write with it any more."""

    tenant: str
    purpose: Purpose
    version: int
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class DestroyKeys(Operation[Row]):
    """Overwrite keys; that they were there, and when they ended, stays."""

    tenant: str
    records: tuple[KeyRecord, ...]
    now: float


@dataclass(frozen=True, slots=True)
class VaultValue:
    """A row of the vault for whoever seals it anew."""

    token: str
    token_class: TokenClass
    merchant: str | None
    fields: Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesRow(Row):
    """In the order of tokens; fewer than were asked for: there are no more."""

    values: tuple[VaultValue, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ReadValues(Operation[ValuesRow]):
    """At most `limit` rows of a tenant, from behind a token on."""

    tenant: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewedRow(Row):
    """How many rows were written; the others had been changed or deleted meanwhile."""

    count: int


@dataclass(frozen=True, slots=True, eq=False)
class RenewValues(Operation[RenewedRow]):
    """Write rows as they should be, each unless it is no longer what it was: pairs of a row and its new fields."""

    tenant: str
    renewed: Sequence[tuple[VaultValue, Fields]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyRow(Row):
    """Of some rows, and the last of their tokens; None: there were none."""

    tally: Tally
    last: str | None


@dataclass(frozen=True, slots=True, eq=False)
class CountValues(Operation[TallyRow]):
    """Count at most `limit` rows of a tenant, from behind a token on."""

    tenant: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsRow(Row):
    """Who has rows in the vault or keys, in order."""

    tenants: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class VaultTenants(Operation[TenantsRow]):
    """All tenants of the vault; the deployment's own keys are the tenant's without a name."""


@dataclass(frozen=True, slots=True)
class Rewrap:
    """The work of taking a tenant's rows to its newest keys. Times are Unix time in seconds.

    `rate` is rows sealed anew a second, at the most. Rows are taken in the order of their tokens, over and over until
    nothing is left to do: this pass began then and has come behind the token `after`, past `seen` rows of `total`, of
    which it changed `changed`. All passes renewed `renewed`.
    """

    tenant: str
    rate: int
    requested_at: float
    began_at: float
    after: str
    seen: int
    total: int
    changed: int
    renewed: int
    finished_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrapRow(Row):
    """`refused` if there is none to be had."""

    rewrap: Rewrap | None


@dataclass(frozen=True, slots=True, eq=False)
class AskRewrap(Operation[Row]):
    """Have the rows of a tenant rewrapped from the beginning, unless that is under way."""

    tenant: str
    rate: int
    now: float


@dataclass(frozen=True, slots=True, eq=False)
class ReadRewrap(Operation[RewrapRow]):
    """The last work on a tenant's rows."""

    tenant: str


@dataclass(frozen=True, slots=True, eq=False)
class DueRewraps(Operation[TenantsRow]):
    """Whose rows are to be rewrapped, and nobody does it, longest waiting first."""

    now: float
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class TakeRewrap(Operation[RewrapRow]):
    """Take it on until then. Refused if somebody else has."""

    tenant: str
    now: float
    until: float


@dataclass(frozen=True, slots=True, eq=False)
class NoteRewrap(Operation[Row]):
    """How far it has come; whoever took it has it until then."""

    tenant: str
    rewrap: Rewrap
    until: float
