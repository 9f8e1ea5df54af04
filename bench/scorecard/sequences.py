"""Deliveries that depend on those before: what the inbox says of each, on a store, at the recorded times."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from bench.scorecard.cases import Case
from bench.scorecard.vectors import keys_of, provider_of, verifier_of
from gateway.config.kinds import Provider
from gateway.snapshot import Inbox, Route
from tests.inbox_world import InboxWorld, inbox_world

_TOLERANCE = 300.0
_SIMPLE = re.compile(r"accepted|duplicate|conflict_quarantined|rejected:\w+")
"""What is said of a delivery by itself; what it does to a payment is not played here."""


def cases(rows: Sequence[Mapping[str, Any]]) -> Iterator[Case]:
    """Raises KeyError for what is no sequence."""
    for row in rows:
        built = all(provider_of(step["scheme"]) and _SIMPLE.fullmatch(step["expect"]) for step in row["steps"])
        yield Case(row["name"], row["why"], "any", functools.partial(_play, row["steps"]) if built else None)


async def _play(steps: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the first step that is not answered as it says; empty if all are."""
    with tempfile.TemporaryDirectory() as folder:
        async with inbox_world(Path(folder)) as world:
            for number, step in enumerate(steps, 1):
                said = await _said(world, step)
                if said != step["expect"].partition(":")[0]:
                    return f"step {number}: {said}, expected {step['expect']}"
    return ""


async def _said(world: InboxWorld, step: Mapping[str, Any]) -> str:
    provider = provider_of(step["scheme"])
    assert provider is not None
    world.routes["hooks"] = _route(world, provider, step)
    world.clock.advance(step["now"] - world.clock.now())
    answer = await world.receive(step["body"].encode(), dict(step["headers"]), route="hooks")
    content = orjson.loads(answer.body) if answer.body.startswith(b"{") else {}
    if 200 <= answer.status < 300:
        return str(content.get("status", "accepted"))
    conflict = str(content.get("type", "")).endswith(":delivery_conflict")
    return "conflict_quarantined" if conflict else "rejected"


def _route(world: InboxWorld, provider: Provider, step: Mapping[str, Any]) -> Route:
    """As the one of the world, for this provider."""
    usual = world.routes["stripe-hooks"]
    assert usual.inbox is not None
    inbox: Inbox = replace(
        usual.inbox,
        provider=step["provider"],
        scheme=verifier_of(step["key"], provider),
        keys=keys_of(step["key"], provider),
        tolerance=_TOLERANCE,
        url=step["key"].get("notification_url", step["url"]),
    )
    return replace(usual, name="hooks", inbox=inbox)
