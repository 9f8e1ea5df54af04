"""Stand-ins for what a configuration does not use: nothing behind them, nothing opened."""

# ruff: noqa: ARG002 - the arguments are the protocols'

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from gateway.operations import Operation, Row
from gateway.ports import Unavailable
from gateway.pure.metrics import Metric
from gateway.pure.served import Served


class NoStore:
    """A `Store` that is never there."""

    async def commit(self, unit: Sequence[Operation[Row]]) -> NoReturn:
        raise Unavailable("store")

    async def close(self) -> None:
        pass


class NoKeys:
    """The `Keys` of a configuration without `keys`: rules that need them are refused, so nobody asks."""

    def mac(self, tenant: str, purpose: str) -> NoReturn:
        raise Unavailable("keys")

    def keyed(self, tenant: str, purpose: str) -> NoReturn:
        raise Unavailable("keys")

    def seal(self, tenant: str, purpose: str, plaintext: bytes, associated: bytes) -> NoReturn:
        raise Unavailable("keys")

    def open(self, tenant: str, purpose: str, sealed: bytes, associated: bytes) -> NoReturn:
        raise Unavailable("keys")

    def ring(self, tenant: str) -> NoReturn:
        raise Unavailable("keys")


class NoUpstream:
    """A `Cluster` and an `Upstream` that only has a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.authority = name.encode()

    def lane(self, operation: str) -> NoUpstream:
        return self

    def reserve(self) -> NoUpstream:
        return self

    async def acquire(self, *, safe: bool) -> NoReturn:
        raise Unavailable("upstream")

    def again(self, tried: int, waited: float) -> None: ...


class NoTelemetry:
    """A `Telemetry` that forgets."""

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None: ...
    def observe(self, metric: Metric, value: float, *labels: str) -> None: ...
    def set(self, metric: Metric, value: float, *labels: str) -> None: ...
    def served(self, served: Served) -> None: ...
    def log(self, event: str, **fields: object) -> None: ...
