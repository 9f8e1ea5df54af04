"""One gateway on the demo's configuration with a few routes more, behind and before services that a test plays."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.certificates import private_pem
from tests.credentials import Authority, private_key
from tests.e2e.demo_world import CARD, demo_folder, demo_gateway, provider_context, serving
from tests.e2e.harness import Gateway, free_port
from tests.e2e.raw import Answer, ask
from tests.upstreams import Conversation, Script, ScriptedUpstream, scripted

EGRESS_HOST = "provider.egress.internal"
ROUTES = """
  - {name: bare, listener: edge, match: {host: api.example, path: /v1/**}, policy: bare, upstream: payments}
  - {name: forms, listener: edge, match: {methods: [POST], path: /v1/forms}, policy: forms, upstream: payments}
  - {name: gone, listener: edge, match: {path: /v1/gone}, policy: bare, upstream: gone}
  - {name: impostor, listener: edge, match: {path: /v1/impostor}, policy: bare, upstream: impostor}
  - {name: foreign, listener: egress, tenant: other, match: {host: psp.egress.internal, path: /v1/**},
     policy: provider-out, upstream: provider}
"""
UPSTREAMS = """
  gone: {url: "http://127.0.0.1:${PANGATE_GONE_PORT}"}
  impostor: {url: "https://localhost:${PANGATE_SHOP_PORT}", tls: {ca: certs/psp-ca.pem}}

policies:"""
NEVER_OPEN = "{minimum_number_of_calls: 1000000}"
"""So many bad answers in a row would open a breaker."""
POLICIES = {
    "bare": "rules:\n  - {kind: tokenize, fields: [{select: $.card.number, class: pan}]}\n",
    "forms": "rules:\n  - {kind: tokenize, fields: [{select: 'card[number]', class: pan}]}\n",
}
KEPT_SECONDS = 1
"""How long a security code waits to be revealed."""
PAYMENT = {"amount": 1, "currency": "EUR", "card": {"number": CARD, "cvc": "737"}}


def created(**content: object) -> bytes:
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


async def takes(conversation: Conversation) -> None:
    """How the services answer unless a test says otherwise."""
    await conversation.send(created(id="pay_1"))


def request(line: str, body: bytes = b"", fields: Mapping[str, str | None] | None = None, host: str = "") -> bytes:
    """`fields` come on top of Host and Content-Length; None leaves one out."""
    given: dict[str, str | None] = {"Host": host or "localhost", "Content-Type": "application/json"}
    given |= {"Content-Length": str(len(body))} if body else {}
    given |= fields or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    return f"{line} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


@dataclass
class Stage:
    """Who asks, and what the services behind do with each request: `behave`."""

    gateway: Gateway
    shop: ScriptedUpstream
    provider: ScriptedUpstream
    behave: Script = takes
    _contexts: dict[str | None, ssl.SSLContext] = field(default_factory=dict)
    _keys: itertools.count[int] = field(default_factory=itertools.count)

    def forwarded(self) -> int:
        return len(self.shop.requests) + len(self.provider.requests)

    async def ask(self, raw: bytes, listener: str = "edge", identity: str | None = "partner") -> Answer:
        if identity not in self._contexts:
            self._contexts[identity] = self.gateway.trust(identity)
        port = self.gateway.ports[listener]
        return await asyncio.to_thread(ask, port, raw, self._contexts[identity])

    async def pay(self, body: object = None, **fields: str | None) -> Answer:
        """A payment that is right in all but what is given; `body` may be bytes. A till of its own sends it."""
        content = body if isinstance(body, bytes) else json.dumps(PAYMENT if body is None else body).encode()
        key = str(next(self._keys))
        given = {"Authorization": self.gateway.bearer(sub=f"till-{key}"), "Idempotency_Key": key, **fields}
        spelled = {name.replace("_", "-"): value for name, value in given.items()}
        return await self.ask(request("POST /v1/payments", content, spelled))

    async def charge(self, card: object, host: str = EGRESS_HOST) -> Answer:
        """By the shop, with these tokens."""
        body = json.dumps({"amount": 1, "currency": "EUR", "card": card}).encode()
        return await self.ask(request("POST /v1/charges", body, host=host), "egress", "shop")

    async def tokens(self) -> dict[str, str]:
        """Of a new payment, as the shop got them."""
        assert (await self.pay()).status == 201
        card: dict[str, str] = json.loads(self.shop.requests[-1].partition(b"\r\n\r\n")[2])["card"]
        return card

    async def read(self, payment: str) -> Answer:
        reader = {"Authorization": self.gateway.bearer("payments:read")}
        return await self.ask(request(f"GET /v1/payments/{payment}", fields=reader))

    def partners(self) -> Authority:
        """The authority whose certificates the edge listener takes."""
        key: Any = load_pem_private_key(self.gateway.certificate("partners-ca.key").read_bytes(), None)
        return Authority(x509.load_pem_x509_certificate(self.gateway.certificate("partners-ca.pem").read_bytes()), key)

    def present(self, name: str, certificate: bytes, key: Any = None) -> str:
        """Put a certificate (DER) where `ask` finds it as an identity; its name."""
        pem = ssl.DER_cert_to_PEM_cert(certificate)
        self.gateway.certificate(f"{name}.pem").write_text(pem)
        self.gateway.certificate(f"{name}.key").write_bytes(private_pem(key or private_key("ES256", 7)))
        return name

    def secret(self, provider: str) -> str:
        return (self.gateway.folder / "examples" / "demo" / f"{provider}.whsec").read_text().strip()


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """At the end the gateway's log must hold nothing but lines of events, and no crash among them."""
    demo_folder(folder, ROUTES)
    for name, text in POLICIES.items():
        (folder / "policies" / f"{name}.yaml").write_text(text)
    rewrite(
        folder / "config.yaml", "\npolicies:", UPSTREAMS, "connect: 1s", "connect: 1s, first_byte: 300ms, idle: 300ms"
    )
    rewrite(folder / "config.yaml", "    timeouts:", f"    breaker: {NEVER_OPEN}\n    timeouts:")
    rewrite(folder / "policies" / "card-payments.yaml", "class: cvc}", f"class: cvc}}\n    cvc_keep: {KEPT_SECONDS}s")

    async def behave(conversation: Conversation) -> None:
        """As told when the request comes, which may be long after the connection."""
        await conversation.request()
        await stage.behave(conversation)

    async with scripted(behave) as shop, scripted(behave, provider_context(folder)) as provider:
        made = demo_gateway(folder, shop=shop.port, provider=provider.port, gone=free_port())
        async with serving(made) as gateway:
            stage = Stage(gateway, shop, provider)
            yield stage
    events = [json.loads(line)["event"] for line in gateway.log().splitlines()]
    assert set(events) <= {"started", "request", "audit_head", "draining", "stopped"}


def rewrite(path: Path, *replacements: str) -> None:
    """Pairs of old and new; each old must be there."""
    text = path.read_text()
    for old, new in zip(replacements[::2], replacements[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def check_problem(answer: Answer, status: int, reason: str, outcome: str = "") -> None:
    """A problem document (RFC 9457) with all that we promise, under the id that the answer carries."""
    problem = answer.problem()
    assert (answer.status, problem.get("type")) == (status, f"urn:pangate:problem:{reason}"), answer.received[-300:]
    assert problem["status"] == status
    assert problem["instance"] == f"urn:pangate:request:{answer.header('x-request-id')}"
    assert problem["title"]
    assert problem["error"] == {"type": problem["error"]["type"], "code": reason, "message": problem["detail"]}
    assert problem.get("outcome", "") == outcome


def corpus(name: str) -> list[dict[str, Any]]:
    """A file of `tests/data`."""
    lines = (Path(__file__).parents[1] / "data" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def refuses(stage: Stage, asked: Callable[[], Any], status: int, reason: str) -> None:
    """With this problem document, and nothing of it reaches a service."""
    before = stage.forwarded()
    check_problem(await asked(), status, reason)
    assert stage.forwarded() == before


def now() -> int:
    return int(time.time())
