"""Access tokens that must not pass any more though they have not expired: what an issuer's revocation list says.

The list is JSON, written by whoever may revoke: `{"jti": ["…"], "sub": {"partner-1": 1767225600}, "kid": ["…"]}`. A
subject's tokens are revoked up to a time (Unix seconds): those issued later were issued knowing of it. Of a key that
leaked, all tokens are, whenever its issuer takes it out of its set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.pure.errors import Reason, Refused
from gateway.pure.identity import AccessToken


@dataclass(frozen=True, slots=True)
class Revocations:
    """Ids of revoked tokens and of keys; for a subject the last second whose tokens are revoked."""

    tokens: frozenset[str] = field(default=frozenset(), repr=False)
    subjects: Mapping[str, int] = field(default_factory=dict, repr=False)
    keys: frozenset[str] = field(default=frozenset(), repr=False)

    def check(self, token: AccessToken) -> None:
        """Raises Refused TOKEN_REVOKED."""
        claims = token.claims
        listed = claims.get("jti") in self.tokens or token.kid in self.keys
        if listed or token.issued <= self.subjects.get(claims["sub"], -1):
            raise Refused(Reason.TOKEN_REVOKED, "Get a new access token; this one was revoked.")


def read_revocations(raw: bytes) -> Revocations:
    """Read a list. Raises ValueError with a sentence for the operator: what is not understood would revoke nothing."""
    try:
        read: Any = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON in UTF-8, each member once") from None
    if not isinstance(read, dict) or not read.keys() <= {"jti", "sub", "kid"}:
        raise ValueError("is not an object of jti, sub and kid")
    tokens, subjects, keys = read.get("jti", []), read.get("sub", {}), read.get("kid", [])
    for name, listed in (("jti", tokens), ("kid", keys)):
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise ValueError(f"has a {name} that is not a list of text")
    if not isinstance(subjects, dict) or not all(type(until) is int and until >= 0 for until in subjects.values()):
        raise ValueError("has a sub that is not an object of whole numbers, Unix times in seconds")
    return Revocations(frozenset(tokens), subjects, frozenset(keys))


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(members)
    if len(read) != len(members):
        raise ValueError
    return read
