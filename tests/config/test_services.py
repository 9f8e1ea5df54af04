"""What `pangate map` draws is what passes: for every caller, route, class of token and upstream."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.dev_certificates import mint_token
from gateway.adapters.files import WatchedFiles
from gateway.adapters.key_sets import JwkSets
from gateway.adapters.keys import read_secret
from gateway.adapters.publishers import Reading
from gateway.config.build import Config, build
from gateway.config.load import load
from gateway.exchange import Peer
from gateway.operations import OutboxEvent
from gateway.pure.boundary_drawing import draw
from gateway.pure.errors import Reason
from gateway.pure.relaying import TAKEN
from gateway.snapshot import Route
from tests.config.world import lay_out
from tests.conftest import make_exchange
from tests.rules.vault import Wire, World, reason

CONFIG = """\
version: 1
listeners:
  edge: {bind: 127.0.0.1:8443}
  egress: {bind: 127.0.0.1:8444, identity: "spiffe://shop.example/payments"}
store: sqlite:var/pangate.db
keys: {key: file:certs/vault.key}
events:
  publish:
    - {kind: redis_stream, name: books, url: "redis://127.0.0.1:6379", reader: ledger}
    - {kind: redis_stream, name: alarm, url: "redis://127.0.0.1:6379", reader: watch}
upstreams:
  payments: {url: "http://127.0.0.1:9000"}
  psp-a: {url: "https://a.example"}
  psp-b: {url: "https://b.example"}
routes:
  - {name: create, listener: edge, match: {path: /create}, policy: mutual, upstream: payments}
  - {name: app, listener: edge, match: {path: /app}, policy: token, upstream: payments}
  - {name: status, listener: edge, match: {path: /status}, policy: anyone, upstream: payments}
  - {name: charge-a, listener: egress, match: {host: a.internal, path: /**}, policy: out, upstream: psp-a}
  - {name: charge-b, listener: egress, match: {host: b.internal, path: /**}, policy: out, upstream: psp-b}
services:
  checkout: {identity: "spiffe://shop.example/checkout", calls: [create]}
  payments:
    identity: spiffe://shop.example/payments
    owns: [payments, psp-a, psp-b]
    calls: [charge-a, charge-b]
    reveals: {pan: [psp-a, psp-b], cvc: [psp-a]}
    publishes: [payment.*]
  refunds: {identity: "spiffe://shop.example/refunds", calls: [charge-a, charge-b], reveals: {pan: [psp-b]}}
  partners: {external: true, identity: "spiffe://partner.example/*", calls: [create]}
  mobile: {external: true, identity: "https://idp.example|mobile", calls: [app]}
  internet: {external: true, calls: [status]}
  ledger: {reads: [payment.*]}
  watch: {reads: [payment.review.*, payment.sale.unknown.v1]}
"""
MTLS = "  - {kind: mtls, ca: certs/partners-ca.pem}\n"
POLICIES = {
    "policies/mutual.yaml": f"rules:\n{MTLS}"
    '  - {kind: lifecycle, operation: sale, payment: "response:$.id", amount: $.amount, currency: $.currency}\n',
    "policies/token.yaml": "rules:\n  - {kind: jwt, issuer: https://idp.example, audience: payments,"
    " jwks: file:certs/jwks.json}\n",
    "policies/anyone.yaml": "rules:\n  - {kind: rate_limit, key: [peer.address], rate: 1000/second}\n",
    "policies/out.yaml": f"rules:\n{MTLS}"
    "  - {kind: reveal, fields: [{select: $.n, class: pan}, {select: $.c, class: cvc}]}\n",
}
SANS = {
    "spiffe://shop.example/checkout": "checkout",
    "spiffe://shop.example/payments": "payments",
    "spiffe://shop.example/refunds": "refunds",
    "spiffe://partner.example/acme": "partners",
    "spiffe://partner.example/acme/sub": "",
    "spiffe://shop.example/stranger": "",
}
SUBJECTS = {"mobile": "mobile", "nobody": ""}
NUMBER, CODE = "4242424242424242", "123"


class Cluster:
    """One upstream on a wire of its own."""

    def __init__(self) -> None:
        self.wire = Wire()

    def lane(self, operation: str) -> Wire:
        return self.wire

    def reserve(self) -> Wire:
        return self.wire


class Running:
    """The example as it runs, from a certificate or token to the bytes that reach an upstream."""

    def __init__(self, config: Config, world: World) -> None:
        self.config = config
        self.drawn = json.loads(draw(config.boundaries, "json")) if config.boundaries else {}
        self._world = world
        world.clock._now = time.time()
        self._upstreams = {name: Cluster() for name in config.settings.upstreams}
        ports = dataclasses.replace(
            world.ports,
            key_sets=JwkSets(world.clock, world.telemetry),
            files=WatchedFiles(world.clock, world.telemetry),
        )
        upstreams: Any = self._upstreams
        snapshot = build(config, ports, upstreams, functools.partial(read_secret, base=Path()))
        self.routes: dict[str, Route] = {}
        for route in config.settings.routes:
            path = "/x" if route.match.host else route.match.path
            found: Any = snapshot.tables[route.listener].match(route.match.host or "any.example", "POST", path)
            self.routes[route.name] = found.route

    async def call(self, route: str, peer: Peer, headers: dict[str, str], **members: str) -> tuple[str, str]:
        """The upstream that was reached and what it read, or an empty name and the reason."""
        body = json.dumps({"amount": 1, "currency": "EUR", **members}).encode()
        fields = {"Content-Type": "application/json", **headers}
        exchange = make_exchange(headers=fields, body=body, peer=peer, route=route, id=self._world.entropy(8).hex())
        pipeline = self.routes[route].pipeline
        assert pipeline is not None
        answer = await pipeline.run(exchange)
        for name, cluster in self._upstreams.items():
            if cluster.wire.sent:
                return name, cluster.wire.sent.pop().decode()
        return "", reason(answer)


@pytest.fixture
async def running(
    tmp_path: Path, dev_certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Running, World]]:
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path)
    yield Running(load(lay_out(tmp_path, dev_certificates, {"config.yaml": CONFIG, **POLICIES})), world), world
    await world.store.close()


async def test_what_is_drawn_is_what_passes(running: tuple[Running, World], dev_certificates: Path) -> None:
    gateway, world = running
    callers: list[tuple[str, Peer, dict[str, str]]] = [("", Peer("192.0.2.7"), {})]
    callers += [(name, Peer("192.0.2.7", identity=san), {}) for san, name in SANS.items()]
    for subject, name in SUBJECTS.items():
        token = mint_token(dev_certificates, {"scope": "x", "sub": subject})
        callers.append((name, Peer("192.0.2.7"), {"Authorization": f"Bearer {token}"}))
    number, wrong = await world.token(NUMBER), []
    for (service, peer, headers), route in itertools.product(callers, gateway.routes):
        paths = [p for p in gateway.drawn["paths"] if p["route"] == route and p["service"] in (service, "internet")]
        expected = paths[0]["upstream"] if paths else ""
        reached, _ = await gateway.call(route, peer, headers)
        wrong += [(service, route, reached)] if reached != expected else []
        for kind, member in (("pan", "n"), ("cvc", "c")):
            token, clear = (number, NUMBER) if kind == "pan" else (await world.code(CODE), CODE)
            reached, read = await gateway.call(route, peer, headers, **{member: token})
            revealed = bool(reached) and clear in read
            drawn = bool(paths) and kind in paths[0]["reveals"]
            wrong += [(service, route, kind, revealed)] if revealed != drawn else []
            if route.startswith("charge") and expected and not drawn:
                wrong += [(service, route, kind, read)] if read != Reason.CARD_TOKEN_NOT_ALLOWED.label else []
    assert wrong == []
    assert len(callers) * len(gateway.routes) == 45


async def test_a_caller_without_a_declared_path_reads_why(running: tuple[Running, World]) -> None:
    gateway, _ = running
    stranger = Peer("192.0.2.7", identity="spiffe://shop.example/stranger")
    assert await gateway.call("create", stranger, {}) == ("", Reason.CALLER_NOT_ALLOWED.label)


class Kept:
    """A publisher that takes all it is given."""

    name = "kept"
    concurrency = 10

    def __init__(self) -> None:
        self.kinds: set[str] = set()

    async def publish(self, events: Any, told: Any) -> None:
        for event in events:
            self.kinds.add(event.type)
            told(event, TAKEN)

    async def close(self) -> None: ...


async def test_a_reader_gets_the_events_that_are_drawn_to_it(running: tuple[Running, World]) -> None:
    gateway, _ = running
    flows = gateway.drawn["flows"]
    kinds = sorted({flow["type"] for flow in flows})
    assert len(kinds) == 7
    events = [OutboxEvent("t", str(i), "pay", kind, i, b"{}", 0.0, 0, 0.0, None) for i, kind in enumerate(kinds)]
    for name, reader in (("books", "ledger"), ("alarm", "watch")):
        told: list[str] = []
        kept: Any = Kept()
        publisher = Reading(kept, gateway.config.settings.services[reader].reads)
        await publisher.publish(events, lambda event, receipt, told=told: told.append(event.id))
        assert kept.kinds == {flow["type"] for flow in flows if flow["publisher"] == name and flow["reader"] == reader}
        assert sorted(told) == [event.id for event in events]
