"""What a suite is made of: cases, each with what is right, and what came of them."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.scorecard.backend import Backend

Expect = Literal["accept", "reject", "any", "strip-or-reject", "pass", "block", "scrub"]
"""Of a request: forwarded once, not at all, one of both, or without the client's value. Of an upstream's answer: passed
on as it is, replaced by a 502, or either that or passed on without what is wrong with it."""

Port = Literal["edge", "open", "mutual", "proxied", "hasty"]
"""Listeners of the configuration: the routes of the service; any path; one that asks for client
certificates; one behind a balancer that says who calls; one that waits 300 ms."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Bytes to send to a listener, and the upstream's answer if that is what the case is about."""

    request: bytes = field(repr=False)
    port: Port = "edge"
    answer: bytes = field(default=b"", repr=False)
    closes: bool = False
    """The connection must be closed afterwards."""
    context: Callable[[], ssl.SSLContext] | None = field(default=None, repr=False)
    """TLS of this connection. Raises ssl.SSLError if no connection can be made like that."""
    first: bytes = field(default=b"", repr=False)
    """Asked and answered before, on the same connection."""
    times: int = 1
    """Sent so often at once, each on a connection of its own: all together are one request."""
    kept: bool = False
    """The gateway answers by itself: nothing has to reach the backend for it to be accepted."""
    reaches: Callable[[bytes], str] | None = field(default=None, repr=False)
    """What is wrong with the request as it reached the backend; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Exchanges that are made when they are played; all but the last must be accepted, and the last is judged."""

    make: Callable[[], Sequence[Exchange]]


@dataclass(frozen=True, slots=True)
class Proxy:
    """`ports` by the listener that a case asks for; a peer has one for all. `context` where it listens with TLS."""

    name: str
    ports: Mapping[Port, int]
    backend: Backend
    context: ssl.SSLContext | None = None
    ours: bool = False
    folder: Path | None = None
    """Where the files of ours are."""


@dataclass(frozen=True, slots=True)
class Reply:
    received: bytes
    closed: bool
    seen: Sequence[bytes]

    @property
    def status(self) -> int:
        """Of the first answer that is not interim; 0 for none."""
        rest = self.received
        while rest.startswith(b"HTTP/1.1 1"):
            rest = rest.partition(b"\r\n\r\n")[2]
        digits = rest[9:12]
        return int(digits) if rest.startswith(b"HTTP/1.") and digits.isdigit() else 0

    @property
    def refused(self) -> bool:
        return not self.seen and (self.status >= 400 or (not self.received and self.closed))


Question = Callable[[], Awaitable[str]]
"""Answers what is wrong; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the running proxy."""

    of: Callable[[Proxy], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """`play` is bytes for any proxy; for ours alone steps, or a question that answers what is wrong (empty: nothing).

    A `strict` control is honest traffic that Pangate refuses by a rule of its own: refusing it is an exception, told
    with its reason, and not wrong. Without `play` nobody knows how to build the case: that is told too.
    """

    id: str
    name: str
    expect: Expect
    play: Exchange | Steps | Asked | Question | None
    strict: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one file or folder."""

    name: str
    format: str
    cases: Sequence[Case]


@dataclass(slots=True)
class Tally:
    """What came of a suite at one proxy. A case that is wrong may be in several of the other counts."""

    suite: str
    format: str
    cases: int = 0
    controls: int = 0
    wrong: int = 0
    refused_controls: int = 0
    excepted: int = 0
    """Controls that a rule of our own refuses, which `exceptions` tell."""
    server_errors: int = 0
    left_open: int = 0
    canaries: int = 0
    not_built: int = 0
    complaints: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)
