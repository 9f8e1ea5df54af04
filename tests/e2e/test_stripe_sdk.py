"""Stripe's own SDK, used by a shop that holds tokens, against a gateway started by `pangate run`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import stripe

from tests.e2e.stripe_world import Message, World, world

CARD = "4242424242424242"
DECLINED_WHEN_ATTACHED = "4000000000000002"
DECLINED_WHEN_CHARGED = "4000000000000341"
CVC = "737"

Pay = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripe, "ca_bundle_path", None)  # set by the lines of the README
        patch.setattr(stripe, "enable_telemetry", False)
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        with world(tmp_path_factory.mktemp("stripe") / "example") as running:
            yield running


@pytest.fixture
def pay(stage: World) -> Pay:
    """A partner pays with a card; what comes back is the card as the shop got it."""

    def pay(number: str = CARD, media: str = "json") -> dict[str, str]:
        card = {"number": number, "cvc": CVC}
        if media == "json":
            body, content_type = json.dumps({"amount": 1999, "card": card}).encode(), "application/json"
        else:
            fields = {"amount": 1999, **{f"card[{name}]": value for name, value in card.items()}}
            body, content_type = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        client = stage.gateway.client("edge", "partner")
        try:
            answer = client.ask("POST", "/v1/payments", {"Content-Type": content_type}, body)
        finally:
            client.close()
        assert answer.status == 202
        got = Message.parse(stage.shop.requests[-1]).body
        return json.loads(got)["card"] if media == "json" else _form(got, "card[number]", "card[cvc]")

    return pay


def _form(body: bytes, number: str, cvc: str) -> dict[str, str]:
    fields = dict(pair.split("=") for pair in body.decode().replace("%5B", "[").replace("%5D", "]").split("&"))
    return {"number": fields[number], "cvc": fields[cvc]}


@pytest.mark.parametrize(("media", "door"), [("json", "certificate"), ("form", "certificate"), ("json", "sidecar")])
def test_the_shop_charges_a_card_that_it_never_held(stage: World, pay: Pay, media: str, door: str) -> None:
    client = stage.sdk() if door == "certificate" else stage.sdk_in_sidecar()
    card = pay(media=media)
    assert CARD not in card["number"]
    assert card["cvc"] != CVC

    customer = client.v1.customers.create({"email": "lin@shop.example"})
    method = stage.method(client, card)
    sent = stage.provider.asked()
    client.v1.payment_methods.attach(method.id, {"customer": customer.id})
    intent = client.v1.payment_intents.create(
        {
            "amount": 1999,
            "currency": "eur",
            "customer": customer.id,
            "payment_method": method.id,
            "capture_method": "manual",
        }
    )
    confirmed = client.v1.payment_intents.confirm(intent.id)
    captured = client.v1.payment_intents.capture(intent.id)
    refund = client.v1.refunds.create({"payment_intent": intent.id, "amount": 500})

    assert method.card is not None
    assert method.card.last4 == CARD[-4:]
    assert (intent.status, confirmed.status, captured.status) == (
        "requires_confirmation",
        "requires_capture",
        "succeeded",
    )
    assert (refund.status, refund.amount) == ("succeeded", 500)
    assert _form(sent.body, "card[number]", "card[cvc]") == {"number": CARD, "cvc": CVC}
    received = stage.everything_the_shop_received()
    assert card["number"].encode() in received
    assert customer.id.encode() in received
    assert not _holds_card_data(received)


def _holds_card_data(seen: bytes) -> bool:
    """A number anywhere; a code, which three digits of anything else may equal, where a code stands."""
    numbers = (CARD, DECLINED_WHEN_ATTACHED, DECLINED_WHEN_CHARGED)
    return any(number.encode() in seen for number in numbers) or bool(re.search(rb"cvc\W{1,8}" + CVC.encode(), seen))


def test_the_search_for_card_data_finds_what_the_provider_got(stage: World, pay: Pay) -> None:
    stage.method(stage.sdk(), pay())
    assert _holds_card_data(b"&cvc]=" + CVC.encode())
    assert _holds_card_data(b'{"cvc": "' + CVC.encode() + b'"}')
    assert _holds_card_data(stage.provider.asked().raw.replace(CARD.encode(), b""))


def test_nothing_but_the_values_of_the_card_fields_changes(stage: World, pay: Pay) -> None:
    client, card = stage.sdk_in_sidecar(), pay()
    stage.method(client, card)
    sent, got = stage.sidecar.asked(), stage.provider.asked()
    assert card["number"].encode() in sent.body
    assert got.body == sent.body.replace(card["number"].encode(), CARD.encode()).replace(
        card["cvc"].encode(), CVC.encode()
    )
    assert got.first == sent.first
    own = (b"host:", b"connection:", b"content-length:")
    kept = [line for line in sent.lines if not line.lower().startswith(own)]
    assert {line.partition(b":")[0] for line in kept} >= {b"Authorization", b"Stripe-Version", b"Idempotency-Key"}
    assert [line for line in got.lines if line in kept] == kept
    assert b"Authorization: Bearer sk_test_123456789012" in got.lines


def test_an_answer_reaches_the_sdk_as_the_provider_gave_it(stage: World) -> None:
    stage.sdk_in_sidecar().v1.customers.create({"email": "lin@shop.example"})
    given, got = stage.provider.answered(), stage.sidecar.answered()
    assert (got.first, got.body) == (given.first, given.body)


def test_a_repeated_expand_and_the_version_of_the_api_arrive_as_sent(stage: World) -> None:
    client = stage.sdk_in_sidecar()
    customer = client.v1.customers.create()
    intent = client.v1.payment_intents.create({"amount": 100, "currency": "eur", "customer": customer.id})
    query = "expand[]=customer&expand[]=latest_charge"
    client.raw_request("get", f"/v1/payment_intents/{intent.id}?{query}", stripe_version="2024-06-20")
    sent, got = stage.sidecar.asked(), stage.provider.asked()
    assert got.first == sent.first
    assert parse_qsl(urlsplit(got.first.split()[1]).query) == [("expand[]", "customer"), ("expand[]", "latest_charge")]
    assert b"Stripe-Version: 2024-06-20" in got.lines

    expanded = client.v1.payment_intents.retrieve(intent.id, {"expand": ["customer", "latest_charge"]})
    assert stage.provider.asked().first == stage.sidecar.asked().first
    assert isinstance(expanded.customer, stripe.Customer)


def test_a_card_declined_when_attached_raises_what_it_always_raises(stage: World, pay: Pay) -> None:
    client = stage.sdk()
    method = stage.method(client, pay(DECLINED_WHEN_ATTACHED))
    customer = client.v1.customers.create()
    with pytest.raises(stripe.CardError) as raised:
        client.v1.payment_methods.attach(method.id, {"customer": customer.id})
    assert (raised.value.http_status, raised.value.code) == (402, "card_declined")
    assert str(raised.value.http_body).encode() == stage.provider.answered().body


def test_a_card_declined_when_charged_raises_what_it_always_raises(stage: World, pay: Pay) -> None:
    client = stage.sdk()
    method = stage.method(client, pay(DECLINED_WHEN_CHARGED))
    customer = client.v1.customers.create()
    client.v1.payment_methods.attach(method.id, {"customer": customer.id})
    intent = client.v1.payment_intents.create(
        {"amount": 1999, "currency": "eur", "customer": customer.id, "payment_method": method.id}
    )
    with pytest.raises(stripe.CardError) as raised:
        client.v1.payment_intents.confirm(intent.id)
    assert (raised.value.http_status, raised.value.code) == (402, "card_declined")
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_payment_method"


def test_an_unknown_id_raises_what_it_always_raises(stage: World) -> None:
    with pytest.raises(stripe.InvalidRequestError) as raised:
        stage.sdk().v1.payment_intents.retrieve("pi_unknown")
    assert raised.value.http_status == 404
    assert str(raised.value.http_body).encode() == stage.provider.answered().body


def test_too_many_refunds_raise_the_rate_limit_error_of_the_sdk(stage: World) -> None:
    client = stage.sdk("checkout")
    for _ in range(5):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.refunds.create({"payment_intent": "pi_unknown"})
    before = len(stage.provider.requests)
    with pytest.raises(stripe.RateLimitError) as raised:
        client.v1.refunds.create({"payment_intent": "pi_unknown"})
    assert _refused(raised.value) == (429, "rate_limited")
    assert int(raised.value.headers["Retry-After"]) > 0
    assert len(stage.provider.requests) == before


def test_a_certificate_without_a_grant_raises_the_permission_error_of_the_sdk(stage: World) -> None:
    before = len(stage.provider.requests)
    with pytest.raises(stripe.PermissionError) as raised:
        stage.sdk("intruder").v1.customers.create()
    assert _refused(raised.value) == (403, "certificate_not_allowed")
    assert len(stage.provider.requests) == before


def test_no_certificate_raises_the_authentication_error_of_the_sdk(stage: World) -> None:
    before = len(stage.provider.requests)
    with pytest.raises(stripe.AuthenticationError) as raised:
        stage.sdk(None, "door").v1.refunds.create({"payment_intent": "pi_unknown"})
    assert _refused(raised.value) == (401, "certificate_required")
    assert len(stage.provider.requests) == before


def _refused(error: stripe.StripeError) -> tuple[int | None, str]:
    """Status and reason of a refusal of the gateway's."""
    assert isinstance(error.json_body, dict)
    return error.http_status, error.json_body["type"].removeprefix("urn:pangate:problem:")


def test_a_card_number_in_clear_does_not_leave(stage: World, pay: Pay) -> None:
    before = len(stage.provider.requests)
    with pytest.raises(stripe.APIError) as raised:
        stage.method(stage.sdk(), {**pay(), "number": CARD})
    assert _refused(raised.value) == (422, "field_invalid")
    assert len(stage.provider.requests) == before


def test_without_a_certificate_the_egress_listener_lets_nobody_in(stage: World) -> None:
    with pytest.raises(stripe.APIConnectionError):
        stage.sdk(None).v1.customers.list()


def test_equal_keys_are_one_request_to_a_provider_that_ignores_them(stage: World) -> None:
    client = stage.sdk()
    before = len(stage.provider.requests)
    first, again, other = (
        client.v1.payment_intents.create({"amount": 700, "currency": "eur"}, {"idempotency_key": f"{key}-intent"})
        for key in ("one", "one", "another")
    )
    assert first.id == again.id
    assert first.id != other.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(stage.provider.requests) == before + 2

    direct = stripe.StripeClient("sk_test_123456789012", base_addresses={"api": stage.fake})
    one, two = (
        direct.v1.payment_intents.create({"amount": 700, "currency": "eur"}, {"idempotency_key": "direct"})
        for _ in range(2)
    )
    assert one.id != two.id


def test_a_retry_of_a_declined_card_is_declined_without_asking_again(stage: World, pay: Pay) -> None:
    client = stage.sdk()
    method = stage.method(client, pay(DECLINED_WHEN_ATTACHED))
    customer = client.v1.customers.create()
    before = len(stage.provider.requests)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            client.v1.payment_methods.attach(
                method.id, {"customer": customer.id}, {"idempotency_key": f"attach-{method.id}"}
            )
    assert len(stage.provider.requests) == before + 1


def test_a_retry_with_the_used_code_is_answered_not_revealed_again(stage: World, pay: Pay) -> None:
    client, card = stage.sdk(), pay()
    params: Any = {"type": "card", "card": {**card, "exp_month": 12, "exp_year": 2030}}
    key: Any = {"idempotency_key": f"method-{card['cvc']}"}
    assert client.v1.payment_methods.create(params, key).id == client.v1.payment_methods.create(params, key).id
    with pytest.raises(stripe.APIError) as raised:
        client.v1.payment_methods.create(params)
    assert _refused(raised.value) == (422, "sad_expired")
