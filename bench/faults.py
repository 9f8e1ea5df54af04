"""`make faults`: the gateway is killed, simulated and cut off from power, and so are controls that have to be caught.

`--shard i/n` runs the i-th of n parts of every campaign (`--only` names some) and leaves its scores in
var/reports/faults/; a part that was run on the code as it is now is not run again. The report sums the parts that are
there, so that it can be made bit by bit, and in parallel. The exit code is that of this shard.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.campaigns import CAMPAIGNS, Campaign, Control, Score, share
from bench.report import REPORTS, Row, publish

PARTS = REPORTS / "faults"
CONTROLS_TRIED = 40
"""Times that a control may get away with it."""
_ATTACKED = ("gateway", "tests/faults", "bench/campaigns.py", "tests/e2e/harness.py", "examples/demo/wire.py")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 1) of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `i/n`. Raises ValueError."""
        index, _, count = text.partition("/")
        shard = cls(int(index), int(count))
        if not 1 <= shard.index <= shard.count:
            raise ValueError(f"expected i/n with i from 1 to n, got {text}")
        return shard

    def share(self, whole: int) -> int:
        """Of so many, those of this part."""
        return share(whole, self.index, self.count)


@dataclass(frozen=True, slots=True)
class Part:
    """What one shard found: the product, and each control."""

    code: str
    whole: int
    product: Score
    controls: Mapping[str, Score] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return self.product.harm == 0 and all(score.harm for score in self.controls.values())


def code_digest() -> str:
    """Of the product and of what attacks it."""
    digest = hashlib.sha256()
    for place in map(Path, _ATTACKED):
        for path in sorted(place.rglob("*")) if place.is_dir() else (place,):
            if path.suffix in {".py", ".lua", ".yaml"}:
                digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def caught(attempt: Control, seed: int) -> Score:
    """A control, again and again, until it is caught or has got away with it often enough."""
    score = Score()
    for n in range(CONTROLS_TRIED):
        score += attempt(seed + n)
        if score.harm:
            break
    return score


def run(planned: Campaign, shard: Shard, code: str, seed: int) -> Part:
    """The attack and its controls, each on a store of its own."""
    product = planned.attack(shard.share(planned.whole), seed)
    controls = {name: caught(attempt, seed) for name, attempt in planned.controls.items()}
    return Part(code, planned.whole, product, controls)


def keep(name: str, shard: Shard, part: Part) -> None:
    PARTS.mkdir(parents=True, exist_ok=True)
    (PARTS / f"{name}-{shard.index}-of-{shard.count}.json").write_text(json.dumps(asdict(part), indent=1) + "\n")


def kept(name: str, shard: Shard, code: str, whole: int) -> Iterator[tuple[int, Part]]:
    """The parts of this division, with their index, that attacked the same code and as often in all."""
    for index in range(1, shard.count + 1):
        path = PARTS / f"{name}-{index}-of-{shard.count}.json"
        if path.is_file():
            found = json.loads(path.read_text())
            controls = {control: Score(**score) for control, score in found["controls"].items()}
            part = Part(found["code"], found["whole"], Score(**found["product"]), controls)
            if (part.code, part.whole) == (code, whole):
                yield index, part


Found = Mapping[str, Sequence[Part]]
"""The parts of each campaign that there are."""


def rows(campaigns: Mapping[str, Campaign], found: Found) -> Iterator[Row]:
    """Of each row of the campaigns, then of each control. What was not run has no figure."""
    for row in dict.fromkeys(planned.row for planned in campaigns.values()):
        yield attacked(row, {name: planned for name, planned in campaigns.items() if planned.row == row}, found)
    for control in dict.fromkeys(control for planned in campaigns.values() for control in planned.controls):
        shown = [name for name, planned in campaigns.items() if control in planned.controls]
        yield controlled(control, {name: campaigns[name] for name in shown}, found)


def attacked(row: str, campaigns: Mapping[str, Campaign], found: Found) -> Row:
    """Met when all of it was done; until then it can only fail."""
    scores = {name: sum((part.product for part in found.get(name, ())), Score()) for name in campaigns}
    total, whole = sum(scores.values(), Score()), sum(planned.whole for planned in campaigns.values())
    if not any(found.get(name) for name in campaigns):
        return Row(row, None, "harm")
    first = next(iter(campaigns.values()))
    seen = ", ".join(f"{scores[name].seen} {planned.things}" for name, planned in campaigns.items())
    met = False if total.harm else all(scores[name].done >= each.whole for name, each in campaigns.items()) or None
    return Row(row, total.harm, "harm", f"0 of {seen} in {total.done}/{whole} {first.each}", met, total.again)


def controlled(control: str, campaigns: Mapping[str, Campaign], found: Found) -> Row:
    """Met when every part of every campaign that shows it has caught it."""
    scores = {name: [part.controls[control] for part in found.get(name, ())] for name in campaigns}
    early = {name: sum(each, Score()) for name, each in scores.items() if each}
    if not early:
        return Row(control, None, "harm")
    missed = [name for name, each in scores.items() if not all(score.harm for score in each)]
    done = ", ".join(f"{name}: {score.harm} in {score.done} {campaigns[name].each}" for name, score in early.items())
    met = False if missed else len(early) == len(campaigns) or None
    return Row(control, sum(score.harm for score in early.values()), "harm", "some, in every campaign", met, done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", type=Shard.parse, default=Shard(1, 1), metavar="I/N")
    parser.add_argument("--only", action="append", choices=CAMPAIGNS, help="this campaign; may come more than once")
    parser.add_argument("--seed", type=int, default=None, help="of everything random in this shard")
    options = parser.parse_args()
    shard: Shard = options.shard
    seed = random.getrandbits(32) if options.seed is None else options.seed
    code, sound = code_digest(), True
    parts: dict[str, list[Part]] = {}
    for name, planned in CAMPAIGNS.items():
        found = dict(kept(name, shard, code, planned.whole))
        if name in (options.only or CAMPAIGNS) and shard.index not in found:
            todo = f"{shard.share(planned.whole)} {planned.each}"
            print(f"{name}, shard {shard.index}/{shard.count}: {todo}, seed {seed}", flush=True)
            part = run(planned, shard, code, seed)
            keep(name, shard, part)
            found[shard.index] = part
        sound &= shard.index not in found or found[shard.index].sound
        parts[name] = list(found.values())
    publish("faults", list(rows(CAMPAIGNS, parts)))
    sys.exit(not sound)


if __name__ == "__main__":
    main()
