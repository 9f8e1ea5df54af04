"""Cases that are a name and a section of a standard: built here from both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.scorecard.cases import Case, Expect


def case(row: Mapping[str, Any]) -> Case:
    """A case that nobody knows how to build has nothing to play."""
    expect: Expect = row["expect"] if row["expect"] in {"accept", "reject"} else "any"
    return Case(row["id"], row["name"], expect, None)
