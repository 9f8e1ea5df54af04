"""Tokens that stand for values, and the record of who had them revealed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.operations.base import Operation, Row


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A token that is free to be tried, and the value sealed for exactly this token."""

    token: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow(Row):
    """`refused` when each of the tries hit a token already taken. `expiry` is what was told last of the card's."""

    token: str
    new: bool
    expiry: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PutToken(Operation[TokenRow]):
    """The token of a value: the one it has (same tenant, class, format and fingerprint), else a new one.

    `fingerprint` and `fingerprint_odd` are by keys of an even and of an odd version; a value is known by either, and
    whoever puts it while there are two keys puts both. None of them means no deduplication. They tell apart what they
    are made of (the `merchant`, too, which is written down so that they can be made anew). An `expiry` (YYYY-MM) takes
    the place of what was told before. `mint(n)` makes the n-th candidate; it runs on the store's thread inside
    the unit, only for a value that has no token yet, at most `tries` times.
    """

    tenant: str
    token_class: str
    token_format: str
    fingerprint: bytes | None = field(repr=False)
    mint: Callable[[int], Candidate] = field(repr=False)
    now: float
    tries: int = 8
    fingerprint_odd: bytes | None = field(default=None, repr=False)
    merchant: str | None = None
    expiry: str | None = None


@dataclass(frozen=True, slots=True)
class SealedToken:
    """A row of the vault as stored; nothing is sealed in one that was `deleted`."""

    token: str
    token_class: str
    token_format: str
    sealed: bytes = field(repr=False)
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealRow(Row):
    """`found` is in the order asked, None where the tenant has no such token; `refused` if any is None or deleted."""

    found: tuple[SealedToken | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class KnowTokens(Operation[Row]):
    """Refused unless the tenant has each of these tokens, and in this class. Reads only."""

    tenant: str
    token_class: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RevealTokens(Operation[RevealRow]):
    """Read tokens that are to be revealed. Who asks for it records so in the same unit (`RecordAudit`)."""

    tenant: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundToken:
    """What is known of a token beside its value, which is `sealed`. Times are Unix seconds."""

    token: str
    token_class: str
    token_format: str
    created_at: float
    deleted_at: float | None
    sealed: bytes = field(repr=False)
    expiry: str | None = None
    """Of the card, YYYY-MM, as it was told last."""
    merchant: str | None = None
    """Whose token it is, if the number has one of each merchant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTokensRow(Row):
    """Tokens, oldest first."""

    tokens: tuple[FoundToken, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LookUpToken(Operation[FoundTokensRow]):
    """The token, if the tenant has or had it. Reads only."""

    tenant: str
    token: str


@dataclass(frozen=True, slots=True, eq=False)
class FindByValue(Operation[FoundTokensRow]):
    """The tokens of a value, in whatever format: of one `merchant`, or else those of the tenant and of every merchant
    that it has. Reads only. Refused if these are more than `merchants_max`.

    `known_by` makes the fingerprints of the value, even and odd, for a merchant or (None) the tenant; it runs on the
    store's thread.
    """

    tenant: str
    known_by: Callable[[str | None], tuple[bytes | None, bytes | None]] = field(repr=False)
    merchant: str | None = None
    merchants_max: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedRow(Row):
    """`refused` if the tenant never had the token; `now` if this is what deleted it."""

    now: bool


@dataclass(frozen=True, slots=True, eq=False)
class DeleteToken(Operation[DeletedRow]):
    """Destroy the value of a token for good. The token itself stays known, so that nothing else is ever called so."""

    tenant: str
    token: str
    now: float
