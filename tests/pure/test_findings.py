"""What is said of a database's settings."""

from __future__ import annotations

import pytest

from gateway.pure.findings import (
    Finding,
    Memory,
    judge_clocks,
    judge_memory,
    judge_postgres,
    judge_room,
    judge_sqlite,
)

POSTGRES = {
    "server_version_num": "150018",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "transaction_read_only": "off",
    "server_encoding": "UTF8",
    "data_checksums": "off",
    "synchronous_standby_names": "",
}
SQLITE = {"journal_mode": "wal", "synchronous": "2", "quick_check": "ok"}


def bad(findings: object) -> list[str]:
    return [finding.what for finding in findings if not finding.good]  # type: ignore[attr-defined]


def test_a_server_as_it_is_installed_is_good() -> None:
    assert bad(judge_postgres(POSTGRES)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_version_num", "130012"),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("synchronous_commit", "local"),
        ("transaction_read_only", "on"),
        ("server_encoding", "SQL_ASCII"),
    ],
)
def test_what_can_lose_an_answer_is_bad(name: str, value: str) -> None:
    assert bad(judge_postgres(POSTGRES | {name: value})) == [name]


def test_what_a_standby_is_good_for_is_said() -> None:
    alone, safe = (
        next(f for f in judge_postgres(POSTGRES | {"synchronous_standby_names": names}) if "standby" in f.what)
        for names in ("", "ANY 1 (b, c)")
    )
    assert (alone.value, "can lose commits" in alone.meaning) == ("none", True)
    assert (safe.value, "can lose" in safe.meaning) == ("ANY 1 (b, c)", False)


@pytest.mark.parametrize(("most", "good", "processes"), [(100, True, 10), (20, False, 0)])
def test_there_must_be_room_for_one_process(most: int, good: bool, processes: int) -> None:
    finding = judge_room(most, 3, 8)
    assert (finding.good, f"room for {processes} processes" in finding.meaning) == (good, True)


@pytest.mark.parametrize(("apart", "good"), [(0.0, True), (-1.9, True), (2.1, False), (-3600.0, False)])
def test_clocks_may_be_a_little_apart(apart: float, good: bool) -> None:
    assert judge_clocks(apart).good is good


@pytest.mark.parametrize(
    ("version", "settings", "found"),
    [
        ((3, 51, 3), {}, []),
        ((3, 51, 2), {}, ["SQLite"]),
        ((3, 54, 1), {"journal_mode": "delete"}, ["journal_mode"]),
        ((3, 54, 1), {"synchronous": "1"}, ["synchronous"]),
        ((3, 54, 1), {"quick_check": "row 3 missing from index"}, ["quick_check"]),
    ],
)
def test_sqlite_is_judged_by_its_version_and_what_it_syncs(
    version: tuple[int, ...], settings: dict[str, str], found: list[str]
) -> None:
    assert bad(judge_sqlite(version, SQLITE | settings)) == found


def test_a_finding_is_a_line() -> None:
    assert str(Finding("fsync", "off", "is bad", good=False)) == "BAD  fsync = off: is bad"


@pytest.mark.parametrize(
    ("memory", "what"),
    [
        (Memory(dumps=False, locked=True, swap=True), []),
        (Memory(dumps=False, locked=False, swap=False), []),
        (Memory(dumps=False, locked=False, swap=True), ["memory"]),
        (Memory(dumps=True, locked=True, swap=False), ["core dumps"]),
    ],
)
def test_what_is_in_memory_may_reach_no_disk(memory: Memory, what: list[str]) -> None:
    assert bad(judge_memory(memory)) == what
