"""Calls in doubt end with what is known, in one commit with their key, and never by a guess."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.operations import Operation, Row, Rows
from gateway.ports import Store, Unavailable
from tests.workers.resolver_scene import (
    CARD,
    IN_FLIGHT_MAX,
    LOST,
    MANUAL,
    QUERY,
    REFUSED,
    REPLAY,
    Scene,
    answer,
    reason,
    scene,
)

PAID = b'{"payments":[{"id":"pay_1","status":"captured"}]}'
NONE = b'{"payments":[]}'


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        yield made


async def lost(it: Scene, doubts: Any, *policy: dict[str, Any], egress: bool = False, **request: Any) -> None:
    """A request was sent, and its answer never came."""
    it.configure(doubts, *policy, egress=egress)
    it.client.says = [LOST]
    assert (await it.send(**request)).status == 504
    assert reason(await it.send(**request)) == "outcome_unknown"


class Ended:
    """A lease that ended while the first gate was passed."""

    def holds(self) -> bool:
        return False


@dataclass
class Leaving:
    """A store that is away after its first commit."""

    store: Store
    left: int = 1

    def commit(self, unit: Sequence[Operation[Row]]) -> Awaitable[Rows]:
        self.left -= 1
        if self.left < 0:
            raise Unavailable("store")
        return self.store.commit(unit)


async def test_what_was_not_sent_but_stays_recorded_is_not_called_unsent(it: Scene) -> None:
    """The resolver will send it: who asked must not believe that nobody ever will."""
    it.ports = replace(it.ports, lease=Ended(), store=Leaving(it.ports.store))  # type: ignore[arg-type]
    it.configure(REPLAY)
    response = await it.send()
    assert (response.status, reason(response), it.client.got) == (504, "settle_failed", [])


async def test_a_resolver_whose_lease_ended_sends_nothing_again(it: Scene) -> None:
    await lost(it, REPLAY)
    it.ports = replace(it.ports, lease=Ended())
    it.configure(REPLAY)
    await it.look(2)
    assert it.provider.got == []
    assert len(await it.unknown()) == 1


# --- sending again


async def test_the_same_bytes_are_sent_again_and_the_client_that_waits_gets_the_answer(it: Scene) -> None:
    await lost(it, REPLAY)
    await it.look(2)
    assert it.provider.got == it.client.got[:1]
    again = await it.send()
    assert (again.status, again.body, again.header(b"idempotent-replayed")) == (201, b'{"id":"pay_1"}', b"true")
    assert (await it.unknown(), it.resolved("replay", "executed")) == ((), 1)


async def test_that_it_will_be_sent_again_is_durable_before_it_is(it: Scene) -> None:
    await lost(it, REPLAY)
    sent: list[float] = []

    async def send(method: str, head: bytes, body: Any) -> Any:
        it.clock.advance(5)
        sent.append(it.clock.now())
        raise LOST

    it.provider.send = send  # type: ignore[method-assign]
    await it.look(10)
    (unknown,) = await it.unknown()
    assert unknown.call.attempt == 2
    assert unknown.call.sent_at == sent[0] - 5


@pytest.mark.parametrize("status", [401, 403, 425, 429, 500, 503])
async def test_a_second_send_that_was_turned_away_frees_no_key(it: Scene, status: int) -> None:
    await lost(it, REPLAY)
    it.provider.says = [answer(status, b"{}")]
    await it.look(2)
    assert reason(await it.send()) == "outcome_unknown"
    it.provider.says = [answer()]
    await it.look(10)
    assert (await it.send()).status == 201


@pytest.mark.parametrize("said", [REFUSED, LOST])
async def test_a_second_send_without_an_answer_frees_no_key(it: Scene, said: Any) -> None:
    await lost(it, REPLAY)
    it.provider.says = [said, answer()]
    await it.look(2)
    assert reason(await it.send()) == "outcome_unknown"
    await it.look(10)
    assert (await it.send()).status == 201


async def test_an_upstream_that_cannot_be_reached_frees_no_key(it: Scene) -> None:
    await lost(it, REPLAY)
    it.provider.unreachable = True
    await it.look(2)
    assert reason(await it.send()) == "outcome_unknown"
    (unknown,) = await it.unknown()
    assert unknown.call.attempt == 1, "nothing was sent"


async def test_a_conflict_is_believed_when_nothing_else_can_be_under_way(it: Scene) -> None:
    await lost(it, REPLAY)
    it.provider.says = [answer(409, b'{"error":"in progress"}')]
    await it.look(2)
    assert reason(await it.send()) == "outcome_unknown"
    await it.look(IN_FLIGHT_MAX - 1)
    assert reason(await it.send()) == "outcome_unknown", "the first look has sent it again"
    await it.look(IN_FLIGHT_MAX + 60)
    assert (await it.send()).body == b'{"error":"in progress"}'


async def test_a_decline_is_an_answer(it: Scene) -> None:
    await lost(it, REPLAY)
    it.provider.says = [answer(402, b'{"error":"declined"}')]
    await it.look(2)
    assert ((await it.send()).status, it.resolved("replay", "executed")) == (402, 1)


async def test_after_the_life_of_a_key_nothing_is_sent_again(it: Scene) -> None:
    await lost(it, REPLAY)
    await it.look(3601)
    assert it.provider.got == []
    (unknown,) = await it.unknown()
    assert unknown.call.next_at is None
    assert reason(await it.send()) == "outcome_unknown"


async def test_what_was_revealed_is_revealed_again_and_was_not_stored(it: Scene) -> None:
    pan = {"select": "$.card.number", "class": "pan", "required": True}
    it.configure(REPLAY, {"kind": "idempotency"}, {"kind": "tokenize", "fields": [pan]})
    await it.send(body=b'{"card":{"number":"' + CARD.encode() + b'"}}')
    token = it.client.got[0][2]
    assert CARD.encode() not in token
    it.client.got.clear()
    await lost(
        it, REPLAY, {"kind": "idempotency"}, {"kind": "reveal", "fields": [pan]}, egress=True, body=token, key="k2"
    )
    (unknown,) = await it.unknown()
    x, recorded = it.recorded["pay"].reopen(unknown.call)
    assert (recorded.body, x.head) == (token, it.client.got[0][1])
    await it.look(2)
    assert it.provider.got == it.client.got[:1]
    assert CARD.encode() in it.provider.got[0][2]
    reveals = it.ports.store._db.execute("SELECT event, outcome FROM audit").fetchall()  # type: ignore[attr-defined]
    assert reveals == [("reveal", ""), ("settled", "unknown"), ("reveal", ""), ("settled", "answered")]


async def test_a_card_in_the_late_answer_is_replaced_before_it_is_kept(it: Scene) -> None:
    response = [{"select": "$.issued", "class": "pan"}]
    await lost(it, REPLAY, {"kind": "idempotency"}, {"kind": "tokenize", "response": response})
    it.provider.says = [answer(201, b'{"issued":"' + CARD.encode() + b'"}')]
    await it.look(2)
    kept = await it.send()
    assert kept.status == 201
    assert CARD.encode() not in kept.body
    assert b"tok_" in kept.body


async def test_requests_without_a_key_are_sent_again_under_our_own(it: Scene) -> None:
    it.configure(REPLAY, {"kind": "idempotency", "downstream": "own"})
    it.client.says = [LOST]
    await it.send(None)
    await it.look(2)
    assert it.provider.got == it.client.got
    assert b"\r\nIdempotency-Key: " in it.provider.got[0][1]
    assert await it.unknown() == ()


# --- asking


async def test_a_payment_that_is_found_answers_the_client_that_waits(it: Scene) -> None:
    await lost(it, QUERY)
    it.provider.says = [answer(200, PAID)]
    await it.look(2)
    again = await it.send()
    assert (again.status, again.body) == (201, b'{"id":"pay_1","status":"captured"}')
    ((method, head, body),) = it.provider.got
    assert (method, body) == ("GET", b"")
    assert head.startswith(b"GET /v1/payments?reference=r1 HTTP/1.1\r\n")
    assert b"Authorization: Bearer sk_test\r\n" in head
    assert b"Content-Type" not in head


@pytest.mark.parametrize(
    "said", [answer(200, NONE), answer(404, b""), answer(200, PAID.replace(b"captured", b"failed"))]
)
async def test_not_done_counts_only_when_nothing_can_be_under_way(it: Scene, said: Any) -> None:
    await lost(it, QUERY)
    it.provider.says = [said]
    await it.look(2)
    await it.look(IN_FLIGHT_MAX - 3)
    assert reason(await it.send()) == "outcome_unknown"
    await it.look(1)
    it.client.says = [answer()]
    assert (await it.send()).status == 201
    assert len(it.client.got) == 2, "the key is free again"
    assert it.resolved("query", "not_executed") == 1


@pytest.mark.parametrize(
    "said", [answer(500), answer(200, b"<html>"), answer(200, PAID.replace(b"captured", b"odd")), LOST]
)
async def test_what_is_not_plain_leaves_the_doubt_for_ever(it: Scene, said: Any) -> None:
    await lost(it, QUERY)
    it.provider.says = [said]
    for _ in range(10):
        await it.look(IN_FLIGHT_MAX * 10)
    assert reason(await it.send()) == "outcome_unknown"
    assert len(it.client.got) == 1


async def test_a_request_that_could_not_be_asked_about_is_not_sent(it: Scene) -> None:
    it.configure(QUERY)
    refused = await it.send(body=b"{}")
    assert (refused.status, reason(refused), it.client.got) == (422, "field_required", [])


# --- people


async def test_what_a_person_has_to_find_out_is_left_alone(it: Scene) -> None:
    await lost(it, MANUAL)
    await it.look(10_000)
    assert (it.provider.got, len(await it.unknown())) == ([], 1)
    (unknown,) = await it.unknown()
    assert await it.resolver.retry("default", unknown.call.owner)


async def test_a_person_who_says_done_ends_it_and_the_client_is_told_that_its_answer_is_gone(it: Scene) -> None:
    await lost(it, MANUAL)
    assert await it.resolver.decide("default", "req-1", "done", "seen at the provider") == ""
    again = await it.send()
    assert (again.status, reason(again)) == (409, "response_not_retained")
    assert (await it.unknown(), len(it.client.got)) == ((), 1)
    lines = it.ports.telemetry.lines  # type: ignore[attr-defined]
    decided = [line for line in lines if line["event"] == "call_decided"]
    assert [(line["id"], line["decision"], line["note"]) for line in decided] == [
        ("req-1", "done", "seen at the provider")
    ]


async def test_a_person_who_says_failed_frees_the_key(it: Scene) -> None:
    await lost(it, REPLAY)
    assert await it.resolver.decide("default", "req-1", "failed", "") == ""
    it.client.says = [answer()]
    assert (await it.send()).status == 201
    assert len(it.client.got) == 2


async def test_a_provider_has_no_id_for_a_call_that_made_no_payment(it: Scene) -> None:
    await lost(it, MANUAL)
    assert "made a new payment" in await it.resolver.decide("default", "req-1", "done", "", "pi_1")
    assert len(await it.unknown()) == 1


async def test_a_decision_comes_once_and_about_what_there_is(it: Scene) -> None:
    await lost(it, MANUAL)
    for tenant, owner in (("default", "req-9"), ("rival", "req-1")):
        assert "no such call" in await it.resolver.decide(tenant, owner, "done", "")
    await it.resolver.decide("default", "req-1", "done", "")
    assert "no such call" in await it.resolver.decide("default", "req-1", "failed", "")


async def test_a_retry_looks_at_once(it: Scene) -> None:
    await lost(it, REPLAY)
    it.provider.says = [LOST, answer()]
    await it.look(2000)
    assert await it.resolver.retry("default", "req-1") == ""
    await it.look()
    assert (await it.send()).status == 201


# --- dying, and the store


async def test_what_was_in_flight_when_the_gateway_died_is_found_out_by_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "pangate.db")
    async with scene(tmp_path, path) as it:
        it.configure(REPLAY)
        died = it.ports.store.commit

        async def send(*request: Any) -> Any:
            it.ports.store.commit = dead  # type: ignore[method-assign]
            return answer()

        async def dead(unit: Any) -> Any:
            raise Unavailable("store")

        it.client.send = send  # type: ignore[method-assign]
        assert reason(await it.send()) == "settle_failed"
        it.ports.store.commit = died  # type: ignore[method-assign]
        assert reason(await it.send()) == "idempotency_key_in_use"
    async with scene(tmp_path, path) as after:
        after.configure(REPLAY)
        assert reason(await after.send()) == "outcome_unknown"
        await after.look()
        assert (await after.send()).status == 201
        assert after.client.got == []


async def test_what_could_not_be_settled_is_found_out_without_a_restart(it: Scene) -> None:
    it.configure(REPLAY)
    alive = it.ports.store.commit

    async def dead(unit: Any) -> Any:
        raise Unavailable("store")

    async def send(*request: Any) -> Any:
        it.ports.store.commit = dead  # type: ignore[method-assign]
        return answer()

    it.client.send = send  # type: ignore[method-assign]
    await it.send()
    it.ports.store.commit = alive  # type: ignore[method-assign]
    await it.look(IN_FLIGHT_MAX - 1)
    assert it.provider.got == []
    await it.look(12)
    assert (await it.send()).status == 201


async def test_a_route_that_is_gone_keeps_its_calls_until_it_is_back(it: Scene) -> None:
    await lost(it, REPLAY)
    pipeline = it.recorded.pop("pay")
    it.recorded["other"] = pipeline
    await it.look(2)
    assert len(await it.unknown()) == 1
    assert "no longer configured" in await it.resolver.decide("default", "req-1", "done", "")
    it.recorded["pay"] = pipeline
    await it.look(400)
    assert (await it.send()).status == 201


@pytest.mark.parametrize(("then", "now"), [(QUERY, REPLAY), (REPLAY, QUERY)])
async def test_what_was_recorded_for_one_way_is_not_found_out_in_another(it: Scene, then: Any, now: Any) -> None:
    await lost(it, then)
    it.configure(now)
    it.provider.says = [answer(200, PAID)]
    await it.look(2)
    (unknown,) = await it.unknown()
    assert (it.provider.got, unknown.call.next_at) == ([], None)
    assert await it.resolver.decide("default", "req-1", "done", "") == ""


async def test_our_own_service_is_told_who_it_is_that_asks(it: Scene) -> None:
    await lost(it, QUERY)
    await it.look(2)
    assert b"\r\nPangate-Subject: i|alice\r\n" in it.provider.got[0][1]


async def test_no_more_are_looked_into_at_once_than_there_is_room_and_all_are_in_the_end(it: Scene) -> None:
    it.configure(REPLAY)
    it.client.says = [LOST]
    for number in range(20):
        await it.send(f"k{number}")
    await it.look(2)
    assert len(it.provider.got) == 8
    await it.look()
    await it.look()
    assert (len(it.provider.got), await it.unknown()) == (20, ())


async def test_a_record_that_does_not_open_stays_for_a_person(it: Scene) -> None:
    await lost(it, REPLAY)
    it.ports.store._db.execute("UPDATE calls SET sealed = x'00'")  # type: ignore[attr-defined]
    await it.look(2)
    assert len(await it.unknown()) == 1
    assert it.provider.got == []
