"""A run fails as a whole when one answer is wrong, or a connection is dropped, before Pangate or behind it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from bench.backend import ANSWER
from bench.report import REPORTS, Row
from bench.rounds import Variant, play
from bench.run import families, run
from bench.stage import CONFIG, Proxy, Stage, open_stage
from tests.bench.crooked import DROP, crooked

REPORT = "bench-of-a-test"


@dataclass(frozen=True)
class Crooked:
    """A family with one row, measured on a server that answers rightly so many times, and then so."""

    then: Sequence[bytes]
    after: int
    behind_pangate: bool = False
    IDS: Sequence[str] = ("crooked",)

    async def measure(self, stage: Stage, rounds: int) -> list[Row]:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(crooked(self.then, self.after, None if self.behind_pangate else stage.certs))
            behind = Stage(stage.folder, stage.certs, port, stack)
            proxy = behind.pangate() if self.behind_pangate else Proxy("crooked", (os.getpid(),), port)
            found = play([Variant("crooked", proxy, stage.target(proxy, "/bare"), 2, 20)], rounds)
            return [Row("crooked", found["crooked"].cpu[0], "us CPU/request")]


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (Crooked([ANSWER.replace(b"succeeded", b"refunded!")], after=50), "WrongAnswerError: b'HTTP/1.1 201"),
        (Crooked([ANSWER.replace(b"201 Created", b"500 Oops")], after=50), "WrongAnswerError: b'HTTP/1.1 500"),
        (Crooked([DROP], after=50), "ConnectionError"),
        (Crooked([DROP], after=50, behind_pangate=True), "WrongAnswerError: b'HTTP/1.1 502"),
    ],
    ids=["a wrong body", "an error", "a dropped connection", "dropped behind Pangate"],
)
def test_a_run_with_a_wrong_answer_fails_and_publishes_nothing(
    family: Crooked, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([family], 1, REPORT) == 1
    assert said in capsys.readouterr().err
    assert not (REPORTS / f"{REPORT}.json").exists()


def test_a_run_without_one_publishes_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    report = REPORTS / f"{REPORT}.json"
    try:
        assert run([Crooked([DROP], after=60)], 1, REPORT) == 0
        assert '"name": "crooked"' in report.read_text()
        assert "| crooked" in capsys.readouterr().out
    finally:
        report.unlink(missing_ok=True)


def test_only_runs_the_families_that_know_one_of_the_rows() -> None:
    assert [family.IDS for family in families(["handshake"])] == [("handshake",)]
    assert len(families([])) > 3
    with pytest.raises(ValueError, match="polished"):
        families(["idle", "polished"])


def test_every_row_has_one_family() -> None:
    assert sorted(row for family in families([]) for row in family.IDS) == sorted([
        "policed", "durable", "bare", "stream", "redis_limit", "jwt_cold", "breaker_cost",
        "handshake", "idle", "latency", "growth_routes", "growth_tokens", "growth_time",
        "workers", "store_units", "store_prepare", "store_keys", "relay", "flow_rate", "flow_latency",
        "dlp_clean", "dlp_speed", "dlp_lines", "tokenize_one", "tokenize_many", "token_rate", "reveal_latency",
        "postgres_units", "postgres_rate",
    ])  # fmt: skip


@pytest.mark.parametrize("name", ["flow", "soak", "vault"])
def test_a_gateway_starts_with_each_configuration_that_is_measured(name: str) -> None:
    with open_stage() as stage:
        assert stage.pangate(CONFIG.parent / name / "config.yaml", BENCH_EVENTS="redis://127.0.0.1:9").port
