"""Cases that are a name and a section of a standard: built here from both, by the standard that their id names."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.scorecard import (
    abuse,
    audited,
    bound,
    certificates,
    connections,
    delivered,
    issuer,
    limited,
    nonces,
    proofs,
    received,
    signed_recipes,
    starting,
    token_recipes,
    vectors,
)
from bench.scorecard.cases import Asked, Case, Exchange, Expect, Question, Steps

_PUBLISHED = Path(__file__).parent / "samples" / "rfc9421.json"


def case(row: Mapping[str, Any]) -> Case:
    """A case that nobody knows how to build has nothing to play."""
    expect: Expect = row["expect"] if row["expect"] in {"accept", "reject"} else "any"
    standard = row["id"].partition("-")[0]
    if standard == "sig":
        return _signed_message(row, expect)
    asked = _question(standard, row["name"], good=expect == "accept")
    make = _steps(standard, row, good=expect == "accept")
    return Case(row["id"], row["name"], expect, asked or (None if make is None else Steps(make)))


def _question(standard: str, name: str, *, good: bool) -> Question | Asked | None:
    """What no exchange shows."""
    if standard == "jwt":
        return issuer.question(name, good=good)
    if standard == "dpop":
        return nonces.question(name, good=good)
    if standard == "ab":
        return limited.question(name, good=good)
    if standard == "wh":
        return received.question(name, good=good)
    if standard == "aud":
        return audited.question(name)
    return connections.question(name) or starting.question(name) if standard == "mtls" and not good else None


def _steps(standard: str, row: Mapping[str, Any], *, good: bool) -> Callable[[], Sequence[Exchange]] | None:
    name = row["name"]
    if standard == "jwt":
        return bound.steps(name, good=good) or token_recipes.steps(name, row.get("header"))
    if standard == "dpop":
        return proofs.steps(name, good=good)
    if standard == "ab":
        return abuse.steps(name, good=good)
    if standard == "mtls":
        return certificates.steps(name, good=good)
    return delivered.steps(name, good=good) if standard == "wh" else None


def _signed_message(row: Mapping[str, Any], expect: Expect) -> Case:
    published = re.fullmatch(r"RFC 9421 (B\.2\.[1-6])", row["name"])
    if published is not None:
        found = next(case for case in _published_cases() if case.id == published[1])
        return Case(row["id"], row["name"], "accept", found.play)
    make = signed_recipes.steps(row["name"], good=expect == "accept")
    return Case(row["id"], row["name"], expect, None if make is None else Steps(make))


@functools.cache
def _published_cases() -> tuple[Case, ...]:
    return tuple(vectors.cases(json.loads(_PUBLISHED.read_text())))
