"""Every case of the audit corpus is played, and comes out right; a record without seals would not pass one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.scorecard import audited, recipes

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "data/hostile_audit.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", CASES, ids=lambda row: row["id"])
async def test_a_hostile_case_is_detected(row: dict[str, str]) -> None:
    play = recipes.case(row).play
    assert callable(play)
    assert await play() == ""


def test_no_case_is_left_out() -> None:
    assert len(CASES) == 10


@pytest.mark.parametrize(
    "name",
    [
        *("modify one record", "swap two records", "truncate the tail", "insert a fake record", "backdate a record"),
        *("newline in subject", "ANSI escape in subject", "PAN in header", "NTP off"),
    ],
)
async def test_what_else_can_be_done_to_a_record_is_detected_as_well(name: str) -> None:
    ask = audited.question(name)
    assert ask is not None
    assert await ask() == ""


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in audited.TAMPERING])
async def test_a_verifier_that_believes_everything_is_found_out(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def content(_: object) -> list[str]:
        return []

    monkeypatch.setattr(audited, "complaints", content)
    name = {"delet|remov|drop": "delete one record"}.get(pattern, pattern.split("|", maxsplit=1)[0])
    ask = audited.question(name)
    assert ask is not None
    assert await ask() == "nothing was detected"


def test_a_name_that_nobody_knows_is_not_built() -> None:
    assert audited.question("something nobody ever wrote") is None
