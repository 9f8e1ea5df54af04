"""The cap on failed credentials, as a caller meets it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.exchange import Exchange
from gateway.pipeline import Placed
from gateway.pure.errors import Reason
from gateway.pure.metrics import Metric
from gateway.rule import PASS, Deny, Mode, Rule, Stage, Verdict
from gateway.server.edge import Limits
from tests.server.edge_world import HOST, Client, World, post, world

LIMITS = Limits(failed_credentials_per_address=3)
REASONS = {reason.label: reason for reason in Reason}
GOOD = b"GET /v1/payments HTTP/1.1\r\n" + HOST + b"Authorization: good\r\n\r\n"


class Judge(Rule):
    """Refuses for the reason that the Authorization field names."""

    stage = Stage.IDENTIFY

    def on_request(self, exchange: Exchange) -> Verdict:
        said = exchange.request.field(b"authorization") or ""
        return Deny(REASONS[said], "As you say.") if said in REASONS else PASS


def refused(reason: Reason = Reason.TOKEN_INVALID) -> bytes:
    return GOOD.replace(b"good", reason.label.encode())


def judged(mode: Mode = "enforce") -> list[Placed]:
    return [Placed("judge", Judge(), mode)]


async def statuses(it: World, *requests: bytes) -> list[int]:
    return [(await it.ask(request)).status for request in requests]


async def test_who_guesses_too_often_waits_and_is_told_how_long() -> None:
    async with world(LIMITS, judged()) as it:
        assert await statuses(it, *[refused()] * 3) == [401] * 3
        answer = await it.ask(refused())
        assert (answer.status, answer.reason) == (429, "too_many_failed_credentials")
        assert answer.header(b"retry-after") == b"20"
        assert answer.header(b"connection") == b"close"
        assert it.telemetry.counts[Metric.BLOCKED, ("", "listener", "too_many_failed_credentials", "enforce")] == 1
        it.pass_time(20)
        assert await statuses(it, GOOD, refused(), GOOD) == [200, 401, 429]
        assert len(it.upstream.seen) == 1


async def test_good_credentials_of_that_address_wait_too_and_reach_nobody() -> None:
    async with world(LIMITS, judged()) as it:
        assert await statuses(it, *[refused()] * 3, GOOD) == [401, 401, 401, 429]
        assert not it.upstream.seen


async def test_on_a_connection_that_exists_the_cap_holds_too() -> None:
    async with world(LIMITS, judged()) as it:
        client = await it.client()
        for _ in range(3):
            assert (await client.ask(refused())).status == 401
        assert (await client.ask(GOOD)).status == 429
        assert await client.rest() == b""


async def test_a_request_whose_body_is_still_to_come_is_refused_without_it() -> None:
    async with world(LIMITS, judged()) as it:
        await statuses(it, *[refused()] * 3)
        answer = await it.ask(post(b"x" * 10)[:-10])
        assert answer.status == 429


@pytest.mark.parametrize(
    "reason",
    [Reason.TOKEN_REQUIRED, Reason.TOKEN_EXPIRED, Reason.SCOPE_INSUFFICIENT, Reason.PROOF_NONCE_REQUIRED,
     Reason.CERTIFICATE_REQUIRED, Reason.RATE_LIMITED],
)  # fmt: skip
async def test_what_is_no_guess_does_not_count(reason: Reason) -> None:
    async with world(LIMITS, judged()) as it:
        assert await statuses(it, *[refused(reason)] * 9) == [reason.status] * 9


async def test_a_rule_that_only_reports_bars_nobody() -> None:
    async with world(LIMITS, judged("report")) as it:
        assert await statuses(it, *[refused()] * 9) == [200] * 9


async def test_callers_behind_a_unix_socket_have_no_address_to_share(socket_path: Path) -> None:
    async with world(LIMITS, judged(), bind=f"unix:{socket_path}", identity="spiffe://shop.example/a"):
        for _ in range(9):
            client = Client(*await asyncio.open_unix_connection(socket_path))
            assert (await client.ask(refused())).status == 401
            await client.close()
