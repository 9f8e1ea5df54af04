"""Every board and every alert has something to look at: their queries, asked of a real Prometheus about a real run."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP

import jwt
import pytest

from examples.demo.provider import sign
from examples.demo.wire import Answer
from tests.deploy_queries import Query, dashboard_queries, watched_queries
from tests.e2e.demo_world import CARD, JSON, caller, demo_folder, demo_gateway, provider_context, serving
from tests.e2e.harness import Gateway, free_port, wait_until
from tests.e2e.prometheus import Prometheus, find_prometheus, running_prometheus
from tests.servers import VOLATILE, RunningRedis, running_redis
from tests.upstreams import Conversation, ScriptedUpstream, scripted

EGRESS_HOST = "provider.egress.internal"
ROUTES = """
  - {name: tried, listener: edge, match: {methods: [POST], path: /v1/tried}, policy: tried, upstream: payments}
  - {name: lax, listener: edge, match: {methods: [POST], path: /v1/lax}, policy: lax, upstream: payments}
  - {name: told, listener: edge, match: {methods: [POST], path: /v1/told}, policy: told, upstream: payments}
  - {name: listed, listener: edge, match: {methods: [POST], path: /v1/listed}, policy: listed, upstream: payments}
  - {name: broken, listener: edge, match: {methods: [POST], path: /v1/broken}, policy: bare, upstream: broken}
  - {name: halved, listener: edge, match: {methods: [POST], path: /v1/halved}, policy: bare, upstream: halved}
  - name: doubted
    listener: edge
    match: {methods: [POST], path: /v1/doubted}
    policy: doubted
    upstream: payments
    in_doubt: replay
  - name: facts
    listener: edge
    match: {methods: [POST], path: /hooks/facts}
    inbox:
      provider: stripe
      secrets: ["file:examples/demo/provider.whsec"]
      facts: {mapping: stripe, upstream: payments}
    upstream: payments
"""
UPSTREAMS = """
  broken:
    url: http://127.0.0.1:${PANGATE_SHOP_PORT}
    breaker: {minimum_number_of_calls: 1, wait_duration_in_open_state: 1h}
    health: {active: {path: /not-now, unhealthy_threshold: 1}}
  halved:
    url: http://127.0.0.1:${PANGATE_SHOP_PORT}
    endpoints: [{address: "127.0.0.1:${PANGATE_SHOP_PORT}"}, {address: "127.0.0.1:${PANGATE_NOBODY_PORT}"}]
    health: {passive: {consecutive_5xx: 1, base_ejection_time: 1ms}}

policies:"""
"""One that is not well and whose breaker opens with the first failure, and one that nobody serves half of."""
EVENTS = """
events:
  publish:
    - {kind: redis_stream, url: "%s"}
    - kind: webhook
      url: "http://127.0.0.1:${PANGATE_SHOP_PORT}/never"
      secret: file:examples/demo/standard.whsec
      allow_http: true
      allow_private: true
"""
"""The shop wants none: all events are parked, or wait behind one that is."""
POLICIES = {
    "bare": """
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, san: ["spiffe://shop.example/*"]}
""",
    "tried": """
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, san: ["spiffe://shop.example/*"]}
  - {kind: rate_limit, key: [principal], rate: 1/hour, mode: report}
""",
    "lax": """
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, san: ["spiffe://shop.example/*"]}
  - {kind: rate_limit, key: [principal], rate: 1/hour, on_store_error: local}
""",
    "listed": """
rules:
  - kind: jwt
    issuer: https://idp.example
    audience: payments
    jwks: file:certs/jwks.json
    revocations: revoked.json
""",
    "doubted": """
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, san: ["spiffe://shop.example/*"]}
  - {kind: idempotency, required: true}
""",
    "told": """
rules:
  - {kind: mtls, ca: certs/partners-ca.pem, san: ["spiffe://shop.example/*"]}
  - {kind: lifecycle, operation: authorize, payment: "response:$.id", amount: $.amount, currency: $.currency}
""",
}


REVOKED = '{"sub": {"partner-1": 9999999999}}'


def created(**content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def empty(status: int) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status


async def shop(conversation: Conversation) -> None:
    """Takes payments and webhooks; breaks off, or refuses, where the request says so."""
    while True:
        request = await conversation.request()
        if b"break-off" in request:
            conversation.reset()
            return
        refusals = (status for word, status in ((b"not-now", 503), (b"never", 410)) if word in request)
        await conversation.send(next((empty(status) for status in refusals), created(id="pay_1")))


async def provider(conversation: Conversation) -> None:
    """Quotes the card number that it was given."""
    while True:
        await conversation.request()
        await conversation.send(created(card={"number": CARD}))


@dataclass
class Run:
    """The gateway, and all that one can do to it, good and bad."""

    gateway: Gateway
    behind: ScriptedUpstream
    redis: RunningRedis
    bearer: str
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def everything(self) -> None:
        """Each counter of the gateway moves, but for those that tell of a store that is down."""
        self.payments()
        self.charges()
        self.events()
        self.doubts()
        self.webhooks()
        self.facts()
        self.limits()
        self.failing_upstreams()
        self.callers_unknown()
        self.revocations()
        self.reloads()
        self.certificates()

    def payments(self) -> None:
        """New, repeated, its key used for another one, and one that the shop breaks off."""
        key = f"key-{next(self._numbers)}"
        asked = [self._pay(key), self._pay(key), self._pay(key, "another"), self._pay(key + "-2", "break-off")]
        assert [answer.status for answer in asked] == [201, 201, 422, 502]

    def _pay(self, key: str, note: str = "") -> Answer:
        headers = {**JSON, "Authorization": self.bearer, "Idempotency-Key": key}
        content = {"amount": 1, "currency": "EUR", "note": note, "card": {"number": CARD, "cvc": "737"}}
        with caller(self.gateway, "edge", "partner") as client:
            return client.ask("POST", "/v1/payments", headers, json.dumps(content).encode())

    def charges(self) -> None:
        """With tokens, with the same code again, and with a token that was never given out."""
        card = json.loads(self.behind.requests[-1].partition(b"\r\n\r\n")[2])["card"]
        unknown = {"number": "tok_live_" + "1" * 26}
        with caller(self.gateway, "egress", "shop", EGRESS_HOST) as client:
            for content, status in ((card, 201), (card, 422), (unknown, 422)):
                body = json.dumps({"card": content}).encode()
                assert client.ask("POST", "/v1/charges", JSON, body).status == status

    def events(self) -> None:
        """Of a payment: one for the request, one for the answer."""
        with caller(self.gateway, "edge", "partner") as client:
            assert client.ask("POST", "/v1/told", JSON, b'{"amount": 1, "currency": "EUR"}').status == 201

    def doubts(self) -> None:
        """A request that the shop breaks off, however often it is sent."""
        with caller(self.gateway, "edge", "partner") as client:
            headers = {**JSON, "Idempotency-Key": f"key-{next(self._numbers)}"}
            assert client.ask("POST", "/v1/doubted", headers, b'{"note": "break-off"}').status == 502

    def webhooks(self) -> None:
        """Taken, taken before, refused by the shop for now and for ever; and a forged one."""
        number = next(self._numbers)
        for text in ("fine", "fine", "not-now", "never"):
            assert self._deliver(text, number, "provider.whsec").status == 200
        assert self._deliver("forged", number, "standard.whsec").status == 400

    def facts(self) -> None:
        """What the provider tells of a payment."""
        intent = {"id": "pi_1", "amount": 1, "amount_received": 1, "currency": "eur"}
        event = {"id": f"evt-{next(self._numbers)}", "type": "payment_intent.succeeded", "data": {"object": intent}}
        assert self._tell("/hooks/facts", json.dumps(event).encode(), "provider.whsec").status == 200

    def _deliver(self, text: str, number: int, secret: str) -> Answer:
        body = json.dumps({"id": f"evt-{text}-{number}", "type": "charge.succeeded"}).encode()
        return self._tell("/hooks/provider", body, secret)

    def _tell(self, path: str, body: bytes, secret: str) -> Answer:
        key = (self.gateway.folder / "examples" / "demo" / secret).read_text().strip()
        with caller(self.gateway, "edge", None) as client:
            return client.ask("POST", path, {"Stripe-Signature": sign(key, int(time.time()), body)}, body)

    def limits(self) -> None:
        """Passed, reported, and refused."""
        with caller(self.gateway, "edge", "partner") as client:
            for path, statuses in (("/v1/tried", {201}), ("/v1/lax", {201, 429})):
                assert {client.ask("POST", path, JSON, b"{}").status for _ in range(2)} <= statuses

    def failing_upstreams(self) -> None:
        """A breaker that is open, or opens; an endpoint that is ejected once more, and a call made once more for it."""
        with caller(self.gateway, "edge", "partner") as client:
            for _ in range(2):
                assert client.ask("POST", "/v1/broken", JSON, b'"not-now"').status == 503
            before = self.gateway.metric("pangate_upstream_ejections_total")
            while self.gateway.metric("pangate_upstream_ejections_total") == before:
                assert client.ask("POST", "/v1/halved", JSON, b"{}").status == 201

    def callers_unknown(self) -> None:
        """No certificate, one of another authority, and a token signed with a key that nobody publishes."""
        with caller(self.gateway, "edge", None) as client:
            assert client.ask("POST", "/v1/payments", JSON, b"{}").status == 401
        with suppress(ssl.SSLError, ConnectionError), caller(self.gateway, "edge", "shop") as client:
            client.ask("POST", "/v1/payments", JSON, b"{}")
        before = self.gateway.metric("pangate_jwks_refreshes_total")
        wait_until(lambda: self._ask_with_strange_key() > before, what="a fetch of the key set")

    def _ask_with_strange_key(self) -> float:
        signer = self.gateway.certificate("jwt-issuer.key").read_bytes()
        token = jwt.encode({}, signer, "ES256", headers={"typ": "at+jwt", "kid": "strange"})
        with caller(self.gateway, "edge", "partner") as client:
            headers = {**JSON, "Authorization": f"Bearer {token}"}
            assert client.ask("POST", "/v1/payments", headers, b"{}").status == 401
        return self.gateway.metric("pangate_jwks_refreshes_total")

    def revocations(self) -> None:
        """A list that cannot be read, then one that names the caller, then one that names nobody."""
        for content, result, status in (("", "rejected", 201), (REVOKED, "applied", 401), ("{}", "applied", 201)):
            before = self._reloads(result)
            (self.gateway.folder / "revoked.json").write_text(content)
            wait_until(lambda: self._ask_listed() == status and self._reloads(result) > before)  # noqa: B023

    def _ask_listed(self) -> int:
        with caller(self.gateway, "edge", None) as client:
            return client.ask("POST", "/v1/listed", {**JSON, "Authorization": self.bearer}, b"{}").status

    def _reloads(self, result: str) -> float:
        return self.gateway.metric("pangate_file_reloads_total", result=result)

    def reloads(self) -> None:
        """One that is refused, then one that is applied."""
        config = self.gateway.folder / "config.yaml"
        good = config.read_text()
        for result, text in (("rejected", good + "nonsense: true\n"), ("applied", good)):
            before = self.gateway.metric("pangate_config_reloads_total", result=result)
            config.write_text(text)
            self.gateway.signal(SIGHUP)
            wait_until(lambda: self.gateway.metric("pangate_config_reloads_total", result=result) > before)  # noqa: B023

    def certificates(self) -> None:
        """One is replaced, which is the same but for a line without meaning."""
        file = self.gateway.folder / "certs" / "server.pem"
        before = self.gateway.metric("pangate_certificate_renewals_total", name="edge")
        file.write_bytes(file.read_bytes() + b"\n")
        wait_until(lambda: self.gateway.metric("pangate_certificate_renewals_total", name="edge") > before)

    def without_redis(self) -> None:
        """Refused where the policy says so, counted for this process alone where it says that."""
        assert self._pay(f"key-{next(self._numbers)}").status == 503
        self.limits()


@asynccontextmanager
async def watched(folder: Path, binary: Path) -> AsyncIterator[tuple[Run, Prometheus]]:
    demo_folder(folder, ROUTES)
    (folder / "revoked.json").write_text("{}")
    for name, text in POLICIES.items():
        (folder / "policies" / f"{name}.yaml").write_text(text)
    with running_redis(folder, *VOLATILE) as redis:
        config = (folder / "config.yaml").read_text()
        assert "shared: memory" in config
        (folder / "config.yaml").write_text(
            config.replace("shared: memory", f"shared: {redis.url}").replace("\npolicies:", UPSTREAMS)
            + EVENTS % redis.url
        )
        async with (
            scripted(shop) as behind,
            scripted(provider, provider_context(folder)) as beyond,
            serving(demo_gateway(folder, shop=behind.port, provider=beyond.port, nobody=free_port())) as gateway,
        ):
            with running_prometheus(binary, folder, gateway.ports["admin"]) as prometheus:
                yield Run(gateway, behind, redis, gateway.bearer()), prometheus


_ELSEWHERE = re.compile(r'pangate_worker|result="failed"|pangate_key_service|pangate_vault_rewrap')


def without_data(prometheus: Prometheus) -> list[Query]:
    """Of one process whose store works and whose key is a file. What is counted otherwise is seen in test_workers.py,
    in test_store_down.py, and in test_key_boards.py.
    """
    queries = [query for query in (*dashboard_queries("1m"), *watched_queries()) if not _ELSEWHERE.search(query.text)]
    return [query for query in queries if not any(value > 0 for value in prometheus.query(query.text))]


async def test_every_panel_and_every_alert_has_data_after_a_run(tmp_path: Path) -> None:
    binary = await asyncio.to_thread(find_prometheus, tmp_path)
    if binary is None:
        pytest.skip("there is no prometheus on PATH, and no package manager to get one from")
    async with watched(tmp_path, binary) as (run, prometheus):
        for act in (run.everything, run.everything, run.redis.process.kill, run.without_redis, run.without_redis):
            await asyncio.to_thread(act)
            done = time.time()
            await asyncio.to_thread(wait_until, lambda: prometheus.scraped_after(done), 20, "a scrape")  # noqa: B023
        with caller(run.gateway, "edge", None):
            with suppress(AssertionError):
                await asyncio.to_thread(wait_until, lambda: not without_data(prometheus), 5)
            assert without_data(prometheus) == []
        assert prometheus.failing_rules() == []
        assert prometheus.query('ALERTS{alertname="PangateOutcomesUnknown", alertstate="firing"}') == [1]
        assert not prometheus.query('rate(pangate_blocked_total{reason="none"}[1m])'), "what does not exist has no data"
