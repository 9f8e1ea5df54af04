"""What became of a request whose answer did not come: how statuses are read, and what to do next about a doubt.

Nobody guesses. A request that was sent is executed, not executed or unknown; only a definite answer ends the unknown:
the one to the same request sent again under the same key, or that of a status query. "There is no such payment" is no
answer as long as the request may still be on its way (`settle`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import orjson

from gateway.pure.querying import Query

NOT_EXECUTED = frozenset({401, 403, 425, 429})
"""The upstream turned the request away before it acted."""
_IN_FLIGHT_THERE = frozenset({409})
"""May mean that a request with this key is still being worked on (draft-ietf-httpapi-idempotency-key-header 2.6)."""

Mode = Literal["replay", "query", "manual"]

SHORTEST_WAIT = 1.0
"""Seconds between two looks, at least; each wait is half of the time since the request was first sent."""
LONGEST_WAIT = 300.0


class Ended(enum.Enum):
    """What became of a request at the upstream."""

    EXECUTED = "executed"
    """It was decided upon, whatever the decision: a decline is one."""
    NOT_EXECUTED = "not_executed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Decided:
    """What a person found out; `alias` is what the provider calls the payment, if it was a new one."""

    ended: Ended
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the statuses of an upstream are read.

    `final_5xx` is for an upstream that keeps its own failure under the key and acts no more (Stripe does).
    """

    final_5xx: bool = False
    not_executed: frozenset[int] = NOT_EXECUTED
    unclear: frozenset[int] = frozenset()

    def of(self, status: int) -> Ended:
        """What a status tells of the request that it answers."""
        if status in self.unclear:
            return Ended.UNKNOWN
        if status in self.not_executed:
            return Ended.NOT_EXECUTED
        return Ended.UNKNOWN if status >= 500 and not self.final_5xx else Ended.EXECUTED

    def again(self, *, quiet: bool) -> Judgement:
        """For the answer to a request that was sent again.

        That this one was turned away says nothing of the first. A conflict is final only in `quiet`: when no earlier
        one can still be under way.
        """
        unclear = self.unclear | self.not_executed | (frozenset() if quiet else _IN_FLIGHT_THERE)
        return replace(self, not_executed=frozenset(), unclear=unclear)


class Step(enum.Enum):
    """What to do about a call in doubt."""

    RESEND = "resend"
    ASK = "ask"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Doubts:
    """How a route finds out. Durations in seconds.

    `in_flight_max` is how long a request that was sent may still be under way, here, on the network or at the upstream;
    `settle` how long after the last send "not found" is not believed; `key_ttl` how long the upstream honours a key.
    """

    mode: Mode
    in_flight_max: float
    settle: float
    key_ttl: float
    query: Query | None = None
    retry: bool = False
    """Send it again while the caller waits (`replay`)."""

    def step(self, now: float, began: float) -> Step:
        """What to do next about a call that was first sent at `began` (Unix time)."""
        if self.mode == "query":
            return Step.ASK
        return Step.RESEND if self.mode == "replay" and now < began + self.key_ttl else Step.PERSON

    def quiet(self, now: float, sent_at: float) -> bool:
        """Is nothing that was sent by then under way any more?"""
        return now >= sent_at + self.in_flight_max

    def settled(self, now: float, sent_at: float) -> bool:
        """Does "not found" count by now?"""
        return now >= sent_at + self.settle

    def next_look(self, now: float, began: float, sent_at: float, jitter: float) -> float:
        """When to look again; `jitter` in [0, 1) moves the wait by a fifth both ways.

        Never later than the moment from which on "not found" counts, as long as that lies ahead.
        """
        wait = min(max((now - began) / 2, SHORTEST_WAIT), LONGEST_WAIT) * (0.8 + 0.4 * jitter)
        settled = sent_at + self.settle
        return min(now + wait, settled) if self.mode == "query" and now < settled else now + wait


@dataclass(frozen=True, slots=True)
class Recorded:
    """What it takes to resolve a call: of the request what its rules look at, and the bytes to be sent.

    `began` is when it was first sent; `kept` what rules left for the way back; `head` and `body` are the request as it
    was sent, tokens unrevealed (`replay`), or the head of the query; both are empty where a person resolves.
    """

    began: float
    method: str
    target: str
    path: str
    query: str
    host: str
    scheme: str
    media_type: str
    params: Mapping[str, str]
    sans: tuple[str, ...]
    subject: str
    kept: Mapping[str, str]
    head: bytes = field(default=b"", repr=False)
    body: bytes = field(default=b"", repr=False)


_TEXTS = ("method", "target", "path", "query", "host", "scheme", "media_type", "subject")


def pack(recorded: Recorded) -> bytes:
    """One value to be sealed: a line of JSON that tells the length of the head, the head, the body."""
    facts = {name: getattr(recorded, name) for name in _TEXTS}
    facts |= {"began": recorded.began, "sans": recorded.sans, "params": dict(recorded.params)}
    facts |= {"kept": dict(recorded.kept), "head": len(recorded.head)}
    return orjson.dumps(facts) + b"\n" + recorded.head + recorded.body


def unpack(packed: bytes) -> Recorded:
    """The inverse of `pack`. Raises ValueError and KeyError for what `pack` did not make."""
    line, _, rest = packed.partition(b"\n")
    facts = orjson.loads(line)
    return Recorded(
        **{name: facts[name] for name in _TEXTS},
        began=facts["began"],
        sans=tuple(facts["sans"]),
        params=facts["params"],
        kept=facts["kept"],
        head=rest[: facts["head"]],
        body=rest[facts["head"] :],
    )
