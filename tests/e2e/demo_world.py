"""The demo's configuration in a folder of its own, with upstreams that a test plays."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from examples.demo.wire import Answer, Client
from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports

CARD = "4242424242424242"
JSON = {"Content-Type": "application/json"}
ROOT = Path(__file__).parents[2]
_PARTS = ("config.yaml", "policies", "examples/demo/provider.whsec", "examples/demo/standard.whsec")


def demo_folder(folder: Path, more: str = "") -> Path:
    """All that the demo's gateway reads, its certificates included; `more` is added to the end of config.yaml."""
    for part in _PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    with (folder / "config.yaml").open("a") as config:
        config.write(more)
    make_dev_certificates(folder / "certs")
    return folder


def demo_gateway(folder: Path, **upstreams: int) -> Gateway:
    """A gateway on free ports, not started yet. `shop` and `provider` are where the test itself listens."""
    return Gateway(folder, {**free_ports("edge", "egress", "sidecar", "admin", "shop", "provider"), **upstreams})


def provider_context(folder: Path) -> ssl.SSLContext:
    """TLS of the provider that the egress routes of a `demo_folder` lead to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certs" / "provider.pem", folder / "certs" / "provider.key")
    return context


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Started, for a test whose upstreams live in its own event loop."""
    await asyncio.to_thread(gateway.start, "admin")
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.stop)


@contextmanager
def caller(gateway: Gateway, listener: str, identity: str, host: str = "localhost") -> Iterator[Client]:
    """A connection that is closed at the end."""
    client = gateway.client(listener, identity, host)
    try:
        yield client
    finally:
        client.close()


def pay(gateway: Gateway, client: Client, key: str) -> Answer:
    """A payment over this connection, under an idempotency key, by a till of its own (so that no rate limit is met)."""
    headers = {"Authorization": gateway.bearer(sub=f"till-{key}"), "Idempotency-Key": key}
    body = {"amount": 1, "currency": "EUR", "card": {"number": CARD}}
    return client.ask("POST", "/v1/payments", {**headers, **JSON}, json.dumps(body).encode())
