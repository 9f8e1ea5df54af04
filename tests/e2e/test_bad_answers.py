"""Whatever is wrong with what a service answers: the caller reads what is known of it, and nothing is sent again."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.bad_input_world import PAYMENT, Stage, check_problem, corpus, request, staged, takes
from tests.upstreams import Conversation, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("bad-answers")) as made:
        yield made


def says(*pieces: bytes, then: str = "close") -> Script:
    """Answers with these bytes, and then closes, resets or keeps silent."""

    async def script(conversation: Conversation) -> None:
        await conversation.send(*pieces)
        if then == "reset":
            conversation.reset()
        elif then == "wait":
            await conversation.closed()

    return script


@contextmanager
def behaving(stage: Stage, script: Script) -> Iterator[None]:
    stage.behave = script
    try:
        yield
    finally:
        stage.behave = takes


SERVICES = {
    "closes": (says(), 502, "upstream_failed"),
    "resets": (says(then="reset"), 502, "upstream_failed"),
    "says nothing": (says(then="wait"), 504, "upstream_timeout"),
    "says half a head": (says(OK, then="wait"), 504, "upstream_timeout"),
    "breaks off in the head": (says(OK), 502, "upstream_failed"),
    "says half a body": (says(OK + b"Content-Length: 9\r\n\r\n{}", then="wait"), 504, "upstream_timeout"),
    "sends less than it said": (says(OK + b"Content-Length: 9\r\n\r\n{}"), 502, "upstream_failed"),
    "resets in the body": (says(OK + b"Content-Length: 9\r\n\r\n{", then="reset"), 502, "upstream_failed"),
    "does not end its chunks": (says(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), 502, "upstream_failed"),
    "is no HTTP": (says(b"hello\r\n\r\n"), 502, "upstream_invalid"),
    "has two lengths": (says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), 502, "upstream_invalid"),
    "has no possible length": (says(OK + b"Content-Length: -1\r\n\r\n{}"), 502, "upstream_invalid"),
}


@pytest.mark.parametrize("case", SERVICES)
async def test_nobody_guesses_what_a_service_did_that_does_not_answer_properly(stage: Stage, case: str) -> None:
    script, status, reason = SERVICES[case]
    same = {"Idempotency_Key": case.replace(" ", "-"), "Authorization": stage.gateway.bearer(sub="till")}
    with behaving(stage, script):
        check_problem(await stage.pay(**same), status, reason, "unknown")
    before = stage.forwarded()
    check_problem(await stage.pay(**same), 409, "outcome_unknown")
    assert stage.forwarded() == before, "what may have happened was sent again"


@pytest.mark.parametrize("route", ["gone", "impostor"])
async def test_a_service_that_cannot_be_reached_got_nothing(stage: Stage, route: str) -> None:
    before = stage.forwarded()
    answer = await stage.ask(request(f"POST /v1/{route}", json.dumps(PAYMENT).encode()))
    check_problem(answer, 502, "upstream_unreachable", "refused")
    assert int(answer.header("retry-after")) > 0
    assert stage.forwarded() == before


async def test_more_bytes_than_a_service_said_are_not_passed_on(stage: Stage) -> None:
    with behaving(stage, says(OK + b"Content-Length: 2\r\n\r\n{}EVIL")):
        answer = await stage.pay()
    assert (answer.status, answer.body) == (200, b"{}")


async def test_an_answer_that_breaks_off_while_it_streams_does_not_look_whole(stage: Stage) -> None:
    with behaving(stage, says(OK + b"Content-Length: 900000\r\n\r\n" + b"a" * 500_000)):
        answer = await stage.read("pay_1")
    assert (answer.status, answer.header("content-length")) == (200, "900000")
    assert len(answer.body) < 900_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "response_unreadable"), (b"<card/>", "response_unreadable"), (b" " * (5 << 20), "response_too_large")],
    ids=["broken", "another media type", "too large"],
)
async def test_an_answer_that_cannot_be_checked_is_held_back_and_said_to_have_come(
    stage: Stage, content: bytes, reason: str
) -> None:
    card = await stage.tokens()
    with behaving(stage, says(OK + b"Content-Length: %d\r\n\r\n" % len(content) + content)):
        check_problem(await stage.charge(card), 502, reason, "answered")


@pytest.mark.parametrize("case", corpus("hostile_upstream"), ids=lambda case: case["name"])
async def test_a_hostile_answer_is_blocked_or_scrubbed(stage: Stage, case: dict[str, Any]) -> None:
    """Blocked where it has to be read, on the way to a provider; scrubbed where it only passes."""
    blocked, card = case["expect"] == "block", await stage.tokens()
    with behaving(stage, says(base64.b64decode(case["raw_b64"]))):
        answer = await (stage.charge(card) if blocked else stage.read("pay_1"))
    assert answer.status == (502 if blocked else 200)
    assert answer.problem().get("outcome", "") in ({"unknown", "answered"} if blocked else {""})
    assert b"EVIL" not in answer.received
    assert not answer.header("server") + answer.header("x-powered-by") + answer.header("x-gateway-subject")
