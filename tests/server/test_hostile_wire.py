"""Hostile bytes on the wire: what must not pass is refused before the upstream hears of it, what is right passes."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, ClassVar

from gateway.exchange import Exchange
from gateway.pipeline import Placed
from gateway.rule import PASS, Rule, Stage, Verdict
from gateway.server.edge import Limits
from tests.server.edge_world import World, world

CORPUS = Path(__file__).parents[1] / "data" / "hostile_wire.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]
ANSWER_SECONDS = 60.0
"""How long an answer or a close that has to come is waited for, however busy the machine is."""
QUIET_SECONDS = 0.05
"""How long a connection is watched after its answer, for a second request that must not pass."""


class ReadsBodies(Rule):
    """Reads what there is of a body, as the rules that protect card data do."""

    stage: ClassVar = Stage.PROTECT

    def __init__(self) -> None:
        self.reads_request = True

    async def on_request(self, exchange: Exchange) -> Verdict:
        if exchange.body:
            exchange.document()
        return PASS


def patience_for(case: dict[str, Any], received: bytes) -> float:
    """Seconds worth waiting for more: every case ends in an answer or a close, and only some must close."""
    if b"\r\n\r\n" not in received or case["close"]:
        return ANSWER_SECONDS
    return QUIET_SECONDS if case["expect"] == "reject" else 0.0


async def drive(it: World, case: dict[str, Any]) -> str:
    """What is wrong with the gateway's behaviour in this case; empty if nothing."""
    it.upstream.seen.clear()
    client = await it.client()
    received, closed = b"", False
    try:
        await client.send(base64.b64decode(case["raw_b64"]))
        while not closed and (patience := patience_for(case, received)):
            async with asyncio.timeout(patience):
                piece = await client.reader.read(65536)
            received, closed = received + piece, not piece
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    await client.close()
    return judge(case, received, closed, it)


def judge(case: dict[str, Any], received: bytes, closed: bool, it: World) -> str:
    status = int(received[9:12]) if received else 0
    seen = it.upstream.seen
    rejected = not seen and (400 <= status < 600 or (not received and closed))
    right = {
        "reject": rejected,
        "accept": 200 <= status < 300 and len(seen) == 1,
        "strip-or-reject": rejected or not any(b"admin" in request.head for request in seen),
    }
    if not right[case["expect"]]:
        return f"{case['id']}: expected {case['expect']}, answered {status}, upstream saw {len(seen)}"
    if status in {500, 502}:
        return f"{case['id']}: a mistake of ours, {status}"
    return f"{case['id']}: left open" if case["close"] and not closed else ""


async def test_every_case_of_the_corpus_is_judged_right() -> None:
    async with world(Limits(body=1024 * 1024), [Placed("reads", ReadsBodies())]) as it:
        wrong = [complaint for case in CASES if (complaint := await drive(it, case))]
        assert not wrong
        assert len(CASES) == 208
        assert not [line for line in it.telemetry.lines if line["event"] != "request"]


async def test_the_judge_sees_a_gateway_that_lets_everything_through() -> None:
    async with world() as it:
        reject = {"id": "control", "expect": "reject", "close": False}
        raw = b"GET /v1/payments HTTP/1.1\r\nHost: api.example\r\n\r\n"
        assert "upstream saw 1" in await drive(it, {**reject, "raw_b64": base64.b64encode(raw).decode()})
