"""An inbox with everything real behind it but time: SQLite in memory, keys from a file, the pooled upstream client."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.adapters.keys import FileKeys, generate_key
from gateway.adapters.sqlite import SqliteStore, open_sqlite
from gateway.adapters.upstream import HttpUpstream
from gateway.exchange import Request
from gateway.operations import Delivery, DueDeliveries, DueRow
from gateway.ports import Ports, Response
from gateway.pure.webhooks import Scheme
from gateway.server.inbox import InboxReceiver
from gateway.snapshot import Inbox, Route
from gateway.webhooks import standard, stripe
from tests.conftest import CountingEntropy, HandClock, Recorder, make_exchange

NOW = 1_800_000_000
SECRET = b"whsec_4f1c7d0f6b1e4c0e9b7a2f55c0ffee01"
SHARED = b"whsec_" + b"a" * 32
SIGNING_KEY = bytes(range(32))
EVENT = b'{"id":"evt_1","object":"event","livemode":false}'


def stripe_fields(body: bytes = EVENT, t: int = NOW) -> dict[str, str]:
    mac = hmac.new(SECRET, f"{t}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={t},v1={mac}", "Content-Type": "application/json"}


@dataclass
class InboxWorld:
    clock: HandClock
    telemetry: Recorder
    store: SqliteStore
    ports: Ports
    routes: dict[str, Route]
    woken: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.receiver = InboxReceiver(self.ports, lambda: self.woken.append(self.clock.now()))

    async def receive(
        self, body: bytes = EVENT, headers: dict[str, str] | None = None, *, route: str = "stripe-hooks"
    ) -> Response:
        """What the provider is answered to a delivery; genuine unless `headers` say otherwise."""
        request = self.request(body, stripe_fields(body, int(self.clock.now())) if headers is None else headers)
        return await self.receiver.receive(request, body, self.routes[route], "req-1")

    def request(self, body: bytes, headers: dict[str, str]) -> Request:
        return replace(make_exchange("POST", "/hooks", headers, body).request, received_at=self.clock.now())

    async def due(self) -> DueRow:
        asked = DueDeliveries(now=self.clock.now(), limit=1000, lease=0.0)
        return (await self.store.commit([asked]))[asked]

    def opened(self, delivery: Delivery) -> bytes:
        return self.ports.keys.open(delivery.tenant, "inbox", delivery.sealed, delivery.id.encode())

    def result(self, value: str, provider: str = "stripe") -> float:
        """How many deliveries had this verdict."""
        return sum(n for (metric, labels), n in self.telemetry.counts.items() if labels == (provider, value))


@asynccontextmanager
async def inbox_world(folder: Path, url: str = "http://127.0.0.1:9") -> AsyncIterator[InboxWorld]:
    """A world whose backend is at `url`."""
    clock, telemetry = HandClock(NOW), Recorder()
    key_file = folder / "vault.key"
    key_file.touch(mode=0o600)
    key_file.write_text(generate_key())
    store = open_sqlite(":memory:", clock=clock, telemetry=telemetry)
    unused: Any = None
    ports = Ports(
        clock=clock,
        entropy=CountingEntropy(),
        store=store,
        shared=unused,
        sad=unused,
        keys=FileKeys(key_file),
        key_sets=unused,
        telemetry=telemetry,
        files=unused,
    )
    backend = HttpUpstream("payments", url, clock=clock)
    try:
        yield InboxWorld(clock, telemetry, store, ports, _routes(backend))
    finally:
        await backend.close()
        await store.close()


def _routes(backend: Any) -> dict[str, Route]:
    schemes: dict[str, tuple[str, Scheme, bytes]] = {
        "stripe-hooks": ("stripe", stripe, SECRET),
        "standard-hooks": ("standard", standard, SHARED),
    }
    return {
        name: Route(name, "default", inbox=Inbox(provider, scheme, [key], 300, backend, f"/{name}", SIGNING_KEY))
        for name, (provider, scheme, key) in schemes.items()
    }
