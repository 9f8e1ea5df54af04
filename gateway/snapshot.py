"""A configuration that runs: routes with their compiled pipelines. Built whole, then swapped as one reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from gateway.pipeline import Pipeline
from gateway.ports import Upstream
from gateway.pure.mapping_words import ProviderMapping
from gateway.pure.routing import RouteTable
from gateway.pure.webhooks import Handshake, Verifier
from gateway.recorded import RecordedPipeline


@dataclass(frozen=True, slots=True)
class Facts:
    """What deliveries tell of payments, which are known by their ids at `upstream`. `opens` those that are not."""

    mapping: ProviderMapping
    upstream: str
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a webhook route needs to verify deliveries and to send them on."""

    provider: str
    scheme: Verifier
    keys: Sequence[bytes] = field(repr=False)
    tolerance: float
    """Seconds that a signature's time may differ from ours, both ways."""
    upstream: Upstream
    path: str
    """Where the backend takes deliveries."""
    signing_key: bytes = field(repr=False)
    """Signs what is sent on (Standard Webhooks)."""
    url: str | None = None
    """The address by which the provider knows the route, if that is signed."""
    live: bool | None = None
    """Take only events of real money (True) or only of a sandbox (False); None takes both."""
    facts: Facts | None = None
    handshake: Handshake | None = None
    """Answers the provider where it asks first."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route has a pipeline or an inbox."""

    name: str
    tenant: str
    """The tenant, where no rule determines it."""
    pipeline: Pipeline | None = None
    inbox: Inbox | None = None
    allow_body: bool = False
    """DELETE may have a body here."""
    media_types: Set[str] | None = None
    """What bodies may be, in lower case; None leaves it to the rules that read them."""
    repeat: Set[str] = frozenset()
    """Query parameters that may come more than once."""
    segments: Mapping[str, int] = field(default_factory=dict)
    """The positions of the named segments of the path."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`tables` by listener name; `digest` identifies the files it was read from."""

    digest: str
    tables: Mapping[str, RouteTable[Route]]
    inboxes: Mapping[str, Route]
    """Webhook routes by name, for deliveries that wait."""
    recorded: Mapping[str, RecordedPipeline] = field(default_factory=dict)
    """Pipelines by route name, for calls in doubt."""
