"""`kind: idempotency` in a real pipeline over a real store: the upstream acts once, and nobody guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from gateway.operations import ClaimKey, KeyState
from gateway.ports import Outcome, Unavailable, UpstreamError
from gateway.pure.errors import Reason
from gateway.pure.replay import content_digest, scope
from gateway.rule import PASS, Deny
from gateway.rules.idempotency import Idempotency, Settings
from tests.conftest import Body, HandClock, Recorder
from tests.rules.keyed import CARD, JSON, Gateway, gateway_of, reason, replayed


@pytest.fixture
async def gateway(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Gateway]:
    async with gateway_of(tmp_path, clock, telemetry) as made:
        yield made


# --- the promise


async def test_of_fifty_at_once_one_reaches_the_upstream_and_all_retries_get_its_answer(gateway: Gateway) -> None:
    gateway.provider.may_answer.clear()
    tasks = {asyncio.ensure_future(gateway.send()) for _ in range(50)}
    waiting = tasks
    while len(waiting) > 1:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    gateway.provider.may_answer.set()
    (first,) = await asyncio.gather(*waiting)
    others = [task.result() for task in tasks - waiting]

    assert gateway.provider.acted == 1
    assert (first.status, first.body, replayed(first)) == (201, b'{"id":"pay_1"}', False)
    assert {(r.status, reason(r), r.header(b"retry-after")) for r in others} == {(409, "idempotency_key_in_use", b"1")}

    again = await asyncio.gather(*(gateway.send() for _ in range(20)))
    assert gateway.provider.acted == 1
    assert {(r.status, r.body, r.header(b"content-type"), replayed(r)) for r in again} == {
        (first.status, first.body, first.header(b"content-type"), True)
    }
    assert gateway.counted() == {"new": 1, "in_flight": 49, "replay": 20}


async def test_another_request_with_the_key_is_refused(gateway: Gateway) -> None:
    await gateway.send()
    changed = [
        await gateway.send(body=b'{"amount":2}'),
        await gateway.send(method="PUT"),
        await gateway.send(target="/v1/payments?capture=false"),
        await gateway.send(headers={"Content-Type": "application/x-www-form-urlencoded"}),
    ]
    assert [(r.status, reason(r)) for r in changed] == [(422, "idempotency_key_reused")] * 4
    assert gateway.provider.acted == 1


async def test_another_request_with_a_key_in_flight_is_refused_as_such(gateway: Gateway) -> None:
    gateway.provider.may_answer.clear()
    first = asyncio.ensure_future(gateway.send())
    await gateway.provider.asked.wait()
    assert reason(await gateway.send(body=b"{}")) == "idempotency_key_reused"
    gateway.provider.may_answer.set()
    assert (await first).status == 201


async def test_quoted_and_bare_are_one_key(gateway: Gateway) -> None:
    await gateway.send("k1")
    assert replayed(await gateway.send('"k1"'))


@pytest.mark.parametrize("other", [{"subject": "i|bob"}, {"tenant": "acme"}, {"subject": "j|alice"}])
async def test_nobody_meets_another_callers_key(gateway: Gateway, other: dict[str, Any]) -> None:
    await gateway.send()
    assert not replayed(await gateway.send(**other))
    assert gateway.provider.acted == 2


async def test_an_answer_is_replayed_for_as_long_as_it_is_kept(gateway: Gateway, clock: HandClock) -> None:
    gateway.configure(keep="1h")
    await gateway.send()
    clock.advance(3599)
    assert replayed(await gateway.send())
    clock.advance(2)
    assert not replayed(await gateway.send())
    assert gateway.provider.acted == 2


# --- waiting for the first


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not woken waits in vain."""
    monkeypatch.setattr("gateway.rules.idempotency.POLL_SECONDS", 600)


@pytest.mark.usefixtures("nobody_looks")
async def test_who_waits_gets_the_answer_of_the_first_and_holds_no_connection(gateway: Gateway) -> None:
    gateway.configure(wait="5s")
    gateway.provider.may_answer.clear()
    tasks = [asyncio.ensure_future(gateway.send()) for _ in range(50)]
    await gateway.provider.asked.wait()
    for _ in range(49):
        await gateway.provider.given_back.acquire()
    gateway.provider.may_answer.set()
    answers = await asyncio.gather(*tasks)
    assert gateway.provider.acted == 1
    assert {(r.status, r.body) for r in answers} == {(201, b'{"id":"pay_1"}')}
    assert sorted(map(replayed, answers)) == [False] + [True] * 49
    assert gateway.counted() == {"new": 1, "replay": 49}


async def test_who_waits_in_vain_is_told_that_the_key_is_in_use(gateway: Gateway) -> None:
    gateway.configure(wait="10ms")
    gateway.provider.may_answer.clear()
    first = asyncio.ensure_future(gateway.send())
    await gateway.provider.asked.wait()
    late = await gateway.send()
    assert (late.status, reason(late), late.header(b"retry-after")) == (409, "idempotency_key_in_use", b"1")
    gateway.provider.may_answer.set()
    assert (await first).status == 201


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize(
    ("fails", "status", "told"),
    [
        (UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "No answer."), 201, "outcome_unknown"),
        (None, 429, "idempotency_key_in_use"),
        (None, 402, ""),
    ],
)
async def test_whatever_ends_the_first_wakes_who_waits(
    gateway: Gateway, fails: UpstreamError | None, status: int, told: str
) -> None:
    gateway.configure(wait="5s")
    gateway.provider.may_answer.clear()
    gateway.provider.fails, gateway.provider.status = fails, status
    first = asyncio.ensure_future(gateway.send())
    await gateway.provider.asked.wait()
    waiting = asyncio.ensure_future(gateway.send())
    await gateway.provider.given_back.acquire()
    gateway.provider.may_answer.set()
    await first
    assert reason(await waiting) == told
    assert gateway.provider.acted == 1


async def test_another_request_with_the_key_does_not_wait(gateway: Gateway) -> None:
    gateway.configure(wait="60s")
    gateway.provider.may_answer.clear()
    first = asyncio.ensure_future(gateway.send())
    await gateway.provider.asked.wait()
    assert reason(await gateway.send(body=b"{}")) == "idempotency_key_reused"
    gateway.provider.may_answer.set()
    await first


async def test_what_another_process_finishes_is_found(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.rules.idempotency.POLL_SECONDS", 0.01)
    gateway.provider.may_answer.clear()
    first = asyncio.ensure_future(gateway.send())
    await gateway.provider.asked.wait()
    gateway.configure(wait="60s")
    waiting = asyncio.ensure_future(gateway.send())
    await gateway.provider.given_back.acquire()
    gateway.provider.may_answer.set()
    assert (await first).body == (await waiting).body


# --- which requests


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_requests_pass_with_or_without_a_key(gateway: Gateway, method: str) -> None:
    gateway.configure(required=True)
    for _ in range(2):
        assert (await gateway.send(method=method)).status == 201
    assert (await gateway.send(None, method=method)).status == 201


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_unsafe_requests_need_a_key_where_it_is_required(gateway: Gateway, method: str) -> None:
    assert (await gateway.send(None, method=method)).status == 201
    gateway.configure(required=True)
    refused = await gateway.send(None, method=method)
    assert (refused.status, reason(refused)) == (400, "idempotency_key_required")
    assert gateway.provider.acted == 1


async def test_what_is_no_key_is_refused_and_not_forwarded(gateway: Gateway) -> None:
    refused = await gateway.send("two words")
    assert (refused.status, reason(refused)) == (400, "idempotency_key_invalid")
    assert gateway.provider.acted == 0


async def test_the_field_may_have_another_name(gateway: Gateway) -> None:
    gateway.configure(required=True, header="Request-Key")
    fields = {"Request-Key": "k"}
    assert not replayed(await gateway.send(None, headers=fields))
    assert replayed(await gateway.send(None, headers=fields))


# --- how a claim ends


@pytest.mark.parametrize("status", [200, 202, 303, 400, 402, 404, 409, 410, 422])
async def test_a_definite_answer_is_kept(gateway: Gateway, status: int) -> None:
    gateway.provider.status = status
    await gateway.send()
    again = await gateway.send()
    assert (again.status, replayed(again), gateway.provider.acted) == (status, True, 1)


@pytest.mark.parametrize("status", [401, 403, 425, 429])
async def test_what_the_upstream_turned_away_may_be_sent_again(gateway: Gateway, status: int) -> None:
    gateway.provider.status = status
    assert (await gateway.send()).status == status
    gateway.provider.status = 201
    assert (await gateway.send()).status == 201
    assert gateway.provider.acted == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failing_upstream_leaves_the_key_in_doubt(gateway: Gateway, clock: HandClock, status: int) -> None:
    gateway.provider.status = status
    assert (await gateway.send()).status == status
    clock.advance(10 * 86400)
    again = await gateway.send()
    assert (again.status, reason(again), again.header(b"retry-after")) == (409, "outcome_unknown", b"1")
    assert gateway.provider.acted == 1


async def test_a_request_that_was_provably_not_sent_frees_its_key(gateway: Gateway) -> None:
    gateway.provider.fails = UpstreamError(Outcome.REFUSED, Reason.UPSTREAM_UNREACHABLE, "No connection.")
    assert (await gateway.send()).status == 502
    gateway.provider.fails = None
    again = await gateway.send()
    assert (again.status, replayed(again)) == (201, False)


async def test_a_request_without_an_answer_keeps_its_key(gateway: Gateway) -> None:
    gateway.provider.fails = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "No answer in time.")
    assert (await gateway.send()).status == 504
    gateway.provider.fails = None
    assert reason(await gateway.send()) == "outcome_unknown"
    assert gateway.provider.acted == 1


async def test_a_refusal_before_the_forward_frees_the_key(gateway: Gateway) -> None:
    gateway.inner.prepared = Deny(Reason.SAD_EXPIRED, "Ask for the code again.")
    assert reason(await gateway.send()) == "sad_expired"
    gateway.inner.prepared = PASS
    assert (await gateway.send()).status == 201
    assert gateway.provider.acted == 1


@pytest.mark.parametrize("where", ["inner", "outer"])
async def test_a_refusal_after_the_upstream_acted_never_frees_the_key(gateway: Gateway, where: str) -> None:
    getattr(gateway, where).answered = Deny(Reason.RESPONSE_UNREADABLE, "It could not be checked.")
    assert reason(await gateway.send()) == "response_unreadable"
    again = await gateway.send()
    assert (replayed(again), gateway.provider.acted) == (True, 1)


@pytest.mark.parametrize(("status", "expected"), [(401, ""), (500, "outcome_unknown")])
async def test_the_status_that_ends_a_claim_is_the_upstreams_not_the_gateways(
    gateway: Gateway, status: int, expected: str
) -> None:
    gateway.provider.status = status
    gateway.inner.answered = Deny(Reason.RESPONSE_UNREADABLE, "It could not be checked.")
    await gateway.send()
    gateway.inner.answered = PASS
    gateway.provider.status = 201
    assert reason(await gateway.send()) == expected


async def test_an_answer_that_breaks_off_leaves_the_key_in_doubt(gateway: Gateway) -> None:
    class Broken(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            raise UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_FAILED, "It broke off.")

    gateway.provider.stream = Broken()
    await gateway.send()
    assert reason(await gateway.send()) == "outcome_unknown"


# --- what is kept


async def test_a_replay_holds_tokens_where_the_first_answer_did(gateway: Gateway) -> None:
    gateway.provider.body = b'{"card":"' + CARD + b'"}'
    first = await gateway.send()
    assert first.body == b'{"card":"tok_0"}'
    assert (await gateway.send()).body == first.body


async def test_no_outer_refusal_brings_a_card_into_what_is_kept(gateway: Gateway) -> None:
    gateway.provider.body = b'{"card":"' + CARD + b'"}'
    gateway.outer.answered = Deny(Reason.RESPONSE_UNREADABLE, "Refused on the way out.")
    assert CARD not in (await gateway.send()).body
    gateway.outer.answered = PASS
    assert (await gateway.send()).body == b'{"card":"tok_0"}'


async def test_a_replay_has_the_fields_of_the_response_and_none_of_the_exchange(gateway: Gateway) -> None:
    gateway.provider.headers = [JSON, (b"Location", b"/v1/payments/1"), (b"Set-Cookie", b"a=b")]
    await gateway.send()
    assert (await gateway.send()).headers == [
        JSON,
        (b"Location", b"/v1/payments/1"),
        (b"Idempotent-Replayed", b"true"),
    ]


async def test_an_answer_too_large_to_keep_is_passed_on_once_and_never_executed_again(gateway: Gateway) -> None:
    gateway.provider.body, gateway.provider.stream = b"", Body(b"x" * 60, b"y" * 60)
    first = await gateway.send()
    assert first.stream is not None
    again = await gateway.send()
    assert (again.status, reason(again), replayed(again)) == (409, "response_not_retained", True)
    assert orjson.loads(again.body)["original_status"] == 201
    assert "original_content_digest" not in orjson.loads(again.body), "it was passed on unread"
    assert gateway.provider.acted == 1


async def test_of_an_answer_that_was_read_and_is_too_large_to_keep_the_digest_is_kept(gateway: Gateway) -> None:
    gateway.configure(max_body=10)
    gateway.provider.headers.append((b"Location", b"/v1/payments/1"))
    gateway.provider.body = b'{"card":"' + CARD + b'"}'
    first = await gateway.send()
    again = await gateway.send()
    assert (again.status, reason(again), again.header(b"location")) == (409, "response_not_retained", b"/v1/payments/1")
    assert orjson.loads(again.body)["original_content_digest"] == content_digest(first.body)
    assert gateway.provider.acted == 1


async def test_what_is_kept_opens_only_under_its_own_key(gateway: Gateway) -> None:
    await gateway.send()
    keys = gateway.ports.keys
    taken = scope(keys.mac("default", "replay"), "i|alice", "create-payment", "k1")
    claim = ClaimKey("default", taken, b"", "req-9", 0.0)
    row = (await gateway.ports.store.commit([claim]))[claim]
    assert row.state is KeyState.DONE
    assert b"pay_1" not in row.response
    assert b"pay_1" in keys.open("default", "replay", row.response, taken)
    with pytest.raises(Unavailable):
        keys.open("default", "replay", row.response, b"another scope")


def test_report_is_refused_by_the_kind() -> None:
    assert not Idempotency.reportable


@pytest.mark.parametrize("wrong", [{"keep": "0s"}, {"wait": "61s"}, {"header": "no spaces"}, {"methods": ["POST"]}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "idempotency", **wrong})
