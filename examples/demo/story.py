"""The story of `make demo`: one payment and everything that tries to go wrong with it, each step with its bytes.

A step either happens exactly as it says, or the demo stops there and names it. What crossed the wire is written to
`var/reports/demo.json`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo.cast import Stage
from examples.demo.provider import sign
from examples.demo.wire import Answer, Client, recorded
from gateway.adapters.dev_certificates import make_dev_certificates, mint_token

CARD = "4242424242424242"
CVC = "737"
WEBHOOK_SECRET = Path(__file__).with_name("provider.whsec").read_text().strip()
PROVIDER_HOST = "provider.egress.internal"
SETTLING_SECONDS = 10.0


class StepError(Exception):
    """A step did not happen as it says."""


@dataclass
class Story:
    """What one telling knows: who plays, what was learned on the way, and the bytes of the step under way."""

    stage: Stage
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    tokens: dict[str, str] = field(default_factory=dict)
    first: Answer | None = None
    wire: list[tuple[bytes, bytes]] = field(default_factory=list)

    def bearer(self, scope: str, sub: str = "till-1") -> dict[str, str]:
        token = mint_token(self.stage.folder / "certs", {"scope": scope, "sub": sub})
        return {"Authorization": f"Bearer {token}"}

    def ask(self, client: Client, method: str, target: str, headers: dict[str, str], content: Any = None) -> Answer:
        body = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
        typed = {"Content-Type": "application/json"} if body else {}
        answer = client.ask(method, target, {**headers, **typed}, body)
        self.wire.append((answer.sent, answer.received))
        return answer

    def pay(
        self,
        key: str | None,
        *,
        identity: str | None = "partner",
        scope: str = "payments:write",
        sub: str = "till-1",
        token: bool = True,
        amount: int = 1999,
        card: str = CARD,
    ) -> Answer:
        headers = self.bearer(scope, sub) if token else {}
        if key is not None:
            headers["Idempotency-Key"] = f"{key}-{self.run}"
        client = self.stage.edge(identity)
        try:
            content = {"amount": amount, "currency": "EUR", "card": {"number": card, "cvc": CVC}}
            return self.ask(client, "POST", "/v1/payments", headers, content)
        finally:
            client.close()

    def read(self, identity: str | None, scope: str) -> Answer:
        assert self.first is not None
        client = self.stage.edge(identity)
        try:
            return self.ask(client, "GET", f"/v1/payments/{self.first.json()['id']}", self.bearer(scope))
        finally:
            client.close()

    def charge(self, identity: str, card: dict[str, str]) -> Answer:
        client = self.stage.egress(identity, PROVIDER_HOST)
        try:
            return self.ask(client, "POST", "/v1/charges", {}, {"amount": 1999, "currency": "EUR", "card": card})
        finally:
            client.close()

    def deliver(self, event: dict[str, Any], secret: str) -> Answer:
        body = json.dumps(event).encode()
        client = self.stage.edge(None)
        try:
            signature = {"Stripe-Signature": sign(secret, int(time.time()), body)}
            return self.ask(client, "POST", "/hooks/provider", signature, body)
        finally:
            client.close()

    def seen(self, who: str) -> list[str]:
        """The requests that the shop or the provider has recorded."""
        return recorded(self.stage.record(who))

    def show(self, *requests: str) -> None:
        """Requests that one of the services recorded are bytes of this step too."""
        self.wire += [(request.encode("latin-1"), b"") for request in requests]

    def forwarded(self, event: str) -> list[str]:
        """How the shop got an event, as soon as it did and no delivery is left to be sent on."""
        self.wait_until(lambda: self._arrived(event), "the shop never got the webhook")
        self.wait_until(lambda: "pangate_inbox_pending 0.0" in self.metrics().splitlines(), "a delivery still waits")
        return self._arrived(event)

    def _arrived(self, event: str) -> list[str]:
        return [request for request in self.seen("shop") if event in request]

    def wait_until(self, happened: Callable[[], object], wrong: str) -> None:
        deadline = time.monotonic() + SETTLING_SECONDS
        while not happened():
            check(time.monotonic() < deadline, wrong)
            time.sleep(0.05)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.stage.ports['ADMIN']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as response:
            text: str = response.read().decode()
        return text


def check(happened: object, wrong: str) -> None:
    if not happened:
        raise StepError(wrong)


def refused(answer: Answer, status: int, reason: str) -> None:
    """The answer is this problem document, and nothing else."""
    problem = answer.json() if answer.headers.get("content-type") == "application/problem+json" else {}
    got = (answer.status, str(problem.get("type", "")).rpartition(":")[2])
    check(got == (status, reason), f"expected {status} {reason}, got {got[0]} {got[1]}")


def a_card_goes_in_and_a_token_comes_through(story: Story) -> None:
    """A partner pays over mutual TLS. The shop's own request log holds a token where the card number was."""
    story.first = story.pay("order-1")
    log = story.seen("shop")
    check(len(log) == 1, "the shop did not get the payment")
    check(CARD not in log[0], "the shop saw the card number")
    card = json.loads(log[0].partition("\r\n\r\n")[2])["card"]
    check(card["cvc"] != CVC, "the shop saw the security code")
    story.tokens = card
    story.show(log[0])


def the_provider_gets_the_true_card(story: Story) -> None:
    """The shop charges through the egress listener with the token; the provider receives the number it stands for."""
    log = story.seen("provider")
    check(len(log) == 1, "the provider was not called")
    story.show(log[0])
    card = json.loads(log[0].partition("\r\n\r\n")[2])["card"]
    check(card == {"number": CARD, "cvc": CVC}, "the provider did not get the true card")
    check(story.first is not None and story.first.status == 201, "the payment did not succeed")


def what_the_provider_echoes_is_a_token_again(story: Story) -> None:
    """The provider's answer quotes the card number. What reaches the shop, and the partner, is the token."""
    assert story.first is not None
    story.wire.append((b"", story.first.received))
    check(CARD.encode() not in story.first.received, "the card number came back to the partner")
    check(story.first.json()["card"]["number"] == story.tokens["number"], "the token that came back is another one")


def no_certificate_no_entry(story: Story) -> None:
    """A caller without a client certificate reads why, instead of a broken connection."""
    refused(story.pay("order-2", identity=None), 401, "certificate_required")


def a_stranger_is_refused(story: Story) -> None:
    """A certificate of the same authority, but of nobody we know."""
    refused(story.pay("order-2", identity="stranger"), 403, "certificate_not_allowed")


def no_access_token_no_payment(story: Story) -> None:
    """The certificate alone is not enough."""
    refused(story.pay("order-2", token=False), 401, "token_required")


def the_wrong_scope_cannot_pay(story: Story) -> None:
    """A token that may only read."""
    refused(story.pay("order-2", scope="payments:read"), 403, "scope_insufficient")


def reading_takes_its_own_scope(story: Story) -> None:
    """The payment can be read with the scope for it, and only with that, and only by partners."""
    check(story.read("partner", "payments:read").status == 200, "the payment cannot be read")
    refused(story.read("partner", "payments:write"), 403, "scope_insufficient")
    refused(story.read(None, "payments:read"), 401, "certificate_required")


def a_retry_is_answered_not_charged_again(story: Story) -> None:
    """The same idempotency key and payload: the stored answer, byte for byte, and no second charge."""
    assert story.first is not None
    before = len(story.seen("provider"))
    again = story.pay("order-1")
    check(again.headers.get("idempotent-replayed") == "true", "the answer was not replayed")
    check((again.status, again.body) == (story.first.status, story.first.body), "the replay differs")
    check(len(story.seen("provider")) == before, "the provider was charged again")


def a_key_stands_for_one_payment(story: Story) -> None:
    """The same key with another amount is refused, and so is a payment without a key."""
    refused(story.pay("order-1", amount=5), 422, "idempotency_key_reused")
    refused(story.pay(None), 400, "idempotency_key_required")


def a_flood_is_stopped(story: Story) -> None:
    """One till asks too often; it is told when to come back. Another till is not in its way."""
    client = story.stage.edge()
    headers = story.bearer("payments:write", "till-flood")
    content = {"amount": 1, "currency": "EUR", "card": {"number": CARD}}
    answers = [client.ask("POST", "/v1/payments", headers, json.dumps(content).encode()) for _ in range(80)]
    client.close()
    limited = [answer for answer in answers if answer.status == 429]
    check(limited, "80 requests at once were all let in")
    story.wire.append((limited[0].sent, limited[0].received))
    refused(limited[0], 429, "rate_limited")
    check("retry-after" in limited[0].headers, "there is no Retry-After")
    check(story.pay("order-3", sub="till-2").status == 201, "the flood hurt another till")


def a_service_without_a_grant_reveals_nothing(story: Story) -> None:
    """Another service of the house, with a certificate but no business with the provider."""
    before = len(story.seen("provider"))
    refused(story.charge("intruder", story.tokens), 403, "certificate_not_allowed")
    check(len(story.seen("provider")) == before, "the provider was called")


def an_unknown_token_goes_nowhere(story: Story) -> None:
    """A token that the vault never gave out is not passed on in the hope that somebody knows it."""
    before = len(story.seen("provider"))
    answer = story.charge("shop", {"number": "tok_test_1111111111111111111111aaaa", "cvc": story.tokens["cvc"]})
    refused(answer, 422, "card_token_unknown")
    check(len(story.seen("provider")) == before, "the provider was called")


def a_security_code_is_good_for_one_charge(story: Story) -> None:
    """The code was used by the first charge. It is on no disk, and now in no memory either."""
    refused(story.charge("shop", story.tokens), 422, "sad_expired")


def a_forged_webhook_is_thrown_out(story: Story) -> None:
    """Signed with a guessed secret: the shop never hears of it."""
    event = {"id": f"evt_forged_{story.run}", "type": "charge.succeeded"}
    refused(story.deliver(event, "whsec_a_guess"), 400, "signature_invalid")
    check(not any("evt_forged" in request for request in story.seen("shop")), "the shop got the forged webhook")


def a_true_webhook_is_delivered_once(story: Story) -> None:
    """Stored before it is acknowledged, sent on with our own signature; what the provider delivers again is not."""
    event = {"id": f"evt_{story.run}", "type": "charge.succeeded"}
    for _ in range(2):
        check(story.deliver(event, WEBHOOK_SECRET).status == 200, "the webhook was not taken")
    arrived = story.forwarded(event["id"])
    check(len(arrived) == 1, f"the shop got the webhook {len(arrived)} times")
    check("webhook-signature" in arrived[0].lower(), "the delivery does not carry our signature")
    story.show(*arrived)
    conflict = {**event, "type": "charge.failed"}
    refused(story.deliver(conflict, WEBHOOK_SECRET), 409, "delivery_conflict")


def everything_blocked_was_counted(story: Story) -> None:
    """One metric tells what was refused, where and why."""
    text = story.metrics()
    reasons = ["certificate_required", "certificate_not_allowed", "token_required", "scope_insufficient"]
    reasons += ["idempotency_key_reused", "rate_limited", "card_token_unknown", "sad_expired", "signature_invalid"]
    for reason in reasons:
        check(f'reason="{reason}"' in text, f"{reason} was not counted")
    lines = [line for line in text.splitlines() if line.startswith("pangate_blocked_total")]
    story.wire.append((b"GET /metrics HTTP/1.1\r\n\r\n", "\n".join(lines).encode()))


def nobody_else_ever_saw_the_card(story: Story) -> None:
    """Every byte that the shop received, and all that the gateway logged and stored."""
    story.show(*story.seen("shop"))
    for request in story.seen("shop"):
        check(CARD not in request, "the shop saw the card number")
    for path in [*(story.stage.folder / "var").glob("pangate.db*"), story.stage.record("gateway")]:
        check(CARD.encode() not in path.read_bytes(), f"the card number is in {path.name}")


STEPS: tuple[Callable[[Story], None], ...] = (
    a_card_goes_in_and_a_token_comes_through,
    the_provider_gets_the_true_card,
    what_the_provider_echoes_is_a_token_again,
    no_certificate_no_entry,
    a_stranger_is_refused,
    no_access_token_no_payment,
    the_wrong_scope_cannot_pay,
    reading_takes_its_own_scope,
    a_retry_is_answered_not_charged_again,
    a_key_stands_for_one_payment,
    a_flood_is_stopped,
    a_service_without_a_grant_reveals_nothing,
    an_unknown_token_goes_nowhere,
    a_security_code_is_good_for_one_charge,
    a_forged_webhook_is_thrown_out,
    a_true_webhook_is_delivered_once,
    everything_blocked_was_counted,
    nobody_else_ever_saw_the_card,
)


def tell(story: Story, report: Path) -> bool:
    """Play every step, print it, record it. False at the first that does not happen."""
    steps: list[dict[str, Any]] = []
    wrong = ""
    for number, step in enumerate(STEPS, 1):
        story.wire.clear()
        print(f"\n\x1b[1m{number:2}. {step.__name__.replace('_', ' ').capitalize()}\x1b[0m")
        print(f"    {step.__doc__}")
        try:
            step(story)
        except (StepError, ConnectionError, OSError, ValueError, LookupError, TypeError) as error:
            wrong = f"{type(error).__name__}: {error}"
        for sent, received in story.wire[:2]:
            print(*_shown(sent, received), sep="\n")
        record = [
            {"sent": base64.b64encode(s).decode(), "received": base64.b64encode(r).decode()} for s, r in story.wire
        ]
        steps.append({"step": step.__name__, "happened": not wrong, "wrong": wrong, "wire": record})
        if wrong:
            print(f"\n\x1b[31mstep {number} did not happen: {wrong}\x1b[0m")
            break
    report.parent.mkdir(parents=True, exist_ok=True)
    failed = steps[-1]["step"] if wrong else ""
    report.write_text(json.dumps({"complete": not wrong, "failed": failed, "steps": steps}, indent=1))
    return not wrong


def _shown(sent: bytes, received: bytes) -> Iterator[str]:
    for arrow, raw in ((">", sent), ("<", received)):
        for line in raw.decode("latin-1").split("\r\n"):
            if line:
                yield f"      {arrow} {line if len(line) <= 110 else line[:107] + '...'}"


def by_hand(stage: Stage) -> str:
    """Lines to try while the demo stays up."""
    edge, admin = stage.ports["EDGE"], stage.ports["ADMIN"]
    certs = stage.folder / "certs"
    curl = f"curl -sS --cacert {certs}/server-ca.pem --cert {certs}/partner.pem --key {certs}/partner.key"
    card = '{"amount":1999,"currency":"EUR","card":{"number":"4242424242424242","cvc":"123"}}'
    token = f'"Authorization: Bearer $(pangate token --directory {certs} --scope payments:write)"'
    return f"""
Try it by hand (with the environment's bin folder on PATH):

  allowed   {curl} https://localhost:{edge}/v1/payments \\
              -H {token} -H "Idempotency-Key: $RANDOM" -H "Content-Type: application/json" -d '{card}'
  refused   curl -sS --cacert {certs}/server-ca.pem https://localhost:{edge}/v1/payments -d '{card}'
  limited   repeat the first line 80 times in a second

  metrics   http://127.0.0.1:{admin}/metrics
  health    http://127.0.0.1:{admin}/readyz
  the shop's own request log: {stage.record("shop")}
"""


def main(folder: Path, *, once: bool) -> int:
    """Exit code 0 only if every step happened. Without `once` the cast stays on stage until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stage = Stage.at(folder)
    make_dev_certificates(folder / "certs")
    with stage.cast():
        complete = tell(Story(stage), folder / "var" / "reports" / "demo.json")
        if complete:
            print(f"\n\x1b[32mAll {len(STEPS)} steps happened.\x1b[0m The bytes are in var/reports/demo.json.")
        if complete and not once:
            with contextlib.suppress(KeyboardInterrupt):
                print(by_hand(stage))
                print("Ctrl-C ends it.", flush=True)
                while True:
                    time.sleep(3600)
    return 0 if complete else 1
