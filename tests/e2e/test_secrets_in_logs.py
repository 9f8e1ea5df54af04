"""What is secret in a request is in no log, no metric and no answer of the gateway's own; its id is everywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.demo_world import serving
from tests.e2e.harness import Gateway, free_ports, wait_until
from tests.e2e.raw import Answer, ask
from tests.upstreams import Conversation, ScriptedUpstream, scripted

CONFIG = """\
version: 1
listeners:
  edge: {bind: "127.0.0.1:${PANGATE_EDGE_PORT}", identity: "spiffe://shop.example/payments"}
admin: {bind: "127.0.0.1:${PANGATE_ADMIN_PORT}"}
store: sqlite:var/pangate.db
keys: {key: file:certs/vault.key}
logging: {level: debug}
upstreams:
  psp: {url: "http://127.0.0.1:${PANGATE_PSP_PORT}", timeouts: {total: 20s}}
  gone: {url: "http://127.0.0.1:${PANGATE_GONE_PORT}"}
routes:
  - {name: known, listener: edge, match: {path: /known/**}, policy: known, upstream: psp}
  - {name: gone, listener: edge, match: {path: /gone/**}, policy: anyone, upstream: gone}
  - {name: keep, listener: edge, match: {path: /keep}, policy: keep, upstream: psp}
  - {name: pay, listener: edge, match: {host: psp.internal, path: /pay}, policy: pay, upstream: psp}
  - name: hooks
    listener: edge
    match: {path: /hooks}
    inbox: {provider: standard, secrets: [env:HOOK_WHSEC]}
    upstream: psp
"""
POLICIES = {
    "known": "rules:\n  - {kind: jwt, issuer: https://idp.example, audience: payments, jwks: file:certs/jwks.json}\n"
    "  - {kind: schema, body: {type: object, properties: {amount: {type: integer}}}, unknown: refuse}\n"
    "  - {kind: idempotency}\n",
    "anyone": "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n",
    "keep": "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n"
    "  - {kind: tokenize, fields: [{select: $.number, class: pan}]}\n",
    "pay": "rules:\n  - {kind: mtls, ca: certs/services-ca.pem}\n"
    "  - {kind: reveal, fields: [{select: $.number, class: pan}]}\n"
    '  - {kind: lifecycle, operation: authorize, payment: "response:$.id", amount: $.amount, currency: $.currency}\n',
}
CARD = "4242424242424242"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()


async def psp(conversation: Conversation) -> None:
    """Answers with what it was sent, a payment's id in it; what is marked so it leaves unanswered or mangled."""
    while True:
        raw = await conversation.request()
        if b"close" in raw:
            return
        if b"mangle" in raw:
            await conversation.send(b"HTTP/1.1 200 OK\r\n" + raw)
            return
        body = b'{"id": "pi_1"}'
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[Gateway, ScriptedUpstream]]:
    (folder / "policies").mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    for name, policy in POLICIES.items():
        (folder / "policies" / f"{name}.yaml").write_text(policy)
    make_dev_certificates(folder / "certs")
    async with scripted(psp) as upstream:
        ports = {**free_ports("edge", "admin", "gone"), "psp": upstream.port}
        gateway = Gateway(folder, ports, {"HOOK_WHSEC": WHSEC})
        async with serving(gateway):
            yield gateway, upstream


class Secret:
    """A word that nobody else says, in the spellings under which it might be kept."""

    def __init__(self) -> None:
        self.text = "zq" + secrets.token_hex(12)

    def spelled(self) -> list[bytes]:
        plain = self.text.encode()
        reversible = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
        return [plain, plain.hex().encode(), *reversible]


def fields(secret: str) -> dict[str, str]:
    """Secrets where a head may have them."""
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    return {
        "bearer": f"Authorization: Bearer {secret}",
        "bearer of a shape": f"Authorization: Bearer {secret}.{secret}.{secret}",
        "basic": f"Authorization: Basic {basic}",
        "dpop": f"Authorization: DPoP {secret}\r\nDPoP: {secret}",
        "two of them": f"Authorization: Bearer {secret}\r\nAuthorization: Bearer {secret}",
        "proxy": f"Proxy-Authorization: Basic {basic}",
        "cookie": f"Cookie: session={secret}",
        "a key": f"X-Api-Key: {secret}",
        "an idempotency key": f"Idempotency-Key: {secret}",
        "a request id": f"X-Request-Id: {secret}",
        "a trace": f"traceparent: 00-{secret}-{secret}-01\r\ntracestate: a={secret}",
        "a media type": f"Content-Type: application/{secret}",
        "an identity": f"X-Forwarded-User: {secret}\r\nPangate-Subject: {secret}",
        "a signature": f"Signature-Input: {secret}=()\r\nSignature: {secret}=:{secret}:",
        "of a webhook": f"webhook-id: {secret}\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,{secret}",
        "no field": secret,
        "no name": f" : {secret}",
        "a name": f"{secret}: 1",
        "beyond ASCII": f"X-Note: {secret}\xff",
        "control bytes": f"X-Note: {secret}\x01",
        "folded": f"X-Note: a\r\n {secret}",
        "a coding": f"Transfer-Encoding: {secret}",
        "a length": f"Content-Length: {secret}",
        "an expectation": f"Expect: {secret}",
        "an upgrade": f"Connection: Upgrade\r\nUpgrade: {secret}",
        "a host": f"Host: {secret}",
        "large": f"X-Note: {secret * 2000}",
    }


def requests(secret: str, bearer: str) -> dict[str, bytes]:
    """The matrix: every kind of head at a route that refuses, and at one that passes; then targets, bodies, garbage."""
    found = {}
    for name, line in fields(secret).items():
        for target in ("/known/x", "/hooks", "/nowhere"):
            found[f"{name} {target}"] = (
                f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{line}\r\nContent-Length: 0\r\n\r\n"
            )
        if "uthorization" not in line:
            head = f"GET /known/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n{line}\r\n\r\n"
            found[f"{name} passing"] = head
    close = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    for target in (
        f"/known/{secret}",
        f"/known/x?token={secret}",
        f"/{secret}",
        f"/gone/{secret}?k={secret}",
        f"/hooks?{secret}",
    ):
        found[f"target {target}"] = f"GET {target} {close}Authorization: {bearer}\r\n\r\n"
    found["user info"] = f"GET http://user:{secret}@localhost/known HTTP/1.1\r\nHost: localhost\r\n\r\n"
    found["method"] = f"{secret} / {close}\r\n"
    found["version"] = f"GET / HTTP/{secret}\r\n\r\n"
    found["garbage"] = f"\x16\x03{secret}\r\n\r\n"
    found["escaped"] = f"GET /known/%00{quote(secret)} {close}\r\n"
    for name, body in (
        ("members", f'{{"{secret}":"{secret}"}}'),
        ("broken", f'{{"{secret}'),
        ("amount", f'{{"amount":"{secret}"}}'),
    ):
        head = f"POST /known/x {close}Authorization: {bearer}\r\nContent-Type: application/json\r\n"
        found[f"body {name}"] = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
    for name in ("close", "mangle"):
        body = '{"amount":1}'
        head = f"POST /known/{name} {close}Authorization: {bearer}\r\nX-Api-Key: {secret}\r\nCookie: {secret}\r\n"
        found[f"upstream {name}"] = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return {name: text.encode("latin-1") for name, text in found.items()}


async def test_no_secret_of_a_request_is_in_the_log_nor_in_anything_the_gateway_says(tmp_path: Path) -> None:
    secret = Secret()
    async with world(tmp_path) as (gateway, upstream):
        bearer = gateway.bearer(sub="till")
        matrix = requests(secret.text, bearer)
        answers = {name: await asyncio.to_thread(ask, gateway.ports["edge"], raw) for name, raw in matrix.items()}
        wait_until(lambda: len(gateway.lines("request")) >= sum(a.status > 0 for a in answers.values()), what="the log")
        spoken = {
            path: gateway.admin(path)[1].encode()
            for path in ("/metrics", "/readyz", "/healthz", "/payments", "/events?state=pending")
        }
        reached = b"".join(upstream.requests)
    spoken |= {f"answer: {name}": answer.received for name, answer in answers.items()}
    spoken["log"] = gateway.log().encode()
    words = [
        *secret.spelled(),
        bearer.removeprefix("Bearer ").encode(),
        bearer.rpartition(".")[2].encode(),
        WHSEC[6:].encode(),
    ]
    assert [(place, word) for place, said in spoken.items() for word in words if word in said] == []
    assert secret.text.encode() in reached, "some of it passes, and is seen there"
    statuses = {answer.status for answer in answers.values()}
    assert {200, 400, 401, 404, 422, 502} <= statuses
    assert 500 not in statuses


async def test_the_search_finds_what_is_said(tmp_path: Path) -> None:
    secret = Secret()
    said = [f"a {secret.text} b", secret.text.encode().hex(), base64.b64encode(f"user:{secret.text}".encode()).decode()]
    assert all(any(word in text.encode() for word in secret.spelled()) for text in said)


def post(path: str, host: str, **members: Any) -> bytes:
    body = json.dumps(members).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: mine\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def rows(gateway: Gateway, statement: str) -> list[Any]:
    connection = apsw.Connection(str(gateway.folder / "var" / "pangate.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute(statement))
    finally:
        connection.close()


async def test_the_id_of_a_request_is_in_all_that_is_told_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as (gateway, upstream):

        async def send(raw: bytes) -> Answer:
            return await asyncio.to_thread(ask, gateway.ports["edge"], raw)

        assert (await send(post("/keep", "localhost", number=CARD))).status == 200
        token = json.loads(upstream.requests[-1].partition(b"\r\n\r\n")[2])["number"]
        paid = await send(post("/pay", "psp.internal", number=token, amount=1, currency="EUR"))
        refused = await send(post("/pay", "psp.internal", number=CARD, amount=1, currency="EUR"))
        ours = paid.header("x-request-id")
        assert (paid.status, len(ours) > 20) == (200, True)
        assert f"\r\nX-Request-Id: {ours}\r\n".encode() in upstream.requests[-1]
        assert b"mine" not in upstream.requests[-1]
        assert refused.problem()["instance"] == f"urn:pangate:request:{refused.header('x-request-id')}"
        wait_until(lambda: len(gateway.lines("request")) == 3, what="the log")
        assert [line["id"] for line in gateway.lines("request")][1:] == [ours, refused.header("x-request-id")]
    audited = {exchange for (exchange,) in rows(gateway, "SELECT exchange FROM audit WHERE exchange != ''")}
    assert audited == {ours, refused.header("x-request-id")}
    events = [json.loads(payload) for (payload,) in rows(gateway, "SELECT payload FROM outbox ORDER BY sequence")]
    assert [(event["type"], event["data"]["request"]) for event in events] == [
        ("payment.authorize.requested.v1", ours),
        ("payment.authorize.succeeded.v1", ours),
    ]
