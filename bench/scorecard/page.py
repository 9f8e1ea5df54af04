"""`python -m bench.scorecard.page`: docs/security-scorecard.md, from the report of the last run of `make scorecard`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import REPORTS

PAGE = Path(__file__).parents[2] / "docs" / "security-scorecard.md"
NAMES = {"pangate": "Pangate", "minimal_aiohttp": "a minimal aiohttp proxy", "nginx": "nginx"}
_VERSIONS = {"python", "openssl", "aiohttp", "uvloop", "httptools", "cryptography", "pyjwt", "nginx"}
_COLUMNS = {
    "cases": "cases",
    "wrong": "wrong",
    "controls": "controls",
    "refused_controls": "of them refused",
    "excepted": "on purpose",
    "server_errors": "5xx",
    "left_open": "left open",
    "canaries": "canaries",
    "not_built": "not built",
}
_INTRODUCTION = """\
# Security scorecard

Every figure on this page is from one run of `make scorecard` on {date}, with {versions}.
`python -m bench.scorecard.page` makes it from the run's report, `var/reports/scorecard.json`.

A case is wrong if an attack came through, if honest traffic (a control) was refused, if the answer was a 5xx that does
not speak of the request, if a connection was left open after framing had been refused, or if a canary (a card number, a
secret) stood where it must not: in what the backend got, in an error, in the log. *Not built* are cases that are a name
only and that the run does not know how to make; they count neither way. Honest cases that Pangate refuses by a rule of
its own, *on purpose*, are told one by one below.

The peers get the same bytes where a case is bytes, with their defaults. They forward, and read no bodies: what they
pass on of JSON is what a service behind them has to refuse by itself. Cases under `samples` are ours and in the
repository; those under `corpora` are not.
"""


def page(report: Mapping[str, Any]) -> str:
    """The page of a report."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if name in _VERSIONS)
    parts = [_INTRODUCTION.format(date=report["date"][:10], versions=versions)]
    for name, rows in report["rows"].items():
        parts.append(f"\n## {NAMES.get(name, name)}\n\n{''.join(_table(rows))}")
    exceptions = list(_exceptions(report["rows"].get("pangate", ())))
    if exceptions:
        parts.append("\n## Honest cases that Pangate refuses on purpose\n\n" + "".join(exceptions))
    return "".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"| suite | format | {' | '.join(_COLUMNS.values())} |\n"
    yield f"| --- | --- |{' --: |' * len(_COLUMNS)}\n"
    for row in rows:
        yield f"| {row['suite']} | {row['format']} | {' | '.join(str(row[key]) for key in _COLUMNS)} |\n"


def _exceptions(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        for exception in row["exceptions"]:
            if not exception.endswith(": not built"):
                yield f"- {row['suite']}: {exception}\n"


def main() -> None:
    PAGE.write_text(page(json.loads((REPORTS / "scorecard.json").read_text())))


if __name__ == "__main__":
    main()
