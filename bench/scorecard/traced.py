"""Trace context: a request's fields of it, and what of them has to reach the backend (W3C Trace Context, section 4.3).

The cases ask what the test suite of the W3C asks of a service, and some things more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.scorecard.cases import Case, Exchange, Steps

_PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-0[0-3]")


def case(row: Mapping[str, Any]) -> Case:
    """Of a row with `fields` (names and values), `trace` (the id that goes on; empty: a new one) and `state`."""
    judge = functools.partial(judged, row)
    return Case(row["id"], row["name"], "accept", Steps(lambda: [Exchange(request(row), reaches=judge)]))


def request(row: Mapping[str, Any]) -> bytes:
    lines = ["GET /v1/payments HTTP/1.1", "Host: api.example", *(f"{name}: {value}" for name, value in row["fields"])]
    return "\r\n".join([*lines, "", ""]).encode()


def judged(row: Mapping[str, Any], head: bytes) -> str:
    """What is wrong with the head of a request as the backend got it; empty if nothing."""
    parents, states = _values(head, "traceparent"), _values(head, "tracestate")
    found = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return f"{len(parents)} parents, not one that is valid"
    told = " ".join(value for _, value in row["fields"])
    if found[2] in told:
        return "the parent is the caller's"
    if found[1] != row["trace"] and (row["trace"] or found[1] in told):
        return "the trace was broken off" if row["trace"] else "a trace goes on that is none"
    expected = [row["state"]] if row["state"] else []
    return "" if states == expected else "the state is not what may go on"


def _values(head: bytes, name: str) -> Sequence[str]:
    fields = (line.partition(": ") for line in head.decode("latin-1").split("\r\n"))
    return [value for spelled, _, value in fields if spelled.lower() == name]
