"""`handshake`: a new connection, mutual TLS 1.3 with nothing resumed, one request, and its end: CPU per connection.

One connection after the other, so that nothing is shared between two. Both sides check the other's certificate; the
server's key and the client's are the same for every proxy (ECDSA, P-256).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.loader import Load, Target
from bench.report import Row, at_most
from bench.stage import PeerMissingError, Proxy, Stage

IDS = ("handshake",)
MOST = 1.4
CONNECTIONS = 300
"""A round."""
_WARM_UP = 30


async def measure(stage: Stage, rounds: int) -> list[Row]:
    proxies, missing = {"pangate": stage.pangate()}, {}
    for name in ("nginx", "envoy"):
        try:
            proxies[name] = stage.peer(name)
        except PeerMissingError as error:
            missing[name] = f"not measured: {error}"
    targets = {name: stage.work(proxy, "bare") for name, proxy in proxies.items()}
    for target in targets.values():
        shake(target, _WARM_UP)
    found: dict[str, list[float]] = {name: [] for name in proxies}
    for _ in range(rounds):
        for name, proxy in proxies.items():
            found[name].append(microseconds(proxy, targets[name]))
    return list(rows(found, missing))


def microseconds(proxy: Proxy, target: Target) -> float:
    """CPU of the proxy per connection. Raises WrongAnswerError or OSError."""
    before = proxy.cpu()
    shake(target, CONNECTIONS)
    return (proxy.cpu() - before) / CONNECTIONS / 1000


def shake(target: Target, connections: int) -> None:
    """So many connections with one request each. Raises WrongAnswerError or OSError."""
    for _ in range(connections):
        load = Load(target)
        try:
            load.connect(1)
            load.run(1)
        finally:
            load.close()


def rows(found: Mapping[str, Sequence[float]], missing: Mapping[str, str]) -> Iterator[Row]:
    """`found` holds CPU microseconds per connection, one a round."""
    for name in ("pangate", "nginx", "envoy"):
        value = statistics.median(found[name]) if name in found else None
        yield Row(f"handshake_{name}", value, "us CPU/connection", note=missing.get(name, ""))
    ratio = None
    if "nginx" in found:
        ratio = statistics.median(a / b for a, b in zip(found["pangate"], found["nginx"], strict=True))
    yield at_most("handshake", ratio, MOST, "ratio", missing.get("nginx", ""))
