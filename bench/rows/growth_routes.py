"""`growth_routes`: does a request cost more where there are more routes?

The configuration of the bench, once with 10 routes more and once with 10,000, each with a parameter in its path and its
own pipeline. Requests go down all of them in turn; each route has had one before anything is measured, as a rule takes
a closer look at a client certificate that is new to it. `growth_routes_unused` is where 10 of the 10,000 are in use:
what a route costs that is only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.loader import Load, Target
from bench.report import Row, at_most
from bench.rounds import Samples, Variant, median, play, ratio
from bench.stage import CONFIG, Size, Stage, post

IDS = ("growth_routes",)
FEW = 10
MANY: Final[Mapping[Size, int]] = {"quick": 200, "usual": 10_000}
MOST = 1.1
CONNECTIONS = 16
REQUESTS = 4000


async def measure(stage: Stage, rounds: int) -> list[Row]:
    many = MANY[stage.size]
    few_routes = stage.pangate(with_routes(stage.folder / "few", FEW), name="few")
    many_routes = stage.pangate(with_routes(stage.folder / "many", many), name="many")
    plan = (("few", few_routes, FEW), ("many", many_routes, many), ("few_of_many", many_routes, FEW))
    variants = []
    for name, proxy, used in plan:
        target = replace(stage.target(proxy, "/"), request=down_all(used))
        visit(target, used)
        variants.append(Variant(name, proxy, target, CONNECTIONS, REQUESTS))
    return rows(play(variants, rounds), many)


def down_all(routes: int) -> Callable[[int], bytes]:
    requests = [post(f"/m{n}/pay_{n}")(0) for n in range(routes)]
    return lambda number: requests[number % routes]


def visit(target: Target, requests: int) -> None:
    """Raises WrongAnswerError or OSError."""
    load = Load(target)
    try:
        load.connect(1)
        load.run(requests)
    finally:
        load.close()


def with_routes(folder: Path, count: int) -> Path:
    """The bench's configuration with so many routes more; the path of its file, which may have 1 MiB."""
    folder.mkdir()
    (folder / "policies").symlink_to(CONFIG.parent / "policies")
    more = "".join(
        f'  - {{name: m{n}, listener: edge, match: {{path: "/m{n}/{{id}}"}}, policy: bare, upstream: backend}}\n'
        for n in range(count)
    )
    config = folder / CONFIG.name
    config.write_text(CONFIG.read_text() + more)
    return config


def rows(found: Mapping[str, Samples], many: int) -> list[Row]:
    note = f"{FEW} and {many:,} routes"
    return [
        at_most("growth_routes", ratio(found, "many", "few"), MOST, "ratio", note),
        Row("growth_routes_unused", ratio(found, "few_of_many", "few"), "ratio", note=f"{note}, {FEW} of them in use"),
        *(Row(f"routes_{name}_16", median(found, name), "us CPU/request") for name in ("few", "many", "few_of_many")),
    ]
