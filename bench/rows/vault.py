"""`tokenize_one`, `tokenize_many`, `token_rate`, `reveal_latency`: what the vault costs a request.

- `tokenize_one`: CPU of the rule for one card in a JSON body of 431 bytes: read, select, fingerprint, draw, seal, put
  in its place. `tokenize_many`: of 100 cards in 64 KiB. In this process, with the cycle collector as in a gateway, and
  without the store, whose units have their own rows.
- `token_rate`: requests a second by the clock through the whole gateway on one core, over 64 connections, each a card
  whose new token is on the disk before anything is forwarded.
- `reveal_latency`: what the gateway adds to the median answer of the backend itself, one request at a time, on a route
  that reveals a card: the record of who, what and to whom is on the disk before a byte leaves. Each card is checked.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from bench.backend import CARD
from bench.loader import Load, Target
from bench.micro import World, world
from bench.processes import LOADER_CORE, free_port
from bench.report import Row, at_least, at_most
from bench.rounds import WARM_UP
from bench.rows.growth_tokens import card
from bench.rows.latency import direct_microseconds
from bench.stage import CONFIG, PYTHON, Proxy, Stage, payment, post
from gateway.exchange import splice
from gateway.operations import PutToken, Rows, TokenRow
from gateway.ports import settled
from gateway.rule import PASS, Place, Rule
from gateway.rules import tokenize
from gateway.start import calm_collector
from tests.conftest import make_exchange

IDS = ("tokenize_one", "tokenize_many", "token_rate", "reveal_latency")
VAULT = CONFIG.parent / "vault" / "config.yaml"
CALLS = {"one": 1000, "many": 50}
CONNECTIONS = 64
REQUESTS = 6000
LONE_REQUESTS = 600
MANY, MANY_BYTES = 100, 64 * 1024
GOALS = {"tokenize_one": 20.0, "tokenize_many": 1500.0, "token_rate": 2000.0, "reveal_latency": 1500.0}
_PLACE = Place("bench", "bench", 1, "backend", "", egress=False)


async def measure(stage: Stage, rounds: int) -> list[Row]:
    found: dict[str, list[float]] = defaultdict(list)
    async with world(stage.folder / "micro") as made:
        bodies = {"one": (payment(), "$.card.number"), "many": (many_cards(), "$.cards[*].number")}
        for _ in range(rounds + 1):
            for name, (body, select) in bodies.items():
                found[name].append(await microseconds(made, body, select, CALLS[name]))
    for name in bodies:
        del found[name][0]  # caches were cold
    durable = stage.pangate()
    echo = free_port()
    stage.start("echo", [*PYTHON, "bench.backend", "--port", str(echo), "--echo"], echo, LOADER_CORE)
    vault = stage.pangate(VAULT, "vault", BENCH_BACKEND=str(echo))
    reveal = revealing(stage, vault)
    for _ in range(rounds):
        for name, value in rate(durable, stage.work(durable, "durable")).items():
            found[name].append(value)
        found["revealed"].append(alone(reveal))
        found["direct"].append(direct_microseconds(echo, is_paid))
    return rows(found)


def rows(found: Mapping[str, Sequence[float]]) -> list[Row]:
    """`found` has a value a round of each figure."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    added = statistics.median(a - b for a, b in zip(found["revealed"], found["direct"], strict=True))
    without, busy = "without the store", f"busy {middle['busy']:.0%} of its core"
    return [
        at_most("tokenize_one", middle["one"], GOALS["tokenize_one"], "us CPU", f"431 bytes, {without}"),
        at_most("tokenize_many", middle["many"], GOALS["tokenize_many"], "us CPU", f"{MANY} in 64 KiB, {without}"),
        at_least("token_rate", middle["rate"], GOALS["token_rate"], "new tokens/s", busy),
        at_most("reveal_latency", added, GOALS["reveal_latency"], "us", "to the backend's own, without TLS"),
    ]


def many_cards() -> bytes:
    """A JSON body of 64 KiB with cards that are all different."""
    cards = [{"number": card(number).decode(), "note": ""} for number in range(MANY)]
    room = MANY_BYTES - len(orjson.dumps({"cards": cards}))
    for each in cards:
        each["note"] = "x" * (room // MANY)
    cards[0]["note"] += "x" * (room % MANY)
    return orjson.dumps({"cards": cards})


async def microseconds(made: World, body: bytes, select: str, calls: int) -> float:
    """CPU of this process for a request, as the rule sees it."""
    settings = tokenize.Settings.model_validate({"kind": "tokenize", "fields": [{"select": select, "class": "pan"}]})
    rule = tokenize.Tokenize.provision(settings, made.ports, _PLACE)
    exchanges = [make_exchange(headers={"Content-Type": "application/json"}, tenant="bench") for _ in range(calls)]
    ring = await settled(made.ports.keys.ring("bench"))
    for exchange in exchanges:
        exchange.ring = ring
        exchange.body = body
    with calm():
        before = time.process_time_ns()
        for exchange in exchanges:
            await tokenized(rule, exchange)
        return (time.process_time_ns() - before) / calls / 1000


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """The cycle collector as a gateway has it."""
    before = gc.get_threshold()
    calm_collector()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def tokenized(rule: Rule, exchange: Any) -> bytes:
    """The body as it would be forwarded: the vault's part is played here, and takes the first token it is offered.

    Raises RuntimeError if the rule lets it not pass.
    """
    passed = await settled(rule.on_request(exchange)) is PASS
    rows = Rows(exchange.unit)
    for operation in exchange.unit:
        assert isinstance(operation, PutToken)
        rows.answered.append(TokenRow(token=operation.mint(0).token, new=True))
    if not passed or await settled(rule.on_prepared(exchange, rows.answered)) is not PASS:
        raise RuntimeError("the rule does not let the request pass")
    return splice(exchange.body, exchange.edits, rows)


def rate(proxy: Proxy, target: Target) -> dict[str, float]:
    """Requests a second, and what part of the time the proxy was on its core."""
    load = Load(target)
    try:
        load.connect(CONNECTIONS)
        load.run(CONNECTIONS * WARM_UP)
        cpu, began = proxy.cpu(), time.perf_counter()
        load.run(REQUESTS)
        took, busy = time.perf_counter() - began, proxy.cpu() - cpu
    finally:
        load.close()
    return {"rate": REQUESTS / took, "busy": busy / took / 1e9}


def revealing(stage: Stage, proxy: Proxy) -> Target:
    """A payment with a token of this gateway; right is the answer that has the card again."""
    answered: list[bytes] = []

    def is_tokenized(head: bytes, body: bytes) -> bool:
        answered.append(body)
        return head.startswith(b"HTTP/1.1 201") and CARD not in body

    alone(Target(proxy.port, stage.context, post("/tokenize"), is_tokenized), 1, 0)
    return Target(proxy.port, stage.context, post("/reveal", body=answered[0]), is_paid)


def is_paid(head: bytes, body: bytes) -> bool:
    """The card arrived, and everything else as it was sent."""
    return head.startswith(b"HTTP/1.1 201") and body == payment()


def alone(target: Target, requests: int = LONE_REQUESTS, warm_up: int = WARM_UP) -> float:
    """The median time of an answer over one connection, in microseconds."""
    load = Load(target)
    try:
        load.connect(1)
        if warm_up:
            load.run(warm_up)
        return statistics.median(load.run(requests)) / 1000
    finally:
        load.close()
