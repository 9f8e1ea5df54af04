from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.ports import Unavailable
from gateway.pure.deliveries import unpack
from gateway.pure.metrics import Metric
from gateway.pure.webhooks import Arrival, Greeting, Verified, sign
from gateway.webhooks import coinbase_commerce
from tests.inbox_world import EVENT, NOW, InboxWorld, inbox_world, stripe_fields


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[InboxWorld]:
    async with inbox_world(tmp_path) as made:
        yield made


def blocked(world: InboxWorld, reason: str) -> float:
    return world.telemetry.counts.get((Metric.BLOCKED, ("stripe-hooks", "inbox", reason, "enforce")), 0)


async def test_a_genuine_delivery_is_stored_and_then_acknowledged(world: InboxWorld) -> None:
    response = await world.receive()

    due = await world.due()
    assert (response.status, response.body) == (200, b'{"status":"accepted"}')
    assert [(d.route, d.provider, d.received_at) for d in due.due] == [("stripe-hooks", "stripe", NOW)]
    assert (world.result("accepted"), len(world.woken)) == (1, 1)


async def test_what_is_stored_is_sealed_and_holds_raw_body_and_headers(world: InboxWorld) -> None:
    await world.receive()

    delivery = (await world.due()).due[0]
    envelope = unpack(world.opened(delivery))
    assert "evt_1" not in repr(delivery)
    assert b"evt_1" not in delivery.sealed
    assert (envelope.body, envelope.coverage) == (EVENT, "full")
    assert dict(envelope.headers)[b"Stripe-Signature"] == stripe_fields()["Stripe-Signature"].encode()


async def test_the_same_event_again_is_acknowledged_and_not_forwarded_again(world: InboxWorld) -> None:
    await world.receive()
    world.clock.advance(3600)
    again = await world.receive()

    assert (again.status, again.body) == (200, b'{"status":"duplicate"}')
    assert len((await world.due()).due) == 1
    assert (world.result("accepted"), world.result("duplicate"), len(world.woken)) == (1, 1, 1)


async def test_an_event_replayed_fifty_times_at_once_is_stored_once(world: InboxWorld) -> None:
    responses = await asyncio.gather(*(world.receive() for _ in range(50)))

    assert {response.status for response in responses} == {200}
    assert len((await world.due()).due) == 1
    assert (world.result("accepted"), world.result("duplicate"), len(world.woken)) == (1, 49, 1)


async def test_the_same_id_with_another_body_is_a_conflict_that_is_not_forwarded(world: InboxWorld) -> None:
    await world.receive()
    other = EVENT.replace(b'"event"', b'"other"')
    response = await world.receive(other)

    problem = orjson.loads(response.body)
    assert (response.status, problem["type"]) == (409, "urn:pangate:problem:delivery_conflict")
    assert [unpack(world.opened(delivery)).body for delivery in (await world.due()).due] == [EVENT]
    assert (blocked(world, "delivery_conflict"), world.result("delivery_conflict"), len(world.woken)) == (1, 1, 1)


async def test_the_same_id_at_two_routes_is_two_deliveries(world: InboxWorld) -> None:
    world.routes["other"] = replace(world.routes["stripe-hooks"], name="other")
    await world.receive()
    await world.receive(route="other")

    assert {delivery.route for delivery in (await world.due()).due} == {"stripe-hooks", "other"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "signature_required"),
        ({"Stripe-Signature": ""}, "signature_required"),
        ({"Stripe-Signature": f"t={NOW},v1={'0' * 64}"}, "signature_invalid"),
        (stripe_fields(t=NOW - 301), "delivery_stale"),
        (stripe_fields(t=NOW + 61), "delivery_stale"),
    ],
)
async def test_a_refusal_is_a_counted_problem_document(world: InboxWorld, headers: dict[str, str], reason: str) -> None:
    response = await world.receive(headers=headers)

    problem = orjson.loads(response.body)
    assert response.header(b"content-type") == b"application/problem+json"
    assert (response.status, problem["status"], problem["type"]) == (400, 400, f"urn:pangate:problem:{reason}")
    assert problem["instance"] == "urn:pangate:request:req-1"
    assert (blocked(world, reason), world.result(reason)) == (1, 1)


async def test_a_forged_delivery_does_not_use_up_the_key_of_the_genuine_one(world: InboxWorld) -> None:
    for body in (EVENT, EVENT + b" "):
        await world.receive(body, {"Stripe-Signature": f"t={NOW},v1={'0' * 64}"})
    pending_before = (await world.due()).pending
    genuine = await world.receive()

    assert (pending_before, genuine.body) == (0, b'{"status":"accepted"}')


async def test_a_repeated_signature_header_is_refused_even_if_both_are_good(world: InboxWorld) -> None:
    request = world.request(EVENT, stripe_fields())
    signature = (b"STRIPE-SIGNATURE", stripe_fields()["Stripe-Signature"].encode())
    doubled = replace(request, headers=(*request.headers, signature))

    response = await world.receiver.receive(doubled, EVENT, world.routes["stripe-hooks"], "req-1")

    assert (response.status, (await world.due()).pending) == (400, 0)


async def test_a_signed_body_without_an_id_is_refused(world: InboxWorld) -> None:
    response = await world.receive(b'{"object":"event"}')

    assert (response.status, blocked(world, "delivery_invalid")) == (400, 1)


@pytest.mark.parametrize(("live", "status"), [(None, 200), (False, 200), (True, 400)])
async def test_an_endpoint_for_live_events_takes_no_test_events(
    world: InboxWorld, live: bool | None, status: int
) -> None:
    route = world.routes["stripe-hooks"]
    assert route.inbox is not None
    world.routes["stripe-hooks"] = replace(route, inbox=replace(route.inbox, live=live))

    assert (await world.receive()).status == status


async def test_a_store_that_is_down_is_a_503_to_come_back_to(world: InboxWorld) -> None:
    await world.store.close()

    response = await world.receive()

    assert (response.status, response.header(b"retry-after"), blocked(world, "store_unavailable")) == (503, b"5", 1)
    assert (world.woken, world.result("store_unavailable")) == ([], 1)


async def test_a_delivery_by_standard_webhooks_is_known_by_its_id(world: InboxWorld) -> None:
    fields = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": sign("msg_1", NOW, b"x", b"a" * 32),
    }

    verdicts = [(await world.receive(b"x", fields, route="standard-hooks")).body for _ in range(2)]

    assert verdicts == [b'{"status":"accepted"}', b'{"status":"duplicate"}']
    assert len((await world.due()).due) == 1


class Crashing:
    def parse_secret(self, secret: bytes) -> bytes:
        return secret

    def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
        raise KeyError("4242424242424242")


async def test_a_scheme_that_crashes_has_refused_and_quotes_nothing(world: InboxWorld) -> None:
    route = world.routes["stripe-hooks"]
    assert route.inbox is not None
    world.routes["stripe-hooks"] = replace(route, inbox=replace(route.inbox, scheme=Crashing()))

    response = await world.receive()

    assert (response.status, (await world.due()).pending) == (400, 0)
    assert b"4242" not in response.body
    assert world.telemetry.lines[-1]["event"] == "scheme_crashed"
    assert "4242" not in str(world.telemetry.lines)


async def test_who_asks_before_it_delivers_is_answered_and_leaves_nothing(world: InboxWorld) -> None:
    usual = world.routes["stripe-hooks"]
    assert usual.inbox is not None

    def greet(arrival: Arrival, keys: Sequence[bytes]) -> Greeting | None:
        return Greeting({"X-Method": arrival.method}, b"welcome") if arrival.body == b"hello" else None

    world.routes["greeted"] = replace(usual, inbox=replace(usual.inbox, handshake=greet))
    response = await world.receive(b"hello", {}, route="greeted")

    assert (response.status, response.body, response.header(b"x-method")) == (200, b"welcome", b"POST")
    assert (world.result("handshake"), (await world.due()).due) == (1, ())
    assert (await world.receive(route="greeted")).body == b'{"status":"accepted"}'


async def test_while_keys_cannot_be_fetched_the_provider_is_asked_to_deliver_again(world: InboxWorld) -> None:
    class Keyless:
        async def verify(self, arrival: Arrival, keys: Sequence[bytes], tolerance: float) -> Verified:
            raise Unavailable("jwks")

    usual = world.routes["stripe-hooks"]
    assert usual.inbox is not None
    world.routes["keyless"] = replace(usual, inbox=replace(usual.inbox, scheme=Keyless()))
    response = await world.receive(route="keyless")

    assert (response.status, response.header(b"retry-after")) == (503, b"5")
    assert orjson.loads(response.body)["type"].endswith(":keys_unavailable")
    assert not (await world.due()).due


async def test_what_a_provider_writes_anew_at_each_attempt_makes_no_conflict(world: InboxWorld) -> None:
    usual = world.routes["stripe-hooks"]
    assert usual.inbox is not None
    inbox = replace(usual.inbox, provider="coinbase_commerce", scheme=coinbase_commerce, keys=[b"secret"])
    world.routes["coinbase"] = replace(usual, inbox=inbox)

    async def deliver(outer: int, kind: str) -> tuple[int, object]:
        body = orjson.dumps({"id": outer, "attempt_number": outer, "event": {"id": "e1", "type": kind}})
        fields = {"X-CC-Webhook-Signature": hmac.digest(b"secret", body, "sha256").hex()}
        response = await world.receive(body, fields, route="coinbase")
        return response.status, orjson.loads(response.body).get("status")

    assert await deliver(1, "charge:created") == (200, "accepted")
    assert await deliver(2, "charge:created") == (200, "duplicate")
    assert (await deliver(3, "charge:failed"))[0] == 409
