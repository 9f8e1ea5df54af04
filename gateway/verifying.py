"""What tokens and signatures are verified with: the key sets of those who made them, as ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key bound to one algorithm (RFC 8725 section 3.1); `key` is what PyJWT's algorithm takes."""

    kid: str | None
    algorithm: str
    key: Any


class KeySet(Protocol):
    """The verification keys of one issuer."""

    def find(self, kid: str | None, algorithm: str) -> VerifyKey | None:
        """The key with this id, or without id the only key that fits; None if there is none."""

    async def refresh(self) -> None:
        """Fetch the set again, unless that was done a moment ago; one fetch for all callers.

        Raises `Unavailable` when there are no keys to serve at all.
        """


class KeySets(Protocol):
    """Opens a key set by reference: `file:PATH` or an https URL. The same reference is the same set, across reloads."""

    def open(self, reference: str) -> KeySet:
        """Reads a file at once (raises ValueError if it is missing or not a JWK set); never fetches a URL."""


async def sought(keys: KeySet, find: Callable[[], VerifyKey | None]) -> VerifyKey | None:
    """What `find` finds in the set, and if it is nothing, what it finds once the set was fetched again.

    Raises `Unavailable` when there are no keys at all.
    """
    key = find()
    if key is None:
        await keys.refresh()
        key = find()
    return key
