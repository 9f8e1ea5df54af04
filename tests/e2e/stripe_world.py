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
from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True, slots=True, repr=False)
class Tap:
    """A relay on loopback that keeps the bytes of every request and every answer."""

    port: int
    url: str
    requests: list[bytes]
    answers: list[bytes]

    def asked(self) -> Message:
        """The last request."""
        return Message.parse(self.requests[-1])

    def answered(self) -> Message:
        """The last answer."""
        return Message.parse(self.answers[-1])


@dataclass(frozen=True, slots=True, repr=False)
class World:
    """Who listens, and every byte that the shop and the provider received."""

    gateway: Gateway
    shop: ScriptedUpstream
    provider: Tap
    """In front of the fake Stripe: it ends the gateway's TLS."""
    sidecar: Tap
    """In front of the sidecar listener, to see what the SDK itself wrote and got."""
    fake: str
    """The address of the fake Stripe itself, in clear."""
    closing: contextlib.ExitStack
    heard: list[bytes] = field(default_factory=list)
    """What the SDK got over TLS, one response each."""

    def sdk(self, identity: str | None = "shop", listener: str = "egress") -> stripe.StripeClient:
        """The SDK by the lines of the README, over TLS, as one of the certificates of certs/ or without any."""
        names = self._run(0, {"8444": self.gateway.ports[listener]})
        session: Session = names["session"]
        session.cert = identity and (self._file(f"{identity}.pem"), self._file(f"{identity}.key"))
        session.hooks["response"].append(self._hear)
        self.closing.callback(session.close)
        client: stripe.StripeClient = names["client"]
        return client

    def sdk_in_sidecar(self) -> stripe.StripeClient:
        """The SDK by the lines of the README, in clear on loopback."""
        client: stripe.StripeClient = self._run(1, {"8445": self.sidecar.port})["client"]
        return client

    def method(self, client: stripe.StripeClient, card: Mapping[str, str]) -> stripe.PaymentMethod:
        """A payment method made by the lines of the README; `card` is as the shop has it."""
        given = {"client": client, "token": card["number"], "cvc_token": card["cvc"]}
        method: stripe.PaymentMethod = self._run(2, {}, given)["method"]
        return method

    def _run(self, block: int, ports: Mapping[str, int], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a block of Python of the README as it is written, but for the ports and the folder."""
        lines = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)[block]
        for written, port in ports.items():
            assert f"localhost:{written}" in lines
            lines = lines.replace(f"localhost:{written}", f"localhost:{port}")
        names = dict(given or {})
        exec(lines.replace('"certs/', f'"{self.gateway.folder}/certs/'), names)
        return names

    def _file(self, name: str) -> str:
        return str(self.gateway.certificate(name))

    def _hear(self, response: Response, **_: Any) -> None:
        head = [f"HTTP/1.1 {response.status_code} {response.reason}", *map(": ".join, response.headers.items())]
        self.heard.append("\r\n".join(head).encode() + b"\r\n\r\n" + response.content)

    def everything_the_shop_received(self) -> bytes:
        return b"\r\n".join([*self.shop.requests, *self.heard, *self.sidecar.answers])


def _relay(port: int, answers: list[bytes]) -> Script:
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
def _serving(
    loop: asyncio.AbstractEventLoop, script: Script, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedUpstream]:
    """`scripted`, for those who do not await."""
    server = scripted(script, tls)
    started = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield started
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)


@contextlib.contextmanager
def _tapped(loop: asyncio.AbstractEventLoop, port: int, tls: ssl.SSLContext | None = None) -> Iterator[Tap]:
    answers: list[bytes] = []
    with _serving(loop, _relay(port, answers), tls) as relay:
        yield Tap(relay.port, relay.url, relay.requests, answers)


@contextlib.contextmanager
def _fake_stripe() -> Iterator[int]:
    """localstripe, in the environment that the Makefile makes."""
    subprocess.run(["make", "--silent", ".venv/peers/.ready", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    port = free_port()
    python = ROOT / ".venv" / "peers" / "bin" / "python"
    with subprocess.Popen([str(python), str(ROOT / "tests" / "e2e" / "fake_stripe.py"), str(port)]) as process:
        try:
            wait_until(lambda: listens(port) or process.poll() is not None, what="the start of the fake Stripe")
            assert process.poll() is None, "the fake Stripe ended at its start"
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def world(folder: Path, change: Callable[[Path], None] = lambda _: None) -> Iterator[World]:
    """The example in `folder`, everything of it running; `change` may edit it before."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("certs", "var"))
    make_dev_certificates(folder / "certs")
    config = (EXAMPLE / "config.yaml").read_text()
    config = config.replace("listeners:\n", f"listeners:{DOOR}").replace("routes:\n", f"routes:{DOOR_ROUTE}")
    (folder / "config.yaml").write_text(config)
    change(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certs" / "provider.pem", folder / "certs" / "provider.key")
    ports = {name: free_port() for name in ("edge", "egress", "sidecar", "door", "admin")}
    with contextlib.ExitStack() as stack:
        fake = stack.enter_context(_fake_stripe())
        loop = stack.enter_context(_loop())
        shop = stack.enter_context(_serving(loop, answering(TAKEN)))
        provider = stack.enter_context(_tapped(loop, fake, context))
        sidecar = stack.enter_context(_tapped(loop, ports["sidecar"]))
        env = {"STRIPE_URL": provider.url, "STRIPE_CA": str(folder / "certs" / "psp-ca.pem")}
        gateway = Gateway(folder, {**ports, "shop": shop.port}, env)
        stack.enter_context(running(gateway))
        yield World(gateway, shop, provider, sidecar, f"http://127.0.0.1:{fake}", stack)
