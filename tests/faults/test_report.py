"""The report of the faults: shards add up, and nothing is called met that was not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.campaigns import CAMPAIGNS, Campaign, Score
from bench.faults import (
    CONTROLS_TRIED,
    Part,
    Shard,
    attacked,
    caught,
    controlled,
    keep,
    kept,
    rows,
    run,
)

CLEAN = Score(done=100, seen=5_000)
CAUGHT = Score(done=1, seen=50, harm=3)
PLANNED = Campaign(
    "kill9", 200, "kills", "tokens", lambda share, seed: Score(share, 50 * share), {"early": lambda seed: CAUGHT}
)
BOTH = {"tokens": PLANNED, "money": PLANNED}


def part(product: Score = CLEAN, control: Score = CAUGHT, code: str = "now") -> Part:
    return Part(code, 200, product, {"early": control})


@pytest.mark.parametrize("count", [1, 3, 7, 200, 300])
def test_shards_share_the_whole(count: int) -> None:
    assert sum(Shard(i, count).share(200) for i in range(1, count + 1)) == 200
    assert sum(run(PLANNED, Shard(i, count), "now", 1).product.done for i in range(1, count + 1)) == 200


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", ""])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Shard.parse(text)


def test_shards_of_the_same_code_and_plan_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep("kill9", Shard(1, 2), part())
    keep("kill9", Shard(2, 2), part(code="before"))
    keep("kill9", Shard(1, 1), part())
    keep("simulated", Shard(2, 2), part())
    assert list(kept("kill9", Shard(1, 2), "now", 200)) == [(1, part())]
    assert list(kept("kill9", Shard(1, 2), "now", 300)) == []
    keep("kill9", Shard(2, 2), part())
    assert list(kept("kill9", Shard(1, 2), "now", 200)) == [(1, part()), (2, part())]


def test_the_goal_is_met_only_by_all_of_it_without_harm() -> None:
    def met(*parts: Part) -> bool | None:
        return attacked("kill9", {"tokens": PLANNED}, {"tokens": parts}).met

    assert met(part()) is None
    assert met(part(), part()) is True
    assert met(part(), part(CLEAN + Score(harm=1))) is False
    assert met(part(CLEAN + Score(harm=1))) is False


def test_campaigns_of_one_row_are_met_together() -> None:
    half = attacked("kill9", BOTH, {"tokens": [part(), part()], "money": [part()]})
    assert (half.met, half.goal) == (None, "0 of 10000 tokens, 5000 tokens in 300/400 kills")
    assert attacked("kill9", BOTH, {"tokens": [part(), part(), part()], "money": [part()]}).met is None
    assert attacked("kill9", BOTH, {"tokens": [part(), part()], "money": [part(), part()]}).met is True


def test_what_was_not_run_has_no_figure_and_no_verdict() -> None:
    assert [(row.name, row.value, row.met) for row in rows(BOTH, {"tokens": []})] == [
        ("kill9", None, None),
        ("early", None, None),
    ]


def test_a_red_row_says_how_to_see_it_again() -> None:
    red = part(CLEAN + Score(harm=1, again="python -m it"))
    assert attacked("kill9", {"tokens": PLANNED}, {"tokens": [part(), red, red]}).note == "python -m it"
    assert not red.sound


def test_a_control_that_is_not_caught_fails_the_run() -> None:
    missed = part(control=Score(done=40, seen=2_000))
    assert part().sound
    assert not missed.sound
    assert controlled("early", {"tokens": PLANNED}, {"tokens": [part(), missed]}).met is False
    assert controlled("early", BOTH, {"tokens": [part()], "money": [missed]}).met is False


def test_a_control_is_met_when_every_campaign_that_shows_it_has_caught_it() -> None:
    assert controlled("early", BOTH, {"tokens": [part()]}).met is None
    met = controlled("early", BOTH, {"tokens": [part()], "money": [part(), part()]})
    assert (met.met, met.value, met.note) == (True, 9, "tokens: 3 in 1 kills, money: 6 in 2 kills")


def test_a_control_is_tried_until_it_is_caught_or_often_enough() -> None:
    assert caught(lambda seed: Score(1, 1, harm=seed == 5), seed=3) == Score(3, 3, 1)
    assert caught(lambda seed: Score(1), seed=0) == Score(CONTROLS_TRIED)


def test_the_report_has_the_rows_that_are_promised_and_every_campaign_a_control() -> None:
    names = [row.name for row in rows(CAMPAIGNS, {})]
    assert {"kill9", "simulated", "powerloss", "race_refund", "race_key", "rolling", "rewrap"} <= set(names)
    assert {"in_flight_max 0", "answer before commit", "guard without reservations"} <= set(names)
    assert len(names) == len(set(names))
    assert [name for name, planned in CAMPAIGNS.items() if not planned.controls] == []
    assert sum(planned.whole for planned in CAMPAIGNS.values() if planned.row == "kill9") >= 1_000
    assert CAMPAIGNS["simulated"].whole >= 100_000
