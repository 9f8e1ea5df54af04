"""The way there and back, and the two gates."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
import pytest

from gateway.adapters.sqlite import open_sqlite
from gateway.bodies import buffer, whole
from gateway.exchange import Edit, Exchange, Peer
from gateway.operations import ClaimKey, FinishKey, KeyState, ReleaseKey, Row
from gateway.pipeline import BodyLimits, Pipeline, Placed
from gateway.ports import BodyStream, Outcome, Ports, Response, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Answer, Deny, Rule, Stage, Verdict
from tests.conftest import Body, CountingEntropy, HandClock, Recorder, make_exchange


class Wire:
    """An upstream whose answer a test sets; remembers what was sent."""

    name = "payments"
    authority = b"payments.internal"

    def __init__(self) -> None:
        self.answer: Response | UpstreamError = Response(200, [(b"Content-Type", b"text/plain")], b"ok")
        self.refuses: UpstreamError | None = None
        self.sent: list[tuple[str, bytes, bytes | BodyStream]] = []
        self.open = 0

    async def acquire(self, *, safe: bool) -> Wire:
        if self.refuses is not None:
            raise self.refuses
        self.open += 1
        return self

    async def send(self, method: str, head: bytes, body: bytes | BodyStream) -> Response:
        self.sent.append((method, head, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def release(self) -> None:
        """Once or again: one exchange has one connection."""
        self.open = 0


class Scripted(Rule):
    """A rule that does as it is told and writes down when it was asked."""

    stage = Stage.ADMIT
    reportable = True

    def __init__(self, name: str, log: list[str], **script: Any) -> None:
        self.name, self.log, self.script = name, log, script
        self.reads_request = script.get("reads_request", False)
        self.reads_response = script.get("reads_response", False)

    async def _say(self, hook: str, mark: str, x: Exchange, *rest: Any) -> Any:
        self.log.append(mark)
        verdict = self.script.get(hook, PASS)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict(x, *rest) if callable(verdict) else verdict

    async def on_request(self, x: Exchange) -> Any:
        return await self._say("request", f"{self.name}>", x)

    async def on_prepared(self, x: Exchange, rows: Sequence[Row]) -> Any:
        return await self._say("prepared", f"{self.name}|", x, rows)

    async def on_response(self, x: Exchange) -> Any:
        return await self._say("response", f"<{self.name}", x)

    async def on_finish(self, x: Exchange) -> None:
        await self._say("finish", f"{self.name}.", x)


@dataclass
class World:
    """One route over an in-memory store."""

    store: Any
    telemetry: Recorder
    wire: Wire = field(default_factory=Wire)
    log: list[str] = field(default_factory=list)
    limits: BodyLimits = field(default_factory=lambda: BodyLimits(request=64, response=64))
    lease: Any = None

    def rule(self, name: str, **script: Any) -> Scripted:
        return Scripted(name, self.log, **script)

    async def run(self, *rules: Rule | tuple[Rule, str], x: Exchange | None = None, egress: bool = False) -> Response:
        placed = [Placed("scripted", r[0], r[1]) if isinstance(r, tuple) else Placed("scripted", r) for r in rules]  # type: ignore[arg-type]
        nothing: Any = None
        unused: Any = (nothing,) * 4
        ports = Ports(HandClock(), CountingEntropy(), self.store, *unused, self.telemetry, nothing, lease=self.lease)
        pipeline = Pipeline(placed, self.wire, ports, self.limits, egress=egress)
        return await pipeline.run(x or make_exchange())

    @property
    def said(self) -> str:
        return " ".join(self.log)


@pytest.fixture
async def world(clock: HandClock, telemetry: Recorder) -> AsyncIterator[World]:
    store = open_sqlite(":memory:", clock=clock, telemetry=telemetry)
    yield World(store, telemetry)
    await store.close()


NO = Deny(Reason.RATE_LIMITED, "Come back later.")


def claim(x: Exchange, owner: str = "req-1") -> ClaimKey:
    operation = ClaimKey("default", b"s" * 32, b"f" * 32, owner, 0.0)
    x.unit.append(operation)
    return operation


def claims(x: Exchange) -> Any:
    claim(x)
    return PASS


def releases(x: Exchange) -> Any:
    x.settlement.append(ReleaseKey("default", b"s" * 32, "req-1"))
    return PASS


def reason(response: Response) -> str:
    return str(orjson.loads(response.body)["type"]).rpartition(":")[2]


async def claim_is_free(world: World) -> bool:
    rows = await world.store.commit([ClaimKey("default", b"s" * 32, b"f" * 32, "other", 1.0)])
    return rows.answered[0].state is KeyState.NEW


async def test_rules_run_in_order_there_and_in_reverse_back(world: World) -> None:
    response = await world.run(world.rule("a"), world.rule("b"))
    assert (response.status, response.body) == (200, b"ok")
    assert world.said == "a> b> <b <a b. a."


async def test_a_denial_sends_nothing_and_finishes_only_what_was_entered(world: World) -> None:
    response = await world.run(world.rule("a"), world.rule("b", request=NO), world.rule("c"))
    assert (response.status, reason(response), world.said) == (429, "rate_limited", "a> b> b. a.")
    assert world.wire.sent == []
    assert world.telemetry.counts[Metric.BLOCKED, ("create-payment", "admit", "rate_limited", "enforce")] == 1


async def test_report_counts_the_same_denial_and_changes_nothing(world: World) -> None:
    response = await world.run((world.rule("a", request=NO, response=NO), "report"), world.rule("b"))
    assert (response.status, response.body) == (200, b"ok")
    assert world.telemetry.counts[Metric.BLOCKED, ("create-payment", "admit", "rate_limited", "report")] == 2


class HeadFirst(Rule):
    """Judges the head, and then the body."""

    stage: ClassVar = Stage.IDENTIFY

    def __init__(self, head: Verdict) -> None:
        self.head = head
        self.bodies: list[bytes | None] = []

    def on_request(self, x: Exchange) -> Verdict:
        self.bodies.append(x.body)
        return self.head

    def on_body(self, x: Exchange) -> Verdict:
        self.bodies.append(x.body)
        return PASS


async def test_a_body_is_read_between_the_judgement_of_the_head_and_that_of_the_body(world: World) -> None:
    rule = HeadFirst(PASS)
    await world.run(rule, x=make_exchange(body=b"body"))
    assert rule.bodies == [None, b"body"]


async def test_a_body_whose_head_was_refused_is_not_read(world: World) -> None:
    rule = HeadFirst(NO)
    assert (await world.run(rule, x=make_exchange(body=b"body"))).status == 429
    assert rule.bodies == [None]


async def test_an_answer_stops(world: World) -> None:
    response = await world.run(world.rule("a", request=Answer(Response(208))), world.rule("b"))
    assert (response.status, world.said, world.wire.sent) == (208, "a> a.", [])


@pytest.mark.parametrize("answer", [None, True, RuntimeError("4242424242424242")])
async def test_a_rule_that_crashes_or_returns_no_verdict_refuses(world: World, answer: object) -> None:
    rule = world.rule("a", request=answer if isinstance(answer, Exception) else lambda x: answer)
    response = await world.run(rule, world.rule("b"))
    assert (response.status, reason(response), world.wire.sent) == (500, "internal_error", [])
    assert "4242424242424242" not in str(world.telemetry.lines) + str(response.body)


async def test_a_rule_switched_off_is_never_asked(world: World) -> None:
    await world.run((world.rule("a", request=NO), "off"), world.rule("b"))
    assert world.said == "b> <b b."


async def test_the_body_is_not_read_before_the_rules_in_front_of_its_first_reader_have_passed(world: World) -> None:
    x = make_exchange(body=b"card")
    await world.run(world.rule("a", request=NO), world.rule("b", reads_request=True), x=x)
    assert x.body is None
    y = make_exchange(body=b"card")
    await world.run(world.rule("a"), world.rule("b", reads_request=True), x=y)
    assert y.body == b"card"


async def test_a_body_that_no_rule_reads_is_handed_over_as_a_stream(world: World) -> None:
    x = make_exchange(body=b"card")
    await world.run(world.rule("a"), x=x)
    assert isinstance(world.wire.sent[0][2], Body)


@pytest.mark.parametrize("mode", ["enforce", "report"])
async def test_a_body_over_its_limit_is_refused_even_when_its_reader_only_reports(world: World, mode: str) -> None:
    x = make_exchange(body=b"x" * 65)
    response = await world.run((world.rule("a", reads_request=True), mode), x=x)
    assert (response.status, world.wire.sent) == (413, [])


async def test_a_body_that_lies_about_its_length_is_still_bounded(world: World) -> None:
    x = make_exchange()
    x.request.body = Body(b"x" * 40, b"x" * 40, length=None)
    assert (await world.run(world.rule("a", reads_request=True), x=x)).status == 413


async def test_a_refused_unit_sends_nothing_and_is_mapped_by_the_rule_that_owns_it(world: World) -> None:
    await world.store.commit([ClaimKey("default", b"s" * 32, b"f" * 32, "other", 0.0)])
    taken = Deny(Reason.IDEMPOTENCY_KEY_IN_USE, "Wait.")
    rules = (world.rule("a"), world.rule("b", request=claims, prepared=lambda x, rows: taken))
    response = await world.run(*rules)
    assert (response.status, world.wire.sent, world.wire.open) == (409, [], 0)
    assert world.said == "a> b> b| b. a."


async def test_who_refuses_a_unit_may_take_its_time_for_its_connection_is_given_back(world: World) -> None:
    await world.store.commit([ClaimKey("default", b"s" * 32, b"f" * 32, "other", 0.0)])
    held: list[int] = []

    def prepared(x: Exchange, rows: Sequence[Row]) -> Deny:
        held.append(world.wire.open)
        return Deny(Reason.IDEMPOTENCY_KEY_IN_USE, "Wait.")

    await world.run(world.rule("a", request=claims, prepared=prepared))
    assert held == [0]


async def test_a_rule_cannot_pass_a_refused_unit(world: World) -> None:
    await world.store.commit([ClaimKey("default", b"s" * 32, b"f" * 32, "other", 0.0)])
    response = await world.run(world.rule("b", request=claims))
    assert (response.status, world.wire.sent) == (500, [])


async def test_with_the_store_down_nothing_is_sent(world: World) -> None:
    await world.store.close()
    response = await world.run(world.rule("b", request=claims))
    assert (response.status, reason(response), world.wire.sent) == (503, "store_unavailable", [])
    assert response.header(b"retry-after") == b"1"


async def test_a_denial_after_the_commit_walks_back_as_refused_and_releases(world: World) -> None:
    outer = world.rule("a", request=claims, response=releases)
    inner = world.rule("b", request=lambda x: claims_other(x), prepared=lambda x, rows: NO)
    x = make_exchange()
    response = await world.run(outer, inner, x=x)
    assert (response.status, x.outcome, world.wire.sent) == (429, Outcome.REFUSED, [])
    assert world.said == "a> b> a| b| <b <a b. a."
    assert await claim_is_free(world)


def claims_other(x: Exchange) -> Any:
    x.unit.append(ClaimKey("default", b"o" * 32, b"f" * 32, "req-1", 0.0))
    return PASS


class Ended:
    """A lease that ended while the first gate was passed."""

    def holds(self) -> bool:
        return False


async def test_a_process_that_may_have_been_taken_for_dead_sends_nothing_and_releases(world: World) -> None:
    world.lease = Ended()
    x = make_exchange()
    response = await world.run(world.rule("a", request=claims, response=releases), x=x)
    assert (response.status, reason(response), x.outcome) == (503, "store_unavailable", Outcome.REFUSED)
    assert response.header(b"retry-after") == b"1"
    assert world.wire.sent == []
    assert await claim_is_free(world)


async def test_what_has_nothing_durable_needs_no_lease(world: World) -> None:
    world.lease = Ended()
    assert (await world.run(world.rule("a"))).status == 200


async def test_an_unreachable_upstream_leaves_nothing_durable(world: World) -> None:
    world.wire.refuses = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "Nothing was sent.")
    response = await world.run(world.rule("a", request=claims))
    assert (response.status, orjson.loads(response.body)["outcome"]) == (502, "refused")
    assert await claim_is_free(world)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNKNOWN])
async def test_a_failed_call_tells_its_outcome_to_caller_and_rules(world: World, outcome: Outcome) -> None:
    world.wire.answer = UpstreamError(outcome, Reason.UPSTREAM_TIMEOUT, "It did not answer.")
    seen: list[Outcome | None] = []
    response = await world.run(world.rule("a", response=lambda x: seen.append(x.outcome) or PASS))
    assert (seen, orjson.loads(response.body)["outcome"]) == ([outcome], outcome.value)


async def test_a_refusal_on_the_way_back_replaces_the_response_and_skips_no_outer_rule(world: World) -> None:
    response = await world.run(world.rule("a", request=claims, response=releases), world.rule("b", response=NO))
    assert (response.status, world.said) == (429, "a> b> a| <b <a b. a.")
    assert await claim_is_free(world)


async def test_an_answer_that_cannot_be_settled_is_not_given(world: World) -> None:
    def closes(x: Exchange) -> Any:
        world.store.commit = unavailable
        return releases(x)

    async def unavailable(unit: object) -> Any:
        from gateway.ports import Unavailable

        raise Unavailable("store")

    response = await world.run(world.rule("a", request=claims, response=closes))
    assert (response.status, reason(response)) == (504, "settle_failed")
    assert orjson.loads(response.body)["outcome"] == "unknown"


async def test_a_settlement_that_another_owner_won_is_not_answered(world: World) -> None:
    def foreign(x: Exchange) -> Any:
        x.settlement.append(ReleaseKey("default", b"s" * 32, "somebody else"))
        return PASS

    response = await world.run(world.rule("a", request=claims, response=foreign))
    assert (response.status, response.body.find(b"ok")) == (504, -1)


async def test_an_unread_response_streams_through(world: World) -> None:
    stream = Body(b"x" * 100)
    world.wire.answer = Response(200, [], b"", stream)
    response = await world.run(world.rule("a"))
    assert response.stream is stream


async def test_a_response_that_must_be_read_and_is_too_large_is_502_with_outcome_answered(world: World) -> None:
    stream = Body(b"x" * 100)
    world.wire.answer = Response(200, [], b"", stream)
    response = await world.run(world.rule("a", reads_response=True))
    assert (response.status, reason(response), stream.closed) == (502, "response_too_large", True)
    assert orjson.loads(response.body)["outcome"] == "answered"


async def test_where_something_is_settled_a_large_response_streams_after_the_settlement(world: World) -> None:
    world.wire.answer = Response(200, [], b"", Body(b"x" * 60, b"y" * 60, b"z"))
    response = await world.run(world.rule("a", request=claims, response=releases))
    assert response.body == b"x" * 60 + b"y" * 60
    assert response.stream is not None


async def test_edits_are_rendered_with_the_rows_of_their_unit(world: World) -> None:
    def edits(x: Exchange) -> Any:
        operation = claim(x)
        x.edits.append(Edit(1, 3, lambda rows: rows[operation].state.value.encode()))
        return PASS

    def edits_back(x: Exchange) -> Any:
        operation = ReleaseKey("default", b"s" * 32, "req-1")
        x.settlement.append(operation)
        x.response_edits.append(Edit(0, 2, lambda rows: str(rows[operation].refused).encode()))
        return PASS

    x = make_exchange(body=b"a12b")
    response = await world.run(world.rule("a", reads_request=True, request=edits, response=edits_back), x=x)
    assert world.wire.sent[0][2] == b"anewb"
    assert response.body == b"False"


async def test_a_digest_of_bytes_that_were_replaced_is_not_passed_on(world: World) -> None:
    def edits(x: Exchange) -> Any:
        x.edits.append(Edit(0, 1, b"b"))
        return PASS

    def edits_back(x: Exchange) -> Any:
        x.response_edits.append(Edit(0, 1, b"b"))
        return PASS

    async def ask(rule: Scripted) -> tuple[bytes, Response]:
        headers = [(b"Content-Digest", b"sha-256=:AA==:"), (b"X-Kept", b"1")]
        world.wire.answer = Response(200, headers, b"ok")
        response = await world.run(rule, x=make_exchange(headers={"Content-Digest": "sha-256=:AA==:"}, body=b"a"))
        return world.wire.sent[-1][1], response

    head, response = await ask(world.rule("a", reads_request=True, request=edits, response=edits_back))
    assert b"Content-Digest" not in head
    assert [name for name, _ in response.headers] == [b"X-Kept"]
    head, response = await ask(world.rule("a", reads_request=True))
    assert b"Content-Digest: sha-256=:AA==:\r\n" in head
    assert response.header(b"content-digest") == b"sha-256=:AA==:"


async def test_a_finish_that_crashes_keeps_no_other_from_finishing(world: World) -> None:
    response = await world.run(world.rule("a"), world.rule("b", finish=RuntimeError()))
    assert (response.status, world.said) == (200, "a> b> <b <a b. a.")


async def test_an_upstream_learns_who_calls_from_the_gateway_alone(world: World) -> None:
    spoofed = {"X-Forwarded-For": "::1", "X-Forwarded-Client-Cert": "Hash=root"}
    x = make_exchange(headers={"Pangate-Subject": "root", "Authorization": "Bearer t", **spoofed})
    x.sans, x.fingerprint = ("spiffe://shop.example/partner", "dns:a.example"), bytes(32)
    x.consumed.add(b"authorization")
    await world.run(world.rule("a"), x=x)
    head = world.wire.sent[0][1]
    assert head.startswith(b"POST /v1/payments HTTP/1.1\r\n")
    assert b"Pangate-Subject: spiffe://shop.example/partner\r\n" in head
    assert b"\r\nX-Forwarded-Client-Cert: Hash=" + b"00" * 32 + b";URI=spiffe://shop.example/partner\r\n" in head
    for forbidden in (b"root", b"X-Forwarded-For", b"Bearer"):
        assert forbidden not in head


async def test_an_outside_provider_learns_nothing_of_who_calls(world: World) -> None:
    x = make_exchange()
    x.sans, x.fingerprint = ("spiffe://shop.example/payments",), bytes(32)
    await world.run(world.rule("a"), x=x, egress=True)
    head = world.wire.sent[0][1]
    for telling in (b"Pangate-", b"Forwarded", b"spiffe", b"192.0.2.7"):
        assert telling not in head
    assert b"traceparent: " in head


async def test_an_ipv6_address_is_forwarded_in_brackets(world: World) -> None:
    await world.run(world.rule("a"), x=make_exchange(peer=Peer("2001:db8::7")))
    assert b'Forwarded: for="[2001:db8::7]";host="api.example";proto=https\r\n' in world.wire.sent[0][1]


async def test_a_body_that_cannot_be_rendered_is_not_sent_and_what_was_claimed_is_released(world: World) -> None:
    def overlaps(x: Exchange) -> Any:
        claim(x)
        x.edits += [Edit(0, 2, b"a"), Edit(1, 3, b"b")]
        return PASS

    x = make_exchange(body=b"body")
    response = await world.run(world.rule("a", reads_request=True, request=overlaps, response=releases), x=x)
    assert (response.status, x.outcome, world.wire.sent, world.wire.open) == (500, Outcome.REFUSED, [], 0)
    assert world.said == "a> a| <a a."
    assert await claim_is_free(world)


async def test_a_mistake_after_sending_began_leaves_the_outcome_unknown_and_walks_back(world: World) -> None:
    world.wire.answer = RuntimeError("4242424242424242")  # type: ignore[assignment]
    seen: list[Outcome | None] = []
    response = await world.run(world.rule("a", response=lambda x: seen.append(x.outcome) or PASS))
    assert (response.status, seen, orjson.loads(response.body)["outcome"]) == (500, [Outcome.UNKNOWN], "unknown")
    assert b"4242" not in response.body


async def test_a_settlement_that_cannot_be_rendered_is_not_answered(world: World) -> None:
    def unrenderable(x: Exchange) -> Any:
        def response(rows: Any) -> bytes:
            raise ValueError("4242424242424242")

        x.settlement.append(FinishKey("default", b"s" * 32, "req-1", response, 0.0, 1.0))
        return PASS

    response = await world.run(world.rule("a", request=claims, response=unrenderable))
    assert (response.status, reason(response)) == (504, "settle_failed")


class Dripping:
    """A body that comes in pieces of two bytes."""

    length = None

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(self.pieces):
            yield number.to_bytes(3, "big")[1:]

    def ready(self) -> bytes | None:
        return None

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("direction", ["in", "back"])
async def test_a_body_in_tiny_pieces_takes_little_more_than_its_size_to_be_gathered(direction: str) -> None:
    body: Any = Dripping(100_000)
    tracemalloc.start()
    try:
        if direction == "in":
            gathered = await whole(body, 1_000_000)
        else:
            response = Response(200, [], b"", body)
            assert await buffer(response, 1_000_000)
            gathered = response.body
        assert tracemalloc.get_traced_memory()[1] < 4 * len(gathered) == 800_000
    finally:
        tracemalloc.stop()
