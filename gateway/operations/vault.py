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
    """`refused` when each of the tries hit a token already taken."""

    token: str
    new: bool


@dataclass(frozen=True, slots=True, eq=False)
class PutToken(Operation[TokenRow]):
    """The token of a value: the one it has (same tenant, class, format and fingerprint), else a new one.

    `fingerprint` None means no deduplication. `mint(n)` makes the n-th candidate; it runs on the store's thread inside
    the unit, only for a value that has no token yet, at most `tries` times.
    """

    tenant: str
    token_class: str
    token_format: str
    fingerprint: bytes | None = field(repr=False)
    mint: Callable[[int], Candidate] = field(repr=False)
    now: float
    tries: int = 8


@dataclass(frozen=True, slots=True)
class SealedToken:
    """A row of the vault as stored."""

    token: str
    token_class: str
    token_format: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealRow(Row):
    """`found` is in the order asked, None where the tenant has no such token; `refused` if any is None."""

    found: tuple[SealedToken | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class KnowTokens(Operation[Row]):
    """Refused unless the tenant has each of these tokens, and in this class. Reads only."""

    tenant: str
    token_class: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RevealTokens(Operation[RevealRow]):
    """Read tokens to be revealed and record the intent (who, where to, when) in the same commit.

    `codes` counts the security codes revealed along with them. Their tokens open a value in memory, so they are not
    written down. With no `tokens` the intent is recorded all the same.
    """

    tenant: str
    tokens: tuple[str, ...]
    exchange: str
    principal: str
    route: str
    destination: str
    now: float
    codes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SettleReveal(Operation[Row]):
    """Record what became of the exchange that a reveal was meant for."""

    tenant: str
    exchange: str
    outcome: str
    now: float
