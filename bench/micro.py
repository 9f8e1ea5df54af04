"""`python -m bench.micro`: what one call of each step of a request costs by itself, in CPU microseconds.

The rules are those of the `durable` route of bench/config, provisioned as the gateway provisions them; nothing is faked
but the network. Caches are warm, as they are in a gateway that runs. A figure is the median of rounds of many calls,
of the CPU time of the whole process, the store's thread included. Steps overlap: `tokenize` holds `read and select`,
the store's unit holds `mint and seal`. What the gateway makes of them together, `make profile` tells.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.backend import ANSWER
from bench.report import Row, publish
from bench.stage import CONFIG, FOLDER, payment
from gateway.adapters.clock import SystemClock
from gateway.adapters.dev_certificates import make_dev_certificates, mint_token
from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import FileKeys
from gateway.adapters.memory import MemorySad, MemoryShared
from gateway.adapters.sqlite import open_sqlite
from gateway.adapters.telemetry import PrometheusTelemetry
from gateway.config.build import build
from gateway.config.load import load
from gateway.exchange import Exchange, Peer
from gateway.operations import PutToken
from gateway.ports import Ports, Ring, settled
from gateway.pure.body import compile_selector, parse
from gateway.pure.http import request_head, response_head
from gateway.pure.metrics import Metric
from gateway.pure.request_reader import HeadLimits, read_head
from gateway.pure.response_reader import ResponseReader
from gateway.pure.routing import Found, RouteTable
from gateway.pure.served import Served
from gateway.rule import PASS, Rule
from gateway.snapshot import Route
from gateway.upstreams import Upstreams
from tests.conftest import make_exchange

ROUNDS = 7
CALLS = 2000
_AT_ONCE = 16
_PATH = "/durable"
_SELECTOR = compile_selector("$.card.number")
_HEAD_LIMITS = HeadLimits()

Step = Callable[[list[Exchange]], Awaitable[object]]
"""Does its work once for each exchange."""


@dataclass(frozen=True, slots=True)
class World:
    """What a gateway is made of, and a maker of exchanges as its listener would hand them over, body read."""

    ports: Ports
    telemetry: PrometheusTelemetry
    table: RouteTable[Route]
    rules: Mapping[str, Rule]
    exchange: Callable[[], Exchange]
    put: PutToken
    """What the tokenize rule asks the store for."""


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """`folder` is on a disk: the store's file is in it."""
    certs = folder / "certs"
    make_dev_certificates(certs)
    names = {"PORT": "0", "ADMIN": "0", "BACKEND": "9", "CERTS": str(certs), "STORE": str(folder / "micro.db")}
    config = load(CONFIG, {f"BENCH_{name}": value for name, value in names.items()})
    clock = SystemClock()
    telemetry = PrometheusTelemetry(clock, _Nowhere())
    store = open_sqlite(names["STORE"], clock=clock, telemetry=telemetry)
    key_sets, keys = JwkSets(clock, telemetry), FileKeys(certs / "vault.key")
    shared, sad, files = MemoryShared(clock), MemorySad(clock), WatchedFiles(clock, telemetry)
    ports = Ports(clock, os.urandom, store, shared, sad, keys, key_sets, telemetry, files)
    try:
        upstreams = Upstreams(clock, os.urandom, telemetry, lambda _: b"").plan(config)
        table = build(config, ports, upstreams, lambda _: b"").tables["edge"]
        found = table.match("localhost", "POST", _PATH)
        assert isinstance(found, Found)
        assert found.route.pipeline is not None
        rules = {placed.kind: placed.rule for placed in found.route.pipeline.placed}
        make = _maker(certs, keys.derived_ring("bench"))
        await settled(rules["tokenize"].on_request(first := make()))
        (put,) = first.unit
        assert isinstance(put, PutToken)
        yield World(ports, telemetry, table, rules, make, put)
    finally:
        await store.close()
        await key_sets.close()
        telemetry.close()


class _Nowhere:
    """Takes log lines."""

    def write(self, data: bytes, /) -> int:
        return len(data)

    def flush(self) -> None:
        """There is nothing."""


def _maker(certs: Path, ring: Ring) -> Callable[[], Exchange]:
    peer = Peer("127.0.0.1", ssl.PEM_cert_to_DER_cert((certs / "partner.pem").read_text()))
    length = str(len(payment()))
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {mint_token(certs)}",
        "Content-Length": length,
    }

    def make() -> Exchange:
        exchange = make_exchange("POST", _PATH, headers, peer=peer, tenant="bench")
        exchange.body, exchange.ring = payment(), ring
        return exchange

    return make


def steps(world: World) -> dict[str, Step]:
    """By name, in the order in which a request meets them."""
    rules = world.rules
    return {
        "read the head": _each(lambda x: read_head(_raw_head(x), _HEAD_LIMITS)),
        "route": _each(lambda _: world.table.match("localhost", "POST", _PATH)),
        "mtls, known certificate": _hook(rules["mtls"]),
        "jwt, known token": _hook(rules["jwt"]),
        "rate_limit": _hook(rules["rate_limit"]),
        "read and select": _each(lambda x: parse("application/json", x.body or b"").select(_SELECTOR)),
        "tokenize": _hook(rules["tokenize"]),
        "mint and seal": _each(lambda _: world.put.mint(0)),
        "store's unit, 16 at once": _storing(world),
        "request head": _each(_request_head),
        "read the response": _each(lambda _: ResponseReader("POST").feed(ANSWER)),
        "response head": _each(lambda x: response_head(201, x.request.headers, length=71, close=False)),
        "telemetry": _telling(world.telemetry),
    }


def _each(call: Callable[[Exchange], object]) -> Step:
    async def run(exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            call(exchange)

    return run


def _hook(rule: Rule) -> Step:
    async def run(exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            if await settled(rule.on_request(exchange)) is not PASS:
                raise RuntimeError(f"{type(rule).__name__} does not let the request pass")

    return run


def _raw_head(x: Exchange) -> bytes:
    return f"POST {_PATH} HTTP/1.1\r\n".encode() + b"".join(b"%b: %b\r\n" % field for field in x.request.headers)


def _request_head(x: Exchange) -> bytes:
    add = [
        b"Host: 127.0.0.1:9",
        b"X-Request-Id: " + x.id.encode(),
        b"traceparent: " + x.trace.traceparent().encode(),
    ]
    return request_head("POST", _PATH, x.request.headers, drop={b"authorization"}, add=add)


def _storing(world: World) -> Step:
    """Units of one new token each, as many at once as there are connections in `make bench`."""

    async def run(exchanges: list[Exchange]) -> None:
        for _ in range(0, len(exchanges), _AT_ONCE):
            units = [[replace(world.put)] for _ in range(_AT_ONCE)]
            await asyncio.gather(*map(world.ports.store.commit, units))

    return run


def _telling(telemetry: PrometheusTelemetry) -> Step:
    """What a request of the route tells in all, counted and written out."""

    async def run(exchanges: list[Exchange]) -> None:
        for x in exchanges:
            telemetry.count(Metric.TOKEN_CACHE, "hit")
            telemetry.count(Metric.RATELIMIT_DECISIONS, "durable-3", "allowed")
            telemetry.count(Metric.TOKENIZED, "pan", "new")
            telemetry.count(Metric.UPSTREAM_OUTCOMES, "backend", "answered")
            telemetry.observe(Metric.UPSTREAM_SECONDS, 0.0004, "backend")
            telemetry.served(
                Served(
                    x.id,
                    "edge",
                    x.route,
                    "POST",
                    201,
                    "upstream",
                    "answered",
                    blocks=[],
                    sent=True,
                    took=0.0009,
                    upstream=0.0004,
                    principal="https://idp.example|partner-1",
                    trace_id=x.trace.trace_id,
                )
            )
        telemetry.flush()

    return run


async def measure(made: World, rounds: int, calls: int) -> dict[str, float]:
    """Microseconds of CPU per call, by step."""
    listed = steps(made)
    found: dict[str, list[float]] = {name: [] for name in listed}
    for _ in range(rounds + 1):
        for name, step in listed.items():
            exchanges = [made.exchange() for _ in range(calls)]
            before = time.process_time_ns()
            await step(exchanges)
            found[name].append((time.process_time_ns() - before) / calls / 1000)
    return {name: statistics.median(samples[1:]) for name, samples in found.items()}


async def run(folder: Path, rounds: int, calls: int) -> dict[str, float]:
    async with world(folder) as made:
        return await measure(made, rounds, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS, help="of each step, in each round")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="micro-", dir=FOLDER) as folder:
        found = asyncio.run(run(Path(folder).resolve(), options.rounds, options.calls))
    publish("micro", [Row(name, value, "us CPU/call") for name, value in found.items()])


if __name__ == "__main__":
    main()
