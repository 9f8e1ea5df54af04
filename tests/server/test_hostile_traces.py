"""Trace context on the wire: a valid trace goes on, any other begins anew, and nothing is put together of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.scorecard.traced import judged, request
from tests.server.edge_world import world

SAMPLES = Path(__file__).parents[2] / "bench" / "scorecard" / "samples" / "traces.jsonl"
CASES = [json.loads(line) for line in SAMPLES.read_text("utf-8").splitlines()]
VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_what_goes_on_of_a_trace_is_what_the_recommendation_says(case: dict[str, Any]) -> None:
    async with world() as it:
        assert (await it.ask(request(case))).status == 200
        (seen,) = it.upstream.seen
        assert judged(case, seen.head) == ""


@pytest.mark.parametrize(("parent", "traces"), [(VALID, 1), ("00-" + "0" * 32 + VALID[35:], 3), ("", 3)])
async def test_each_request_of_a_connection_is_a_span_of_its_own(parent: str, traces: int) -> None:
    async with world() as it:
        client = await it.client()
        for _ in range(3):
            await client.ask(request({"fields": [["traceparent", parent]] if parent else []}))
        spans = [line.split(b"-") for seen in it.upstream.seen for line in seen.head.split(b"\r\n") if b"00-" in line]
        assert (len({span[1] for span in spans}), len({span[2] for span in spans})) == (traces, 3)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ([], "0 parents"),
        ([VALID, VALID], "2 parents"),
        ([VALID], "the parent is the caller's"),
        ([VALID.replace("4736", "4737").replace("02b7", "02b8")], "the trace was broken off"),
        ([VALID.replace("02b7", "02b8")], "the state"),
    ],
)
def test_the_judge_sees_what_is_not_right(lines: list[str], wrong: str) -> None:
    row = {"fields": [["traceparent", VALID], ["tracestate", "a=1"]], "trace": VALID[3:35], "state": "a=1"}
    head = "".join(f"traceparent: {line}\r\n" for line in lines)
    assert judged(row, head.encode()).startswith(wrong)
    assert judged({**row, "trace": ""}, VALID.replace("02b7", "02b8").join(["traceparent: ", "\r\n"]).encode())
