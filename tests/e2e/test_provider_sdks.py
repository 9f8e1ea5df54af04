"""Official SDKs of providers, used by a shop that holds tokens: only the card fields change on the wire.

Beside Stripe's, which has tests of its own (`test_stripe_sdk`): Adyen, Checkout.com and Square (JSON), Braintree (XML).
Square takes no card numbers but ids of its own: the token stands where such an id does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import Adyen
import httpx
import pytest
import requests
from checkout_sdk.checkout_sdk import CheckoutSdk
from checkout_sdk.environment import Environment
from checkout_sdk.payments.payments import PaymentRequest, PaymentRequestCardSource
from square import Square

from gateway.adapters.dev_certificates import make_dev_certificates
from tests.e2e.harness import Gateway, free_ports, running
from tests.e2e.stripe_world import Message, Tap, _loop, _serving, _tapped
from tests.upstreams import Conversation

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of names of its own
    import braintree

CARD, CVC = "4111111111111111", "737"

CONFIG = """\
version: 1
listeners:
  edge: {bind: "127.0.0.1:${PANGATE_EDGE_PORT}"}
  sidecar: {bind: "127.0.0.1:${PANGATE_SIDECAR_PORT}", identity: "spiffe://shop.example/payments"}
store: sqlite:var/pangate.db
keys: {key: file:certs/vault.key}
upstreams:
  provider: {url: "http://127.0.0.1:${PANGATE_PROVIDER_PORT}"}
routes:
  - {name: card, listener: edge, match: {methods: [POST], path: /card}, policy: card, upstream: provider}
  - {name: out, listener: sidecar, match: {host: localhost, path: /**}, policy: out, upstream: provider}
"""
CARD_POLICY = """\
rules:
  - {kind: tokenize, fields: [{select: $.number, class: pan}, {select: $.cvc, class: cvc}]}
"""
OUT_POLICY = """\
rules:
  - {kind: mtls, ca: certs/services-ca.pem, san: ["spiffe://shop.example/payments"]}
  - kind: reveal
    purpose: charge
    fields:
      - {select: $.paymentMethod.number, class: pan}
      - {select: $.paymentMethod.cvc, class: cvc}
      - {select: $.source.number, class: pan}
      - {select: $.source.cvv, class: cvc}
      - {select: $.source_id, class: pan}
      - {select: /transaction/credit_card/number, class: pan}
      - {select: /transaction/credit_card/cvv, class: cvc}
"""
JSON_ANSWER = json.dumps({
    "pspReference": "8515131751004933", "resultCode": "Authorised", "id": "pay_1", "status": "Authorized",
    "payment": {"id": "pay_1", "status": "COMPLETED"},
}).encode()  # fmt: skip
XML_ANSWER = b"""<?xml version="1.0" encoding="UTF-8"?>
<transaction><id>f1x9</id><status>authorized</status><type>sale</type><amount>10.00</amount></transaction>
"""


async def answers(conversation: Conversation) -> None:
    """Each provider's SDK finds in this what it looks for."""
    while True:
        request = await conversation.request()
        media, body = (b"xml", XML_ANSWER) if b"application/xml" in request else (b"json", JSON_ANSWER)
        head = b"HTTP/1.1 201 Created\r\nContent-Type: application/%b\r\nContent-Length: %d\r\n\r\n"
        await conversation.send(head % (media, len(body)) + body)


@dataclass(frozen=True, slots=True)
class Stage:
    gateway: Gateway
    provider: list[bytes]
    """Every request that the provider got."""
    sidecar: Tap

    def card(self) -> dict[str, str]:
        """A card as the shop has it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.ports["edge"])
        with contextlib.closing(connection):
            body = json.dumps({"number": CARD, "cvc": CVC})
            connection.request("POST", "/card", body, {"Content-Type": "application/json", "Host": "localhost"})
            connection.getresponse().read()
        card: dict[str, str] = json.loads(Message.parse(self.provider[-1]).body)
        return card


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("sdks")
    make_dev_certificates(folder / "certs")
    (folder / "policies").mkdir()
    for name, text in {"config": CONFIG, "policies/card": CARD_POLICY, "policies/out": OUT_POLICY}.items():
        (folder / f"{name}.yaml").write_text(text)
    with _loop() as loop, _serving(loop, answers) as provider:
        ports = {**free_ports("edge", "sidecar"), "provider": provider.port}
        with running(Gateway(folder, ports)) as gateway, _tapped(loop, ports["sidecar"]) as sidecar:
            yield Stage(gateway, provider.requests, sidecar)


@pytest.fixture(autouse=True)
def _closed_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SDKs keep connections until their process ends: not in this one."""
    with contextlib.ExitStack() as opened:
        begin = requests.Session.__init__

        def remembered(session: requests.Session) -> None:
            begin(session)
            opened.callback(session.close)

        monkeypatch.setattr(requests.Session, "__init__", remembered)
        yield


Pay = Callable[[str, dict[str, str]], str]


def pay_adyen(base: str, card: dict[str, str]) -> str:
    sdk = Adyen.Adyen(xapikey="key", platform="test")
    sdk.client._determine_api_url = lambda _, endpoint: endpoint.replace("https://checkout-test.adyen.com", base)
    sent = {
        "amount": {"currency": "EUR", "value": 1000},
        "merchantAccount": "Shop",
        "reference": "order-1",
        "paymentMethod": {"type": "scheme", "expiryMonth": "12", "expiryYear": "2030", "holderName": "Lin Ó", **card},
        "returnUrl": "https://shop.example/back",
    }
    answer = sdk.checkout.payments_api.payments(sent, idempotency_key="key-1")
    return str(answer.message["resultCode"])


def pay_checkout(base: str, card: dict[str, str]) -> str:
    address = Environment(*[f"{base}/"] * 7, is_sandbox=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the merchant's own host is not to be had here
        builder = CheckoutSdk.builder().secret_key("sk_sbox_m73dzbpy7cf3gfd46xr4yj5xo4e").environment(address)
        sdk = builder.use_legacy_domain().build()
    source = PaymentRequestCardSource()
    source.number, source.cvv, source.expiry_month, source.expiry_year = card["number"], card["cvc"], 12, 2030
    request = PaymentRequest()
    request.source, request.amount, request.currency, request.reference = source, 1000, "EUR", "order-1"
    return str(sdk.payments.request_payment(request, "key-1").status)


def pay_square(base: str, card: dict[str, str]) -> str:
    amount: dict[str, object] = {"amount": 1000, "currency": "EUR"}
    with httpx.Client() as client:
        sdk = Square(token="token", base_url=base, httpx_client=client)
        answer = sdk.payments.create(source_id=card["number"], idempotency_key="key-1", amount_money=amount, note="Ó")
    assert answer.payment is not None
    return str(answer.payment.status)


def pay_braintree(base: str, card: dict[str, str]) -> str:
    port = base.rpartition(":")[2]
    environment = braintree.environment.Environment("here", "localhost", port, "", False, None)
    sdk = braintree.BraintreeGateway(braintree.Configuration(environment, "merchant", "public", "private"))
    credit_card = {
        "number": card["number"],
        "cvv": card["cvc"],
        "expiration_date": "12/2030",
        "cardholder_name": "Lin Ó",
    }
    result = sdk.transaction.sale({"amount": "10.00", "order_id": "order-1", "credit_card": credit_card})
    return str(result.transaction.status)


@pytest.mark.parametrize(
    ("pay", "said", "has_code"),
    [
        (pay_adyen, "Authorised", True),
        (pay_checkout, "Authorized", True),
        (pay_square, "COMPLETED", False),
        (pay_braintree, "authorized", True),
    ],
)
def test_only_the_card_fields_change_on_the_wire(stage: Stage, pay: Pay, said: str, *, has_code: bool) -> None:
    card = stage.card()
    assert CARD not in card["number"]
    assert pay(f"http://localhost:{stage.sidecar.port}", card) == said
    sent, got = stage.sidecar.asked(), Message.parse(stage.provider[-1])
    revealed = sent.body.replace(card["number"].encode(), CARD.encode()).replace(card["cvc"].encode(), CVC.encode())
    assert got.body == revealed != sent.body
    assert (CVC.encode() in got.body) is has_code
    assert got.first == sent.first
    own = (b"host:", b"connection:", b"content-length:")
    kept = [line for line in sent.lines if not line.lower().startswith(own)]
    assert any(line.lower().startswith((b"authorization:", b"x-api-key:")) for line in kept)
    assert [line for line in got.lines if line in kept] == kept
    assert stage.sidecar.answered().body in (JSON_ANSWER, XML_ANSWER)
