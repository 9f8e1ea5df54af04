"""The report of the kills: shards add up, and nothing is called met that was not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.faults import Part, Shard, keep, kept, rows
from tests.faults.ledger import Tally

CLEAN = Tally(kills=100, tokens=5_000)
CAUGHT = Tally(kills=1, tokens=50, lost=3)


def part(product: Tally = CLEAN, control: Tally = CAUGHT, code: str = "now") -> Part:
    return Part(code, 200, product, control)


@pytest.mark.parametrize("count", [1, 3, 7, 200, 300])
def test_shards_share_all_kills(count: int) -> None:
    assert sum(Shard(i, count).share(200) for i in range(1, count + 1)) == 200


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", ""])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Shard.parse(text)


def test_shards_of_the_same_code_and_plan_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep(Shard(1, 2), part())
    keep(Shard(2, 2), part(code="before"))
    keep(Shard(1, 1), part())
    assert list(kept(Shard(1, 2), part())) == [part()]
    keep(Shard(2, 2), part())
    assert list(kept(Shard(1, 2), part())) == [part(), part()]


def test_the_goal_is_met_only_by_all_kills_without_harm() -> None:
    def met(*parts: Part) -> bool | None:
        return rows(list(parts), 200)[0].met

    assert met(part()) is None
    assert met(part(), part()) is True
    for harm in (Tally(lost=1), Tally(wrong=1), Tally(damaged=1)):
        assert met(part(), part(CLEAN + harm)) is False
        assert met(part(CLEAN + harm)) is False


def test_a_control_that_is_not_caught_fails_the_run() -> None:
    missed = part(control=Tally(kills=40, tokens=2_000))
    assert part().sound
    assert not missed.sound
    assert rows([part(), missed], 200)[1].met is False


def test_a_lost_token_fails_the_run() -> None:
    assert not part(CLEAN + Tally(lost=1)).sound
