"""`kind: idempotency` as providers differ: where keys stand, what is compared, what is final, what is kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from gateway.ports import Outcome, UpstreamError
from gateway.pure.errors import Reason
from gateway.rules.idempotency import Settings
from tests.conftest import HandClock, Recorder
from tests.rules.keyed import Gateway, gateway_of, reason, replayed


@pytest.fixture
async def gateway(tmp_path: Path, clock: HandClock, telemetry: Recorder) -> AsyncIterator[Gateway]:
    async with gateway_of(tmp_path, clock, telemetry) as made:
        yield made


def sent_key(gateway: Gateway, number: int = -1) -> str:
    """The key that the upstream got; empty if none."""
    found = re.search(rb"\r\nIdempotency-Key: ([^\r]*)\r\n", gateway.provider.heads[number])
    return found[1].decode() if found else ""


# --- where the key stands


async def test_a_key_in_a_field_of_the_body_is_a_key(gateway: Gateway) -> None:
    gateway.configure(required=True, field="$.idempotency_key")
    body = b'{"amount":1,"idempotency_key":"a"}'
    assert not replayed(await gateway.send(None, body))
    assert replayed(await gateway.send(None, body))
    assert reason(await gateway.send(None, body.replace(b"1", b"2"))) == "idempotency_key_reused"
    assert reason(await gateway.send("in-the-header", b'{"amount":1}')) == "idempotency_key_required"


async def test_a_key_may_stand_in_xml_and_what_changes_there_be_left_out(gateway: Gateway) -> None:
    gateway.configure(downstream="own", field="/pay/@key", exclude=["/pay/sent", "/pay/@key"])
    xml = {"Content-Type": "application/xml"}
    body = b"<pay key='a'><sent>1</sent><amount>1</amount></pay>"
    assert not replayed(await gateway.send(None, body, headers=xml))
    sent = gateway.provider.bodies[0]
    assert isinstance(sent, bytes)
    assert re.fullmatch(body.replace(b"'a'", b"'[0-9a-f]{32}'"), sent)
    assert replayed(await gateway.send(None, body.replace(b"<sent>1", b"<sent>2"), headers=xml))
    refused = await gateway.send(None, body.replace(b"<amount>1", b"<amount>2"), headers=xml)
    assert reason(refused) == "idempotency_key_reused"


async def test_a_body_that_could_hold_no_key_is_refused(gateway: Gateway) -> None:
    gateway.configure(field="/pay/@key")
    refused = await gateway.send(None, b'{"key":"a"}')
    assert (refused.status, reason(refused), gateway.provider.acted) == (415, "media_type_unsupported", 0)


@pytest.mark.parametrize("body", [b'{"key":"two words"}', b'{"key":""}', b'{"keys":["a","b"]}'])
async def test_a_field_that_holds_no_key_or_two_is_refused(gateway: Gateway, body: bytes) -> None:
    gateway.configure(field="$.keys[*]" if b"keys" in body else "$.key")
    refused = await gateway.send(None, body)
    assert (refused.status, reason(refused), gateway.provider.acted) == (400, "idempotency_key_invalid", 0)


def test_a_key_has_one_place() -> None:
    with pytest.raises(ValidationError, match="not in both"):
        Settings(kind="idempotency", header="Idempotency-Key", field="$.key")


# --- the key that the upstream gets


async def test_the_callers_key_goes_on_as_it_came(gateway: Gateway) -> None:
    await gateway.send("k1")
    assert sent_key(gateway) == "k1"


async def test_our_own_key_is_stable_for_a_key_and_differs_for_callers(gateway: Gateway) -> None:
    gateway.configure(downstream="own")
    gateway.provider.status = 429
    for caller in ("i|alice", "i|alice", "i|bob"):
        await gateway.send("k1", subject=caller)
    first, again, other = (sent_key(gateway, number) for number in range(3))
    assert first == again
    assert first != other
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert all(head.count(b"Idempotency-Key") == 1 and b"k1" not in head for head in gateway.provider.heads)


async def test_a_request_without_a_key_gets_one_of_ours_each_its_own(gateway: Gateway) -> None:
    gateway.configure(downstream="own")
    await gateway.send(None)
    await gateway.send(None)
    assert len({sent_key(gateway, 0), sent_key(gateway, 1), ""}) == 3


async def test_our_own_key_takes_the_place_of_the_callers_in_the_body(gateway: Gateway) -> None:
    gateway.configure(downstream="own", field="$.idempotency_key")
    await gateway.send(None, b'{"idempotency_key": "mine", "amount": 1}')
    sent = gateway.provider.bodies[0]
    assert isinstance(sent, bytes)
    assert re.fullmatch(rb'\{"idempotency_key": "[0-9a-f]{32}", "amount": 1\}', sent)


async def test_safe_requests_get_no_key(gateway: Gateway) -> None:
    gateway.configure(downstream="own")
    await gateway.send(None, method="GET")
    assert sent_key(gateway) == ""


# --- what is compared


async def test_a_retry_that_is_spelled_otherwise_is_the_same_request(gateway: Gateway) -> None:
    await gateway.send(body=b'{"amount":1,"currency":"EUR"}')
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert replayed(await gateway.send(body=b'{ "currency": "EUR", "amount": 1.0 }', headers=charset))


async def test_what_changes_from_try_to_try_may_be_left_out(gateway: Gateway) -> None:
    gateway.configure(exclude=["$.sent_at"])
    await gateway.send(body=b'{"amount":1,"sent_at":1}')
    assert replayed(await gateway.send(body=b'{"amount":1,"sent_at":2}'))
    assert reason(await gateway.send(body=b'{"amount":2,"sent_at":2}')) == "idempotency_key_reused"


async def test_another_request_under_a_key_is_400_where_callers_know_stripe(gateway: Gateway) -> None:
    gateway.configure(mismatch=400)
    await gateway.send()
    refused = await gateway.send(body=b"{}")
    assert (refused.status, reason(refused)) == (400, "idempotency_parameters_differ")
    assert orjson.loads(refused.body)["error"]["type"] == "idempotency_error"


# --- what is final


@pytest.mark.parametrize("status", [500, 503])
async def test_a_failure_is_final_where_the_upstream_keeps_it(gateway: Gateway, status: int) -> None:
    gateway.configure(**{"5xx": "final"})
    gateway.provider.status = status
    await gateway.send()
    again = await gateway.send()
    assert (again.status, replayed(again), gateway.provider.acted) == (status, True, 1)


async def test_a_missing_answer_is_in_doubt_even_there(gateway: Gateway) -> None:
    gateway.configure(**{"5xx": "final"})
    gateway.provider.fails = UpstreamError(Outcome.UNKNOWN, Reason.UPSTREAM_TIMEOUT, "No answer in time.")
    await gateway.send()
    assert reason(await gateway.send()) == "outcome_unknown"


async def test_an_upstream_has_its_own_statuses_for_what_it_did_not_execute(gateway: Gateway) -> None:
    gateway.configure(not_executed=[409])
    for status, acted in ((409, 2), (429, 3)):
        gateway.provider.status = status
        await gateway.send(f"k{status}")
        gateway.provider.status = 201
        assert replayed(await gateway.send(f"k{status}")) is (status == 429)
        assert gateway.provider.acted == acted


@pytest.mark.parametrize(
    "wrong", [{"not_executed": [200]}, {"not_executed": [500]}, {"5xx": "retry"}, {"mismatch": 409}]
)
def test_settings_that_would_execute_twice_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kind": "idempotency", **wrong})


# --- what is kept


async def test_a_body_beyond_the_limit_is_answered_once_and_then_says_where_to_look(gateway: Gateway) -> None:
    gateway.configure(max_body="16B")
    gateway.provider.body = b'{"id":"pay_1","a":1}'
    gateway.provider.headers = [(b"Location", b"/v1/payments/pay_1")]
    assert (await gateway.send()).body == gateway.provider.body
    again = await gateway.send()
    assert (again.status, reason(again), replayed(again)) == (409, "response_not_retained", True)
    assert again.header(b"location") == b"/v1/payments/pay_1"
    assert gateway.provider.acted == 1


# --- without an upstream


async def test_an_answer_that_is_kept_needs_no_upstream(gateway: Gateway) -> None:
    first = await gateway.send()
    gateway.provider.unreachable = True
    again = await gateway.send()
    assert (again.status, again.body, replayed(again)) == (first.status, first.body, True)
    assert reason(await gateway.send(body=b"{}")) == "idempotency_key_reused"
    assert (await gateway.send("k2")).status == 502
    gateway.provider.unreachable = False
    assert (await gateway.send("k2")).status == 201, "nothing was claimed"


async def test_an_answer_past_its_time_is_none_without_an_upstream_either(gateway: Gateway, clock: HandClock) -> None:
    gateway.configure(keep="1h")
    await gateway.send()
    gateway.provider.unreachable = True
    clock.advance(3601)
    assert (await gateway.send()).status == 502


# --- all at once


async def test_of_a_hundred_at_once_one_is_executed_and_a_hundred_retries_are_told_the_same(gateway: Gateway) -> None:
    gateway.configure(required=True, downstream="own")
    at_once = await asyncio.gather(*(gateway.send() for _ in range(100)))
    assert gateway.provider.acted == 1
    assert {(r.status, reason(r)) for r in at_once} <= {(201, ""), (409, "idempotency_key_in_use")}
    retried = await asyncio.gather(*(gateway.send() for _ in range(100)))
    assert {(r.status, r.body, replayed(r)) for r in retried} == {(201, b'{"id":"pay_1"}', True)}
    assert gateway.provider.acted == 1
