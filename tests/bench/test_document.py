"""docs/performance.md says what the report says: every figure of the last run, its goals, and what was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.document import KEPT, PAGE, PICTURE, TRIED, Report, render, sections
from bench.report import Row

SAMPLE = Report.parse((Path(__file__).parents[1] / "data" / "bench" / "report.json").read_text())
SAID = {"idle": "Three ways were tried."}


def line_of(page: str, row: str) -> list[str]:
    """The cells of a row's only line."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{row}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_the_page_of_this_repository_is_that_of_its_report() -> None:
    assert PAGE.is_file() == KEPT.is_file()
    report = text_of(KEPT)
    page = render(Report.parse(report), sections(text_of(TRIED)), picture=PICTURE.is_file()) if report else ""
    assert text_of(PAGE) == page


def test_every_goal_stands_with_its_value_and_its_verdict() -> None:
    page = render(SAMPLE, SAID, picture=False)
    assert line_of(page, "bare_to_nginx")[2:] == ["2.02", "ratio", "at most 2.3", "yes"]
    assert line_of(page, "idle")[2:] == ["57.1", "KiB/connection", "at most 55", "no"]


def test_what_was_not_measured_says_why_and_is_met_by_nobody() -> None:
    page = render(SAMPLE, SAID, picture=False)
    assert line_of(page, "policed_to_envoy")[2:] == ["-", "ratio", "at most 1.2", "not measured: no envoy here"]
    assert line_of(page, "envoy")[2:] == ["not measured: no envoy here"] * 2


def test_costs_stand_side_by_side() -> None:
    page = render(SAMPLE, SAID, picture=False)
    assert line_of(page, "bare")[2:] == ["101", "99.4"]
    assert line_of(page, "nginx")[2:] == ["50.0", "9.88"]


def test_no_row_of_the_report_is_left_out() -> None:
    page = render(SAMPLE, SAID, picture=False)
    names = {row.name.removesuffix("_16").removesuffix("_64") for row in SAMPLE.rows}
    assert len(names) == len(SAMPLE.rows) - 3
    for name in names:
        assert line_of(page, name)


def test_the_page_names_its_day_its_versions_and_what_is_not_claimed() -> None:
    page = render(SAMPLE, SAID, picture=False)
    assert "2026-01-02, machine Linux 6.1, x86_64, 2 cores, nginx 1.22.1, python 3.11.7." in page
    assert "compiled language was not measured" in page
    assert "make bench" in page


def test_a_missed_goal_is_published_only_with_what_was_tried() -> None:
    assert "### `idle`\n\nThree ways were tried.\n" in render(SAMPLE, SAID, picture=False)
    with pytest.raises(ValueError, match=r"tried for idle"):
        render(SAMPLE, {}, picture=False)
    kept = replace(SAMPLE, rows=[row for row in SAMPLE.rows if row.met is not False])
    assert "tried" not in render(kept, {}, picture=False)


def test_the_picture_is_shown_where_there_is_one() -> None:
    assert "(performance.svg)" in render(SAMPLE, SAID, picture=True)
    assert "(performance.svg)" not in render(SAMPLE, SAID, picture=False)


def test_sections_are_read_by_their_names() -> None:
    text = "Why.\n\n## idle\n\nOne: 60.\n\n### More\n\n## bare_to_nginx\n\nTwo.\n"
    assert sections(text) == {"idle": "One: 60.\n\n### More", "bare_to_nginx": "Two."}


@pytest.mark.parametrize("text", ["[]", "{}", json.dumps({"date": "", "versions": {}, "rows": [{"value": 1}]})])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises((KeyError, TypeError)):
        Report.parse(text)


def test_a_row_reads_back_as_it_was_written() -> None:
    assert SAMPLE.rows[6] == Row("bare_to_nginx", 2.02, "ratio", "at most 2.3", met=True)
