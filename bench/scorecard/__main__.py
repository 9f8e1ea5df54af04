"""`python -m bench.scorecard [--suites DIR:DIR]`: plays all cases, prints the card, exits with 1 on a wrong answer."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.report import REPORTS, versions
from bench.scorecard.backend import recording
from bench.scorecard.cases import Exchange, Suite, Tally
from bench.scorecard.drive import CANARIES, run
from bench.scorecard.formats import UnknownFormatError, read_suites
from bench.scorecard.targets import GATEWAY, PEERS, target, working_folder
from bench.stage import PeerMissingError

SAMPLES = Path(__file__).parent / "samples"
CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
REPORT = REPORTS / "scorecard.json"
_COLUMNS = (
    "cases",
    "controls",
    "wrong",
    "refused_controls",
    "excepted",
    "server_errors",
    "left_open",
    "canaries",
    "not_built",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", default="", help="folders and files, with : between; besides, our own samples")
    parser.add_argument("--no-peers", action="store_true", help="play the cases at Pangate alone")
    options = parser.parse_args()
    given = [Path(part) for part in options.suites.split(":") if part]
    folders = [*(given or ([CORPORA] if CORPORA.is_dir() else [])), SAMPLES]
    try:
        suites = [suite for folder in folders for suite in read_suites(folder)]
    except (UnknownFormatError, OSError) as error:
        print(f"scorecard: {error}", file=sys.stderr)
        return 2
    cards = asyncio.run(_play(suites, () if options.no_peers else PEERS))
    _publish(cards)
    return 1 if any(tally.wrong for tally in cards[GATEWAY]) else 0


async def _play(suites: Sequence[Suite], peers: Sequence[str]) -> dict[str, Sequence[Tally]]:
    """The tallies of each proxy; a peer plays what is bytes, and one that this machine lacks nothing."""
    names = (GATEWAY, *peers)
    played = await asyncio.gather(*(_play_at(name, suites) for name in names))
    return {name: tallies for name, tallies in zip(names, played, strict=True) if tallies}


async def _play_at(name: str, suites: Sequence[Suite]) -> Sequence[Tally]:
    ours = name == GATEWAY
    with working_folder() as folder:
        try:
            async with recording() as backend:
                with target(name, folder, backend) as proxy:
                    played = suites if ours else [some for some in map(_for_peers, suites) if some.cases]
                    tallies = [await run(suite, proxy) for suite in played]
        except PeerMissingError as missing:
            print(f"scorecard: {name} is not asked: {missing}", file=sys.stderr)
            return []
        return [*tallies, _log(folder / f"{name}.log")] if ours else tallies


def _for_peers(suite: Suite) -> Suite:
    """What is bytes for anybody."""
    return Suite(suite.name, suite.format, [case for case in suite.cases if isinstance(case.play, Exchange)])


def _log(path: Path) -> Tally:
    """What the gateway wrote while it was asked: nothing that was sent to it may be in there, and no crash."""
    tally = Tally("the gateway's log", "JSON lines")
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        tally.cases += 1
        found = sum(canary in line for canary in CANARIES)
        crashed = not line.startswith(b"{") or b'_crashed"' in line
        tally.canaries += found
        if found or crashed:
            tally.wrong += 1
            tally.complaints.append(f"line {number}: {'a canary' if found else 'a crash'}")
    return tally


def _publish(cards: dict[str, Sequence[Tally]]) -> None:
    for name, tallies in cards.items():
        print(f"\n{name}")
        for tally in tallies:
            counts = ", ".join(f"{getattr(tally, column)} {column}" for column in _COLUMNS if getattr(tally, column))
            print(f"  {tally.suite} ({tally.format}): {counts}")
            if name == GATEWAY:
                print("".join(f"    WRONG {complaint}\n" for complaint in tally.complaints), end="")
    REPORTS.mkdir(parents=True, exist_ok=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "rows": {name: [asdict(tally) for tally in tallies] for name, tallies in cards.items()},
    }
    REPORT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
