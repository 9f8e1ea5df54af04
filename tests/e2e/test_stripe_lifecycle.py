"""The SDK of Stripe through a gateway that knows what each payment allows; the provider behind knows no bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stripe

from tests.e2e.stripe_world import World, world

ROUTES = {
    "authorize": "/v1/payment_intents",
    "confirm": "/v1/payment_intents/{id}/confirm",
    "capture": "/v1/payment_intents/{id}/capture",
    "void": "/v1/payment_intents/{id}/cancel",
    "refund": "/v1/refunds",
}
ADOPTS = dict.fromkeys(("capture", "refund"), ", on_missing: adopt_by_query")
CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "737"}


def with_life_cycles(folder: Path) -> None:
    """A policy for each operation, and its route at the sidecar."""
    config = folder / "config.yaml"
    routes = ""
    for operation, path in ROUTES.items():
        (folder / "policies" / f"stripe-{operation}.yaml").write_text(
            "rules:\n"
            '  - {kind: mtls, ca: certs/services-ca.pem, san: ["spiffe://shop.example/payments"]}\n'
            "  - {kind: idempotency}\n"
            "  - {kind: reveal, fields: []}\n"
            f"  - {{kind: lifecycle, mapping: stripe, operation: {operation}{ADOPTS.get(operation, '')}}}\n"
        )
        routes += (
            f"  - {{name: lifecycle-{operation}, listener: sidecar, upstream: stripe, policy: stripe-{operation},\n"
            f'     match: {{host: localhost, methods: [POST], path: "{path}"}}}}\n'
        )
    without_refunds = config.read_text().partition("  - name: stripe-sidecar-refunds\n")[0]
    config.write_text(without_refunds + routes)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripe, "enable_telemetry", False)
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        with world(tmp_path_factory.mktemp("lifecycle") / "example", with_life_cycles) as running:
            yield running


@pytest.fixture
def client(stage: World) -> stripe.StripeClient:
    return stage.sdk_in_sidecar()


def authorized(stage: World, client: stripe.StripeClient, amount: int = 1000) -> str:
    """A new PaymentIntent that can be captured; its card is told to the provider directly."""
    direct = stripe.StripeClient("sk_test_123456789012", base_addresses={"api": stage.fake})
    method = direct.v1.payment_methods.create({"type": "card", "card": CARD})
    customer = direct.v1.customers.create()
    direct.v1.payment_methods.attach(method.id, {"customer": customer.id})
    intent = client.v1.payment_intents.create(
        {
            "amount": amount,
            "currency": "eur",
            "customer": customer.id,
            "payment_method": method.id,
            "capture_method": "manual",
        }
    )
    assert client.v1.payment_intents.confirm(intent.id).status == "requires_capture"
    return intent.id


def refused(raised: pytest.ExceptionInfo[stripe.StripeError]) -> dict[str, object]:
    """What the SDK was told."""
    assert raised.value.http_status == 409
    body = raised.value.json_body
    assert isinstance(body, dict)
    assert body["type"] == "urn:pangate:problem:illegal_transition"
    return body


def test_no_more_is_captured_or_refunded_than_there_is(stage: World, client: stripe.StripeClient) -> None:
    intent = authorized(stage, client)
    heard = len(stage.provider.requests)
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.payment_intents.capture(intent, {"amount_to_capture": 1001})
    assert refused(raised)["remaining"] == {"capture": 1000, "void": 1000, "refund": 0}
    assert len(stage.provider.requests) == heard

    assert client.v1.payment_intents.capture(intent, {"amount_to_capture": 600}).amount_received == 600
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.payment_intents.capture(intent, {"amount_to_capture": 1})
    assert (refused(raised)["state"], refused(raised)["allowed"]) == ("captured", ["refund"])

    assert client.v1.refunds.create({"payment_intent": intent, "amount": 250}).amount == 250
    heard = len(stage.provider.requests)
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.refunds.create({"payment_intent": intent, "amount": 351})
    assert refused(raised)["remaining"] == {"capture": 0, "void": 0, "refund": 350}
    assert len(stage.provider.requests) == heard
    assert client.v1.refunds.create({"payment_intent": intent, "amount": 350}).status == "succeeded"


def test_a_retry_is_answered_as_before_and_counts_once(stage: World, client: stripe.StripeClient) -> None:
    intent = authorized(stage, client)
    client.v1.payment_intents.capture(intent)
    first, again = (
        client.v1.refunds.create({"payment_intent": intent, "amount": 700}, {"idempotency_key": f"refund-{intent}"})
        for _ in range(2)
    )
    assert first.id == again.id
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.refunds.create({"payment_intent": intent, "amount": 301})
    remaining = refused(raised)["remaining"]
    assert isinstance(remaining, dict)
    assert remaining["refund"] == 300


def test_what_was_voided_is_captured_no_more(stage: World, client: stripe.StripeClient) -> None:
    intent = authorized(stage, client)
    assert client.v1.payment_intents.cancel(intent).status == "canceled"
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.payment_intents.capture(intent)
    assert refused(raised)["state"] == "voided"


def test_a_payment_that_was_made_elsewhere_is_asked_for_and_then_captured_no_further_than_it_goes(
    stage: World, client: stripe.StripeClient
) -> None:
    direct = stripe.StripeClient("sk_test_123456789012", base_addresses={"api": stage.fake})
    intent = authorized(stage, direct)
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.payment_intents.capture(intent, {"amount_to_capture": 1001})
    assert refused(raised)["remaining"] == {"capture": 1000, "void": 1000, "refund": 0}
    assert client.v1.payment_intents.capture(intent, {"amount_to_capture": 600}).amount_received == 600
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.refunds.create({"payment_intent": intent, "amount": 601})
    assert refused(raised)["allowed"] == ["refund"]


def test_a_payment_that_nobody_made_here_is_not_known(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.StripeError) as raised:
        client.v1.refunds.create({"payment_intent": "pi_of_somebody", "amount": 1})
    assert raised.value.http_status == 404
