"""Requests to exchanges and back: routing, ids, the record of each request, and what outlives a client."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import types
from typing import Any, ClassVar

import pytest

from gateway.exchange import Exchange, Request
from gateway.operations import PurgeKeys
from gateway.pipeline import Placed
from gateway.ports import Outcome, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.pure.routing import Pattern
from gateway.rule import PASS, Deny, Rule, Stage, Verdict
from gateway.server.edge import Limits
from gateway.server.proxy import _Drawn
from gateway.snapshot import Route
from tests.server.edge_world import GET, HOST, Pieces, Seen, World, post, snapshot, turns, world

POST = post(b"hello")


class Recording(Rule):
    """Keeps each exchange, and settles something on its way back."""

    stage: ClassVar = Stage.ADMIT
    reportable = True

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    async def on_request(self, exchange: Exchange) -> Verdict:
        self.exchanges.append(exchange)
        return PASS

    async def on_response(self, exchange: Exchange) -> Verdict:
        exchange.settlement.append(PurgeKeys(now=0.0, limit=0))
        return PASS


class Denying(Rule):
    stage: ClassVar = Stage.ADMIT
    reportable = True

    async def on_request(self, exchange: Exchange) -> Verdict:
        return Deny(Reason.RATE_LIMITED, "Wait.", headers=((b"Retry-After", b"7"),))


class Crashing(Rule):
    stage: ClassVar = Stage.ADMIT

    async def on_request(self, exchange: Exchange) -> Verdict:
        raise RuntimeError("4242424242424242")


# --- routing ------------------------------------------------------------------------------------------------------


async def test_what_no_route_declares_does_not_exist() -> None:
    async with world() as it:
        for request in (GET.replace(b"/v1", b"/v2"), GET.replace(b"api.example", b"other.example")):
            answer = await it.ask(request)
            assert (answer.status, answer.reason) == (404, "route_not_found")
        assert it.upstream.seen == []
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", "route_not_found", "enforce")] == 2


async def test_a_method_that_the_route_does_not_take_is_told_which_it_takes() -> None:
    async with world() as it:
        answer = await it.ask(POST.replace(b"POST", b"PUT"))
        assert (answer.status, answer.reason) == (405, "method_not_allowed")
        assert answer.header(b"allow") == b"DELETE, GET, HEAD, OPTIONS, POST"


DELETE = POST.replace(b"POST", b"DELETE")


def traces() -> int:
    gc.collect()
    return sum(isinstance(each, types.TracebackType) for each in gc.get_objects())


async def test_refusals_keep_nothing_of_their_requests() -> None:
    async with world() as it:
        await it.ask(DELETE)
        before = traces()
        for _ in range(20):
            assert (await it.ask(DELETE)).reason == "body_not_allowed"
        assert traces() - before < 10


async def test_a_body_of_delete_is_refused_where_the_route_does_not_allow_one() -> None:
    async with world() as it:
        for request in (DELETE, DELETE.replace(b"/v1/payments", b"/v2")):
            client = await it.client()
            answer = await client.ask(request)
            assert (answer.status, answer.reason) == (400, "body_not_allowed")
            assert await client.rest() == b"", "the connection stayed open behind a body that means nothing"
        assert it.upstream.seen == []


@pytest.mark.parametrize("query", [b"a=1&a=2", b"a=1;a=2", b"a%20b=1&a+b=2", b"a_b=1&a%5Fb=2", b"a=1#x&a=2"])
async def test_a_query_parameter_comes_once_unless_the_route_says_otherwise(query: bytes) -> None:
    async with world() as it:
        answer = await it.ask(b"GET /v1/payments?%b HTTP/1.1\r\n" % query + HOST + b"\r\n")
        assert answer.status == 400
        assert b"target_not_canonical" in answer.body
        assert it.lines()[-1]["route"] == "payments"
        for target, status in (
            (b"/v1/payments?a[]=1&a[]=2&b=1", 200),
            (b"/v1/reports?state=a&state=b", 200),
            (b"/v1/reports?state=a&state=b&a=1&a=2", 400),
        ):
            assert (await it.ask(b"GET %b HTTP/1.1\r\n" % target + HOST + b"\r\n")).status == status
        assert len(it.upstream.seen) == 2


async def test_a_route_takes_the_media_types_that_it_declares_and_no_others() -> None:
    async with world() as it:
        for media_type, status in (
            (b"Content-Type: text/csv; charset=utf-8\r\n", 200),
            (b"Content-Type: application/json\r\n", 415),
            (b"", 415),
        ):
            head = b"POST /v1/reports HTTP/1.1\r\n" + HOST + media_type + b"Content-Length: 3\r\n\r\n"
            assert (await it.ask(head + b"a,b")).status == status
        assert (await it.ask(b"GET /v1/reports HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        assert len(it.upstream.seen) == 2


async def test_a_route_may_allow_delete_to_have_a_body() -> None:
    async with world() as it:
        assert (await it.ask(DELETE.replace(b"/v1/payments", b"/v1/sweeps"))).status == 200
        (seen,) = it.upstream.seen
        assert seen.method == "DELETE"
        assert seen.body


async def test_the_upstream_gets_the_same_bytes_and_who_sent_them() -> None:
    async with world() as it:
        target = b"/v1/payments/caf%C3%A9?a=%2F&card[number]=x"
        await it.ask(
            b"POST " + target + b" HTTP/1.1\r\nHost: API.example:80\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"
        )
        seen = it.upstream.seen[0]
        assert seen.head.startswith(b"POST " + target + b" HTTP/1.1\r\nX-Own: 1\r\nHost: backend.internal\r\n")
        assert b'\r\nForwarded: for="127.0.0.1";host="api.example:80";proto=http\r\n' in seen.head
        assert b"\r\nPangate-Tenant: default\r\n" in seen.head
        assert seen.body == b"hello"


async def test_rules_see_the_request_as_it_was_let_in() -> None:
    rule = Recording()
    async with world(placed=[Placed("recording", rule)]) as it:
        await it.ask(GET.replace(b"/v1/payments", b"/v1/payments/pay_1?a=b"))
        request = rule.exchanges[0].request
        assert (request.path, request.query, request.host) == ("/v1/payments/pay_1", "a=b", "api.example")
        assert (request.scheme, request.peer.address, request.body) == ("http", "127.0.0.1", None)
        assert request.received_at == it.clock.now()


async def test_an_exchange_keeps_the_configuration_it_began_with() -> None:
    async with world() as it:
        gate = asyncio.Event()

        async def late(_: Seen) -> Response:
            await gate.wait()
            return Response(200, [], b"old")

        it.upstream.answer = late
        client = await it.client()
        await client.send(GET)
        await turns(lambda: bool(it.upstream.seen))
        it.running.snapshot = snapshot([])
        gate.set()
        assert (await client.answer()).body == b"old"
        assert (await client.ask(GET)).status == 404


# --- identity of a request ----------------------------------------------------------------------------------------


async def test_each_request_has_an_id_that_client_and_upstream_see() -> None:
    async with world() as it:
        ids = []
        for _ in range(120):
            answer = await it.ask(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: theirs\r\n\r\n"))
            ids.append(answer.header(b"x-request-id"))
            assert b"\r\nX-Request-Id: " + (ids[-1] or b"") + b"\r\n" in it.upstream.seen[-1].head
        assert len(set(ids)) == 120
        assert all(re.fullmatch(rb"[0-9a-f]{32}", identifier or b"") for identifier in ids)


async def test_a_problem_names_its_request() -> None:
    async with world() as it:
        answer = await it.ask(GET.replace(b"/v1", b"/v2"))
        identifier = (answer.header(b"x-request-id") or b"").decode()
        assert json.loads(answer.body)["instance"] == f"urn:pangate:request:{identifier}"


async def test_a_valid_trace_is_continued_and_two_are_none() -> None:
    parent = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    async with world() as it:
        await it.ask(GET[:-2] + parent + b"tracestate: a=1\r\n\r\n")
        await it.ask(GET[:-2] + parent + parent + b"\r\n")
        first, second = (seen.head for seen in it.upstream.seen)
        assert re.search(rb"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-(?!00f067)[0-9a-f]{16}-01", first)
        assert b"tracestate: a=1" in first
        assert b"4bf92f" not in second
        assert it.lines()[0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_random_bytes_are_handed_out_once() -> None:
    counter = iter(range(1_000_000))
    drawn = _Drawn(lambda n: b"".join(next(counter).to_bytes(4, "big") for _ in range(n // 4)))
    taken = [drawn.take(16) for _ in range(1000)]
    assert len({piece[i : i + 4] for piece in taken for i in range(0, 16, 4)}) == 4000


# --- the record ---------------------------------------------------------------------------------------------------


async def test_each_request_is_one_line_without_path_headers_or_body() -> None:
    async with world() as it:
        await it.ask(POST.replace(b"/v1/payments", b"/v1/payments/4242424242424242?q=4111111111111111"))
        (line,) = it.lines()
        assert {key: line[key] for key in ("route", "listener", "method", "status", "source", "outcome", "sent")} == {
            "route": "payments",
            "listener": "edge",
            "method": "POST",
            "status": 200,
            "source": "upstream",
            "outcome": "answered",
            "sent": True,
        }
        assert "4242424242424242" not in str(it.telemetry.lines)
        assert "4111111111111111" not in str(it.telemetry.lines)
        assert it.telemetry.counts[Metric.REQUESTS, ("payments", "POST", "200", "upstream")] == 1


async def test_the_time_of_the_upstream_is_told_apart_from_ours() -> None:
    async with world() as it:

        async def slow(_: Seen) -> Response:
            it.clock.advance(1.5)
            return Response(200)

        it.upstream.answer = slow
        await it.ask(GET)
        (line,) = it.lines()
        assert (line["duration_ms"], line["upstream_ms"], line["overhead_ms"]) == (1500.0, 1500.0, 0.0)


@pytest.mark.parametrize(("mode", "status", "source"), [("enforce", 429, "gateway"), ("report", 200, "upstream")])
async def test_a_refusal_is_recorded_with_its_rule_and_mode(mode: Any, status: int, source: str) -> None:
    async with world(placed=[Placed("rate_limit", Denying(), mode)]) as it:
        assert (await it.ask(GET)).status == status
        (line,) = it.lines()
        assert (line["source"], line["blocks"]) == (source, [["rate_limit", "rate_limited", mode]])


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"x\r\n\r\n", "malformed_request"), (GET.replace(b"GET", b"TRACE"), "method_not_supported")]
)
async def test_what_is_refused_before_a_route_is_known_is_recorded_too(raw: bytes, reason: str) -> None:
    async with world() as it:
        await it.ask(raw)
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", reason, "enforce")] == 1
        (line,) = it.lines()
        assert (line["route"], line["method"], line["blocks"]) == ("", "other", [["listener", reason, "enforce"]])


async def test_an_upstream_that_fails_is_a_problem_of_the_gateway_with_its_outcome() -> None:
    async with world() as it:

        async def fail(_: Seen) -> Response:
            raise UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "It took too long.")

        it.upstream.answer = fail
        answer = await it.ask(POST)
        assert (answer.status, json.loads(answer.body)["outcome"]) == (504, "unknown")
        assert it.lines()[0]["source"] == "gateway"


async def test_a_crash_is_a_500_without_a_word_of_the_exception() -> None:
    async with world(placed=[Placed("crashing", Crashing())]) as it:
        answer = await it.ask(GET)
        assert (answer.status, answer.reason) == (500, "internal_error")
        assert "4242424242424242" not in str(it.telemetry.lines) + answer.body.decode()


async def test_a_crash_outside_of_any_rule_is_one_too() -> None:
    async with world() as it:
        it.running.snapshot = None  # type: ignore[assignment]
        answer = await it.ask(GET)
        assert (answer.status, answer.reason) == (500, "internal_error")
        crash = next(line for line in it.telemetry.lines if line["event"] == "request_crashed")
        assert str(crash["where"]).startswith("AttributeError at gateway.server.proxy:")


async def test_a_header_of_an_answer_cannot_break_out() -> None:
    async with world() as it:

        async def evil(_: Seen) -> Response:
            return Response(200, [(b"X-A", b"1\r\nSet-Cookie: a=b")], b"ok")

        it.upstream.answer = evil
        client = await it.client()
        await client.send(GET)
        assert b"Set-Cookie" not in await client.rest()
        assert it.lines()[0]["sent"] is False


# --- what outlives a client ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vanishes", [True, False])
async def test_an_exchange_is_settled_although_its_client_has_hung_up(vanishes: bool) -> None:
    rule = Recording()
    async with world(placed=[Placed("recording", rule)]) as it:
        gate = asyncio.Event()

        async def late(_: Seen) -> Response:
            await gate.wait()
            return Response(200, [], b"late")

        it.upstream.answer = late
        client = await it.client()
        await client.send(POST)
        await turns(lambda: bool(it.upstream.seen))
        if vanishes:
            client.reset()
            await turns(lambda: it.listener._edge.connections == 0)
        else:
            await client.close()
        assert it.listener.in_flight == 1
        assert it.store.units == []
        gate.set()
        await turns(lambda: bool(it.lines()))
        assert [len(unit) for unit in it.store.units] == [1]
        assert (it.lines()[0]["outcome"], it.lines()[0]["sent"]) == ("answered", not vanishes)
        assert it.listener.in_flight == 0


async def test_a_stream_to_a_client_that_has_gone_is_closed() -> None:
    async with world() as it:
        gate, stream = asyncio.Event(), Pieces(b"x", asyncio.Event())

        async def late(_: Seen) -> Response:
            await gate.wait()
            return Response(200, stream=stream)

        it.upstream.answer = late
        client = await it.client()
        await client.send(GET)
        await turns(lambda: bool(it.upstream.seen))
        client.reset()
        await turns(lambda: it.listener._edge.connections == 0)
        gate.set()
        await turns(lambda: stream.closed)


# --- inbox --------------------------------------------------------------------------------------------------------


class Inbox:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def receive(self, request: Request, body: bytes, route: Route, exchange_id: str) -> Response:
        self.bodies.append(body)
        return Response(200, [], f"{route.name} {exchange_id}".encode())


def hooks(_: object) -> list[tuple[Pattern, Route]]:
    configured: Any = object()
    return [(Pattern("/hooks/stripe", frozenset({"POST"})), Route("stripe-hooks", "default", inbox=configured))]


async def test_a_delivery_goes_to_the_inbox_with_its_whole_body() -> None:
    inbox = Inbox()
    async with world(inboxes=inbox, routes=hooks) as it:
        answer = await it.ask(POST.replace(b"/v1/payments", b"/hooks/stripe"))
        assert inbox.bodies == [b"hello"]
        assert answer.body == b"stripe-hooks " + (answer.header(b"x-request-id") or b"")
        assert it.lines()[0]["route"] == "stripe-hooks"


async def test_a_delivery_over_the_bound_is_refused_unread() -> None:
    inbox = Inbox()
    async with world(Limits(body=4), inboxes=inbox, routes=hooks) as it:
        answer = await it.ask(POST.replace(b"/v1/payments", b"/hooks/stripe"))
        assert answer.reason == "body_too_large"
        assert inbox.bodies == []
        assert it.telemetry.counts[Metric.BLOCKED, ("stripe-hooks", "inbox", "body_too_large", "enforce")] == 1


async def test_answers_carry_a_date_and_keep_that_of_the_upstream() -> None:
    async with world() as it:
        assert (await it.ask(GET)).header(b"date") == b"Fri, 15 Jan 2027 08:00:00 GMT"

        async def dated(_: Seen) -> Response:
            return Response(200, [(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT")], b"ok")

        it.upstream.answer = dated
        answer = await it.ask(GET)
        assert [value for name, value in answer.headers if name == b"date"] == [b"Thu, 01 Jan 1970 00:00:00 GMT"]


async def test_a_hundred_clients_at_once_each_get_their_own_answer() -> None:
    async with world() as it:

        async def echo(seen: Seen) -> Response:
            await asyncio.sleep(0)
            return Response(200, [], seen.body)

        it.upstream.answer = echo

        async def one(it: World, n: int) -> bool:
            body = b"%05d" % n
            return (await it.ask(POST[:-5] + body)).body == body

        assert all(await asyncio.gather(*(one(it, n) for n in range(100))))
