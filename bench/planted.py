"""The gateway with a regression planted: `python -m bench.planted ROUTE=CALLS,... run --config ...`.

The first rule of each route named does so many calls of the reference work more. It is the control of `bench.gate`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from bench.reference import reference_work
from gateway.cli import main as pangate
from gateway.exchange import Exchange
from gateway.rules.mtls import Mtls


def read_plan(text: str) -> dict[str, int]:
    """Calls for each route, from `bare=3,durable=7`. Raises ValueError."""
    pairs = (part.partition("=") for part in text.split(","))
    return {route: int(calls) for route, _, calls in pairs}


def write_plan(plan: Mapping[str, int]) -> str:
    """What `read_plan` reads."""
    return ",".join(f"{route}={calls}" for route, calls in plan.items())


def burning(hook: Callable[[Any, Exchange], Any], plan: Mapping[str, int]) -> Callable[[Any, Exchange], Any]:
    """The hook, made as much more expensive as the plan says for the route; whatever it returned, it returns."""

    def burn(rule: Any, exchange: Exchange) -> Any:
        for _ in range(plan.get(exchange.route, 0)):
            reference_work()
        return hook(rule, exchange)

    return burn


def main() -> None:
    plan = read_plan(sys.argv.pop(1))
    setattr(Mtls, "on_request", burning(Mtls.on_request, plan))  # noqa: B010 - to plant it is the purpose
    pangate()


if __name__ == "__main__":
    main()
