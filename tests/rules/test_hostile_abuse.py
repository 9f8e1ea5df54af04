"""Abuse of the interface: those cases that are about a caller's address and scopes; where the others are played."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.memory import MemoryShared
from gateway.config.inert import NoKeys
from gateway.exchange import Peer
from gateway.pipeline import Placed
from gateway.ports import settled
from gateway.pure.errors import Reason
from gateway.rule import Deny, Place
from gateway.rules.rate_limit import RateLimit, Settings
from tests.conftest import HandClock, make_exchange
from tests.credentials import token
from tests.rules.test_dpop import Rules
from tests.rules.test_rate_limit import Route
from tests.server.edge_world import HOST, World, world

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "hostile_abuse.jsonl"
HERE = {"ab-008", "ab-009", "ab-018", "ab-030"}
ELSEWHERE = {
    "ab-001": "tests/rules/test_velocity.py: test_of_twenty_codes_for_one_card_the_limit_is_tried_and_no_more",
    "ab-006": "tests/rules/test_velocity.py: test_a_card_is_the_same_whoever_sends_it",
    "ab-011": "tests/rules/test_idempotency.py: test_another_request_with_the_key_is_refused",
    "ab-013": "tests/e2e/test_one_key.py: test_of_a_hundred_at_once_one_pays_and_a_hundred_retries_are_told_the_same",
    "ab-015": "tests/rules/test_owner.py: test_what_is_anothers_or_names_nobody_is_refused",
    "ab-017": "tests/rules/test_owner.py: $.accounts[*]",
    "ab-021": "tests/pure/test_addresses.py: test_nothing_near_is_public",
    "ab-022": "tests/adapters/test_publishers.py: DNS rebinding",
    "ab-024": "tests/server/test_request_body.py: test_a_body_that_drips_is_answered_408_in_the_end",
    "ab-025": "tests/server/test_connection.py: test_a_slow_head_is_answered_408_also_on_a_later_request",
    "ab-026": "tests/server/test_connection.py: test_an_idle_connection_is_kept_for_its_time_and_then_closed",
    "ab-029": "tests/rules/test_rate_limit.py: test_without_the_store_requests_are_refused_unless_told_otherwise",
}
PLACE = Place("create-payment", "p", 0, "payments", "", egress=False)
BY_ADDRESS = {"key": ["peer.address"], "rate": "3/minute", "burst": 3}
GET = b"GET /v1/payments HTTP/1.1\r\n" + HOST
CLAIMED = (b"X-Forwarded-For: 198.51.100.%d", b"Forwarded: for=198.51.100.%d", b"X-Real-IP: 198.51.100.%d",
           b"True-Client-IP: 198.51.100.%d", b"X-Client-IP: 198.51.100.%d")  # fmt: skip


def test_every_case_has_its_place() -> None:
    ids = {json.loads(line)["id"] for line in CORPUS.read_text().splitlines()}
    assert ids == HERE | ELSEWHERE.keys()
    for path, text in (place.split(": ") for place in ELSEWHERE.values()):
        assert re.search(re.escape(text), (ROOT / path).read_text()), text


@pytest.fixture
async def edge(clock: HandClock) -> AsyncIterator[World]:
    route = Route(clock)
    settings = Settings.model_validate({"kind": "rate_limit", **BY_ADDRESS})
    rule = RateLimit.provision(settings, route.ports, PLACE)
    async with world(placed=[Placed("rate_limit", rule)]) as it:
        yield it


@pytest.mark.parametrize("field", CLAIMED)
async def test_an_address_that_a_caller_claims_is_not_counted_by(edge: World, field: bytes) -> None:
    statuses = [(await edge.ask(GET + field % n + b"\r\n\r\n")).status for n in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


async def test_the_addresses_that_an_ipv6_host_may_choose_from_count_as_one(clock: HandClock) -> None:
    route = Route(clock).of(BY_ADDRESS)
    rotating = [await route.passes(peer=Peer(f"2001:db8:1:2:{n:x}::{n:x}")) for n in range(1, 6)]
    assert rotating == [True, True, True, False, False]
    assert await route.passes(peer=Peer("2001:db8:1:3::1"))
    mapped = [await route.passes(peer=Peer(address)) for address in ("192.0.2.9", "::ffff:192.0.2.9") * 2]
    assert mapped == [True, True, True, False]


@pytest.mark.parametrize("step", [-3600.0, 3600.0 * 24 * 365])
async def test_a_wall_clock_that_is_set_refills_nothing(clock: HandClock, step: float) -> None:
    route = Route(clock).of(BY_ADDRESS)
    assert [await route.passes() for _ in range(4)] == [True, True, True, False]
    clock._now += step
    assert not await route.passes()


async def test_a_scope_to_read_is_none_to_write(clock: HandClock) -> None:
    rules = Rules(clock, MemoryShared(clock), NoKeys())
    exchange = make_exchange(headers={"Authorization": f"Bearer {token(scope='payments:read')}"})
    verdict = await settled(rules.jwt(scopes=["payments:write"]).on_request(exchange))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.SCOPE_INSUFFICIENT
