"""examples/stripe as it stands, run: a shop behind the gateway, and before it the fake Stripe behind recorded TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stripe
from requests import Response, Session

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_port, listens, running, wait_until
from tests.upstreams import Conversation, Script, ScriptedUpstream, answering, scripted

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "stripe"
TAKEN = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

# Not in the example: a listener where the policy, and not the handshake, asks for the certificate.
DOOR = """
  door:
    bind: 127.0.0.1:${PANGATE_DOOR_PORT}
    tls:
      certificate: certs/server.pem
      key: file:certs/server.key
      client_ca: certs/services-ca.pem
      client_certificate: optional
"""
DOOR_ROUTE = """
  - name: stripe-door
    listener: door
    match: {host: localhost, methods: [POST], path: /v1/refunds}
    policy: stripe-refunds
    upstream: stripe
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response as it crossed the wire, framed by Content-Length."""

    head: bytes
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Message:
        head, _, body = raw.partition(b"\r\n\r\n")
        return cls(head, body)

    @property
    def first(self) -> str:
        """Request line or status line."""
        return self.head.partition(b"\r\n")[0].decode()

    @property
    def lines(self) -> list[bytes]:
        """The header lines, as spelled, in their order."""
        return self.head.split(b"\r\n")[1:]

    @property
    def raw(self) -> bytes:
        return self.head + b"\r\n\r\n" + self.body


@dataclass
class World:
    """Who listens, and every byte that the shop and the provider received."""

    gateway: Gateway
    shop: ScriptedUpstream
    provider: ScriptedUpstream
    sidecar: ScriptedUpstream
    """In front of the sidecar listener, to see what the SDK itself wrote."""
    provider_answers: list[bytes]
    sidecar_answers: list[bytes]
    provider_address: str
    """Where the fake Stripe itself listens, in clear."""
    heard: list[bytes] = field(default_factory=list)
    """What the SDK got over TLS, one response each."""
    sessions: list[Session] = field(default_factory=list)

    def sdk(self, identity: str | None = "shop", listener: str = "egress") -> stripe.StripeClient:
        """The SDK by the lines of the README, over TLS, as one of the certificates of certs/ or without any."""
        names = _run(_lines(0), self.gateway, {"8444": self.gateway.ports[listener]})
        session: Session = names["session"]
        session.cert = None if identity is None else tuple(str(self._file(identity, kind)) for kind in ("pem", "key"))
        session.hooks["response"].append(self._hear)
        self.sessions.append(session)
        client: stripe.StripeClient = names["client"]
        return client

    def sdk_in_sidecar(self) -> stripe.StripeClient:
        """The SDK by the lines of the README, in clear on loopback."""
        client: stripe.StripeClient = _run(_lines(1), self.gateway, {"8445": self.sidecar.port})["client"]
        return client

    def _file(self, identity: str, kind: str) -> Path:
        return self.gateway.certificate(f"{identity}.{kind}")

    def _hear(self, response: Response, **_: Any) -> None:
        head = [f"HTTP/1.1 {response.status_code} {response.reason}", *map(": ".join, response.headers.items())]
        self.heard.append("\r\n".join(head).encode() + b"\r\n\r\n" + response.content)

    def asked(self) -> list[Message]:
        """What the provider received."""
        return [Message.parse(raw) for raw in self.provider.requests]

    def everything_the_shop_received(self) -> bytes:
        return b"\r\n".join([*self.shop.requests, *self.heard, *self.sidecar_answers])


def _lines(block: int) -> str:
    """A block of Python of the README."""
    return re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)[block]


def _run(lines: str, gateway: Gateway, ports: dict[str, int]) -> dict[str, Any]:
    """Run lines as they are written, but for the ports and the folder."""
    for written, port in ports.items():
        assert f"localhost:{written}" in lines
        lines = lines.replace(f"localhost:{written}", f"localhost:{port}")
    names: dict[str, Any] = {}
    exec(lines.replace('"certs/', f'"{gateway.folder}/certs/'), names)
    return names


def relay(port: int, answers: list[bytes]) -> Script:
    """Pass each request on to a port of loopback, and the answer back, recorded."""

    async def script(conversation: Conversation) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                writer.write(await conversation.request())
                answer = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", answer, re.IGNORECASE)
                answer += await reader.readexactly(int(length[1]) if length else 0)
                answers.append(answer)
                await conversation.send(answer)
        finally:
            writer.close()

    return script


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def _serving(loop: asyncio.AbstractEventLoop, script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    """`scripted`, for those who do not await."""
    server = scripted(script, tls)
    started = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield started
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)


@contextlib.contextmanager
def _fake_stripe() -> Iterator[int]:
    """localstripe, in the environment that the Makefile makes."""
    subprocess.run(["make", "--silent", ".venv/peers/.ready", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    port = free_port()
    python = ROOT / ".venv" / "peers" / "bin" / "python"
    with subprocess.Popen([str(python), str(ROOT / "tests" / "e2e" / "fake_stripe.py"), str(port)]) as process:
        try:
            wait_until(lambda: listens(port), what="the start of the fake Stripe")
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """The example in `folder`, everything of it running."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("certs", "var"))
    make_dev_certificates(folder / "certs")
    config = (EXAMPLE / "config.yaml").read_text()
    config = config.replace("listeners:\n", f"listeners:{DOOR}").replace("routes:\n", f"routes:{DOOR_ROUTE}")
    (folder / "config.yaml").write_text(config)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certs" / "provider.pem", folder / "certs" / "provider.key")
    ports = {name: free_port() for name in ("edge", "egress", "sidecar", "door", "admin")}
    provider_answers: list[bytes] = []
    sidecar_answers: list[bytes] = []
    with contextlib.ExitStack() as stack:
        fake = stack.enter_context(_fake_stripe())
        loop = stack.enter_context(_loop())
        shop = stack.enter_context(_serving(loop, answering(TAKEN)))
        provider = stack.enter_context(_serving(loop, relay(fake, provider_answers), context))
        sidecar = stack.enter_context(_serving(loop, relay(ports["sidecar"], sidecar_answers)))
        env = {"STRIPE_URL": provider.url, "STRIPE_CA": str(folder / "certs" / "psp-ca.pem")}
        gateway = Gateway(folder, {**ports, "shop": shop.port}, env)
        stack.enter_context(running(gateway))
        this = World(gateway, shop, provider, sidecar, provider_answers, sidecar_answers, f"http://localhost:{fake}")
        stack.callback(lambda: [session.close() for session in this.sessions])
        yield this
