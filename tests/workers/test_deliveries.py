from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from gateway.operations import DueDeliveries, ForwardedDelivery, Operation, PutDelivery, Row, Rows
from gateway.ports import Store, Unavailable
from gateway.pure.metrics import Metric
from gateway.pure.webhooks import sign
from gateway.workers.deliveries import LEASE, DeliveryForwarder
from tests.inbox_world import EVENT, NOW, SIGNING_KEY, inbox_world, stripe_fields
from tests.upstreams import OK, Conversation, answering
from tests.workers.delivery_scene import answer, in_turn, scene, waiting


async def test_the_backend_gets_the_raw_bytes_and_the_providers_fields(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        await s.world.receive()
        await s.step()

        line, fields, body = s.request()
        assert (line, body) == ("POST /stripe-hooks HTTP/1.1", EVENT)
        assert fields["stripe-signature"] == stripe_fields()["Stripe-Signature"]
        assert fields["content-type"] == "application/json"
        assert fields["host"] == f"127.0.0.1:{s.backend.port}"
        assert (fields["pangate-webhook-provider"], fields["pangate-webhook-coverage"]) == ("stripe", "full")
        assert (await s.pending(), s.forwarded("forwarded")) == (0, 1)


async def test_what_is_sent_on_is_signed_anew_and_verifies_with_the_reference_library(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        await s.world.receive()
        delivery_id = (await s.world.due()).due[0].id
        s.world.clock.advance(100)
        await s.step()

        _, fields, body = s.request()
        assert (fields["webhook-id"], fields["webhook-timestamp"]) == (delivery_id, str(NOW + 100))
        library = Webhook("whsec_" + base64.b64encode(SIGNING_KEY).decode())
        now = datetime.fromtimestamp(NOW + 100, UTC)
        assert fields["webhook-signature"] == library.sign(delivery_id, now, body.decode())


async def test_the_providers_own_webhook_fields_go_on_under_other_names(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        signature = sign("msg_1", NOW, EVENT, b"a" * 32)
        theirs = {"Webhook-Id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
        await s.world.receive(EVENT, theirs, route="standard-hooks")
        await s.step()

        _, fields, _ = s.request()
        assert fields["pangate-original-webhook-id"] == "msg_1"
        assert fields["pangate-original-webhook-timestamp"] == str(NOW)
        assert fields["pangate-original-webhook-signature"] == signature
        assert fields["webhook-id"].startswith("dlv_")
        assert fields["webhook-signature"] != signature


async def test_a_sender_cannot_speak_in_the_gateways_name(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        claims = {"Pangate-Subject": "root", "Pangate-Webhook-Provider": "bank", "Pangate-Tenant": "other",
                  "Pangate-Original-Webhook-Id": "x", "X-Forwarded-For": "::1", "X-Request-Id": "mine"}  # fmt: skip
        await s.world.receive(headers={**stripe_fields(), **claims})
        await s.step()

        _, fields, _ = s.request()
        assert "pangate-subject" not in fields
        assert "pangate-original-webhook-id" not in fields
        assert "x-forwarded-for" not in fields
        assert fields["pangate-tenant"] == "default"
        assert fields["pangate-webhook-provider"] == "stripe"
        assert fields["x-request-id"] == fields["webhook-id"]


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
async def test_any_2xx_ends_a_delivery(tmp_path: Path, status: str) -> None:
    response = f"HTTP/1.1 {status}\r\n\r\n".encode() if status.startswith("204") else answer(status)
    async with scene(tmp_path, answering(response)) as s:
        await s.world.receive()
        await s.step()
        s.world.clock.advance(1e6)
        await s.step()

        assert (len(s.backend.requests), await s.pending()) == (1, 0)


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow", "404 Not Found", "302 Found", "400 Bad"])
async def test_any_other_answer_is_tried_again_later_under_the_same_id(tmp_path: Path, status: str) -> None:
    async with scene(tmp_path, in_turn(answer(status), OK)) as s:
        await s.world.receive()
        await s.step()
        await s.step()
        assert (len(s.backend.requests), await s.pending(), s.forwarded("retry")) == (1, 1, 1)

        s.world.clock.advance(1.2)
        await s.step()
        ids = [s.request(n)[1]["webhook-id"] for n in range(2)]
        assert (len(set(ids)), await s.pending(), s.forwarded("forwarded")) == (1, 0, 1)


async def test_each_attempt_is_signed_with_its_own_time(tmp_path: Path) -> None:
    async with scene(tmp_path, in_turn(answer("500 Oops"), OK)) as s:
        await s.world.receive()
        await s.step()
        s.world.clock.advance(5)
        await s.step()

        times = [s.request(n)[1]["webhook-timestamp"] for n in range(2)]
        assert times == [str(NOW), str(NOW + 5)]


async def test_the_backend_may_ask_for_more_time(tmp_path: Path) -> None:
    async with scene(tmp_path, in_turn(answer("503 Busy", "Retry-After: 90"), OK)) as s:
        await s.world.receive()
        await s.step()
        for seconds, requests in ((89, 1), (2, 2)):
            s.world.clock.advance(seconds)
            await s.step()
            assert len(s.backend.requests) == requests


async def test_gone_parks_a_delivery_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(answer("410 Gone"))) as s:
        await s.world.receive()
        await s.step()
        s.world.clock.advance(1e6)
        await s.step()

        assert (len(s.backend.requests), await s.pending(), s.forwarded("parked")) == (1, 0, 1)


async def test_a_delivery_that_nobody_takes_is_parked_after_about_three_days(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(answer("500 Oops"))) as s:
        await s.world.receive()
        started = s.world.clock.now()
        while await s.pending():
            await s.step()
            s.world.clock.advance(1800)
            assert s.world.clock.now() < started + 6 * 86400

        assert (len(s.backend.requests), s.forwarded("parked")) == (19, 1)
        assert 2.5 * 86400 < s.world.clock.now() - started < 3.5 * 86400


async def reset(conversation: Conversation) -> None:
    await conversation.request()
    conversation.reset()


async def test_a_backend_that_breaks_off_is_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path, reset) as s:
        await s.world.receive()
        await s.step()

        assert (await s.pending(), s.forwarded("retry")) == (1, 1)


async def test_a_backend_that_is_down_is_tried_again(tmp_path: Path) -> None:
    async with inbox_world(tmp_path, "http://127.0.0.1:9") as world:
        forwarder = DeliveryForwarder(world.ports, lambda: world.routes)
        await world.receive()
        await forwarder.step(world.clock.now())
        await forwarder.drain()

        assert (await world.due()).pending == 1
        assert world.telemetry.counts[Metric.WEBHOOK_FORWARDED, ("stripe-hooks", "retry")] == 1


async def test_an_answer_that_breaks_off_counts_by_its_status(tmp_path: Path) -> None:
    async def break_off(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort")

    async with scene(tmp_path, break_off) as s:
        await s.world.receive()
        await s.step()

        assert (await s.pending(), s.forwarded("forwarded")) == (0, 1)


async def test_a_long_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    async def babble(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await conversation.send(b"1000\r\n" + bytes(4096) + b"\r\n")

    async with scene(tmp_path, babble) as s:
        await s.world.receive()
        await s.step()
        await s.backend.until(lambda: s.backend.open == 0)

        assert await s.pending() == 0


async def test_a_connection_serves_one_delivery_after_another(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        for n in range(3):
            await s.world.receive(b'{"id":"evt_%d"}' % n)
            await s.step()

        assert (len(s.backend.requests), s.backend.connections) == (3, 1)


async def test_a_route_that_is_gone_from_the_configuration_keeps_its_deliveries(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        await s.world.receive()
        route = s.world.routes.pop("stripe-hooks")
        await s.step()
        assert (s.backend.requests, await s.pending()) == ([], 1)

        s.world.routes["stripe-hooks"] = route
        s.world.clock.advance(2)
        await s.step()
        assert await s.pending() == 0


async def test_what_is_on_its_way_is_not_sent_again_meanwhile(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async with scene(tmp_path, waiting(may_answer)) as s:
        await s.world.receive()
        for seconds in (0, 1, LEASE):
            s.world.clock.advance(seconds)
            await s.forwarder.step(s.world.clock.now())
        await s.backend.until(lambda: len(s.backend.requests) == 1)
        may_answer.set()
        await s.forwarder.drain()

        assert (len(s.backend.requests), await s.pending()) == (1, 0)


async def test_of_two_gateways_on_one_store_one_forwards(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async with scene(tmp_path, waiting(may_answer)) as s:
        other = DeliveryForwarder(s.world.ports, lambda: s.world.routes)
        await s.world.receive()
        await s.forwarder.step(s.world.clock.now())
        await other.step(s.world.clock.now())
        may_answer.set()
        await s.forwarder.drain()
        await other.drain()

        assert (len(s.backend.requests), await s.pending()) == (1, 0)


async def test_no_more_than_so_many_are_on_their_way_at_once_and_all_arrive(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async with scene(tmp_path, waiting(may_answer)) as s:
        for n in range(9):
            await s.world.receive(b'{"id":"evt_%d"}' % n)
        for _ in range(3):
            await s.forwarder.step(s.world.clock.now())
        await s.backend.until(lambda: len(s.backend.requests) == 4)
        await s.forwarder.step(s.world.clock.now())
        assert len(s.backend.requests) == 4

        may_answer.set()
        await s.forwarder.drain()
        while await s.pending():
            await s.step()
        ids = {s.request(n)[1]["webhook-id"] for n in range(len(s.backend.requests))}
        assert (len(ids), len(s.backend.requests)) == (9, 9)


async def test_the_gauges_tell_how_much_waits_and_how_long(tmp_path: Path) -> None:
    async with scene(tmp_path, in_turn(answer("500 Oops"), OK)) as s:
        await s.world.receive()
        await s.step()
        s.world.clock.advance(40)
        await s.forwarder.step(s.world.clock.now())
        gauges = s.world.telemetry.counts
        assert (gauges[Metric.INBOX_PENDING, ()], gauges[Metric.INBOX_OLDEST_SECONDS, ()]) == (1, 40)

        await s.forwarder.drain()
        await s.step()
        assert (gauges[Metric.INBOX_PENDING, ()], gauges[Metric.INBOX_OLDEST_SECONDS, ()]) == (0, 0)


class Interrupted:
    """The world's store, away for some operations while told so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away: tuple[type[Operation[Row]], ...] = ()

    async def commit(self, unit: Sequence[Operation[Row]]) -> Rows:
        if any(isinstance(operation, self.away) for operation in unit):
            raise Unavailable("store")
        return await self.store.commit(unit)

    async def close(self) -> None:
        await self.store.close()


async def test_a_store_that_is_away_ends_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        store = Interrupted(s.world.store)
        s.forwarder = DeliveryForwarder(replace(s.world.ports, store=store), lambda: s.world.routes)
        await s.world.receive()
        store.away = (DueDeliveries,)
        assert await s.forwarder.step(s.world.clock.now()) > 0
        store.away = ()
        await s.step()

        assert await s.pending() == 0


async def test_an_outcome_that_could_not_be_recorded_is_recorded_later_and_nothing_sent_twice(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        store = Interrupted(s.world.store)
        s.forwarder = DeliveryForwarder(replace(s.world.ports, store=store), lambda: s.world.routes)
        await s.world.receive()
        store.away = (ForwardedDelivery,)
        for _ in range(3):
            s.world.clock.advance(10)
            await s.step()
        assert (len(s.backend.requests), await s.pending()) == (1, 1)

        store.away = ()
        await s.step()
        assert (len(s.backend.requests), await s.pending()) == (1, 0)


async def test_stopping_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async with scene(tmp_path, waiting(may_answer)) as s:
        await s.world.receive()
        await s.forwarder.step(s.world.clock.now())
        await s.backend.until(lambda: len(s.backend.requests) == 1)
        stopping = asyncio.create_task(s.forwarder.stop())
        may_answer.set()
        await stopping

        assert await s.pending() == 0


async def test_stopping_starts_nothing_more(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        await s.world.receive()
        await s.forwarder.stop()
        await s.step()

        assert (s.backend.requests, await s.pending()) == ([], 1)


async def test_stopping_records_what_could_not_be_recorded_before(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        store = Interrupted(s.world.store)
        s.forwarder = DeliveryForwarder(replace(s.world.ports, store=store), lambda: s.world.routes)
        await s.world.receive()
        store.away = (ForwardedDelivery,)
        await s.step()
        store.away = ()
        await s.forwarder.stop()

        assert await s.pending() == 0


async def test_a_delivery_that_does_not_open_harms_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        tampered = PutDelivery(
            tenant="default", id="dlv_x", route="stripe-hooks", provider="stripe", key="evt_0", digest=b"",
            sealed=bytes(64), now=NOW - 1,
        )  # fmt: skip
        await s.world.store.commit([tampered])
        await s.world.receive()
        await s.step()

        s.world.clock.advance(10)
        assert [delivery.id for delivery in (await s.world.due()).due] == ["dlv_x"]
        assert s.forwarded("forwarded") == 1


async def test_the_loop_forwards_when_woken_and_stops_with_everything_recorded(tmp_path: Path) -> None:
    async with scene(tmp_path, answering(OK)) as s:
        forwarder = DeliveryForwarder(s.world.ports, lambda: s.world.routes, concurrency=1, poll=3600)
        loop = asyncio.create_task(forwarder.run())
        for n in range(5):
            await s.world.receive(b'{"id":"evt_%d"}' % n)
            forwarder.wake()
        await s.backend.until(lambda: len(s.backend.requests) == 5)
        await forwarder.stop()
        await loop

        assert await s.pending() == 0
