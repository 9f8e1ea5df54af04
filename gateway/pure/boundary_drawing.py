"""Draws the paths between services as Mermaid, DOT or JSON: all that `Boundaries` holds, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, Literal

from gateway.pure.boundaries import Boundaries, Flow, Path

Format = Literal["mermaid", "dot", "json"]


def draw(boundaries: Boundaries, form: Format) -> str:
    """A text that ends with a line break.

    Arrows from a service to an upstream are routes, thick ones reveal; those between services are events, dashed.
    """
    lines: dict[Format, Callable[[Boundaries], Iterator[str]]] = {"mermaid": _mermaid, "dot": _dot, "json": _json}
    return "".join(f"{line}\n" for line in lines[form](boundaries))


def _mermaid(boundaries: Boundaries) -> Iterator[str]:
    """Nodes are numbered: a name may hold what Mermaid reads as an arrow."""
    services = {service.name: f"s{i}" for i, service in enumerate(boundaries.services)}
    upstreams = {name: f"u{i}" for i, name in enumerate(_upstreams(boundaries))}
    yield "flowchart LR"
    for service in boundaries.services:
        left, right = ("([", "])") if service.external else ("[", "]")
        yield f'    {services[service.name]}{left}"{service.name}"{right}'
    for name, owner in _upstreams(boundaries).items():
        yield f'    {upstreams[name]}[("{name}, of {owner}")]'
    for path in boundaries.paths:
        arrow = "==>" if path.reveals else "-->"
        yield f'    {services[path.service]} {arrow}|"{_called(path)}"| {upstreams[path.upstream]}'
    for source, reader, types in _streams(boundaries):
        yield f'    {services[source]} -.->|"{types}"| {services[reader]}'


def _dot(boundaries: Boundaries) -> Iterator[str]:
    yield "digraph services {"
    yield "    rankdir=LR;"
    for service in boundaries.services:
        yield f'    "service {service.name}" [label="{service.name}", shape={"oval" if service.external else "box"}];'
    for name, owner in _upstreams(boundaries).items():
        yield f'    "upstream {name}" [label="{name}, of {owner}", shape=cylinder];'
    for path in boundaries.paths:
        style = "bold" if path.reveals else "solid"
        ends = f'"service {path.service}" -> "upstream {path.upstream}"'
        yield f'    {ends} [style={style}, label="{_called(path)}"];'
    for source, reader, types in _streams(boundaries):
        yield f'    "service {source}" -> "service {reader}" [style=dashed, label="{types}"];'
    yield "}"


def _json(boundaries: Boundaries) -> Iterator[str]:
    document: dict[str, Any] = {
        "services": [dataclasses.asdict(service) for service in boundaries.services],
        "paths": [dataclasses.asdict(path) for path in boundaries.paths],
        "flows": [dataclasses.asdict(flow) for flow in boundaries.flows],
    }
    yield json.dumps(document, indent=2)


def _upstreams(boundaries: Boundaries) -> dict[str, str]:
    """The upstreams and their owners."""
    return {upstream: service.name for service in boundaries.services for upstream in service.owns}


def _called(path: Path) -> str:
    return f"{path.route} reveals {', '.join(path.reveals)}" if path.reveals else path.route


def _streams(boundaries: Boundaries) -> Iterator[tuple[str, str, str]]:
    """Whose events go to whom, and their types."""

    def ends(flow: Flow) -> tuple[str, str]:
        return flow.service, flow.reader

    for (source, reader), flows in groupby(sorted(boundaries.flows, key=ends), key=ends):
        yield source, reader, ", ".join(sorted({flow.type for flow in flows}))
