"""`make faults`: the gateway is killed, simulated and cut off from power, and so are controls that have to be caught.

`--shard i/n` runs the i-th of n parts of every campaign (`--only` names some) and leaves its scores in
var/reports/faults/; a part that was run on the code as it is now is not run again. The report sums the parts that are
there, so that it can be made bit by bit, and in parallel. The exit code is that of this shard.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.report import REPORTS, Row, publish
from tests.faults import campaign, money, power, simulate

PARTS = REPORTS / "faults"
CONTROLS_TRIED = 40
"""Times that a control may get away with it."""
_ATTACKED = ("gateway", "tests/faults", "tests/e2e/harness.py", "examples/demo/wire.py")


@dataclass(frozen=True, slots=True)
class Score:
    """How often it was `done`, how much was looked at (`seen`), and the `harm`; `again` shows a red one once more."""

    done: int = 0
    seen: int = 0
    harm: int = 0
    again: str = ""

    def __add__(self, other: Score) -> Score:
        again = self.again or other.again
        return Score(self.done + other.done, self.seen + other.seen, self.harm + other.harm, again)


@dataclass(frozen=True, slots=True)
class Campaign:
    """`attack(share, seed)` is one part; it is done `whole` times (`each`) in all and looks at `things`.

    A control is one attempt at something that is broken on purpose, from a seed.
    """

    whole: int
    each: str
    things: str
    attack: Callable[[int, int], Score]
    controls: Mapping[str, Callable[[int], Score]]


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
        return whole // self.count + (self.index <= whole % self.count)


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


# --- the campaigns ---------------------------------------------------------------------------------------------------


def kill_tokens(kills: int, seed: int) -> Score:
    with tempfile.TemporaryDirectory(prefix="pangate-faults-") as folder:
        tally = asyncio.run(campaign.attack(Path(folder), kills, seed))
    return Score(tally.kills, tally.tokens, tally.harm)


def control_tokens(seed: int) -> Score:
    with tempfile.TemporaryDirectory(prefix="pangate-faults-") as folder:
        tally = asyncio.run(campaign.control(Path(folder), seed))
    return Score(tally.kills, tally.tokens, tally.lost)


def kill_money(kills: int, seed: int, program: Sequence[str] = campaign.PRODUCT) -> Score:
    with tempfile.TemporaryDirectory(prefix="pangate-faults-") as folder:
        found = asyncio.run(money.attack(Path(folder), kills, seed, program))
    return Score(found.kills, found.payments, len(found.harm) + len(found.missed))


def simulated(plan: str) -> Callable[[int, int], Score]:
    def run(crashes: int, seed: int) -> Score:
        lived = simulate.live_on({**simulate.PLANS, **simulate.CONTROLS}[plan], seed, crashes)
        again = "" if lived.red is None else simulate.replay(plan, lived.red)
        return Score(lived.crashes, lived.payments, lived.harm, again)

    return run


def simulate_all(crashes: int, seed: int) -> Score:
    """Each plan has its share."""
    plans = [simulated(plan) for plan in simulate.PLANS]
    shares = [Shard(n, len(plans)).share(crashes) for n in range(1, len(plans) + 1)]
    return sum((run(share, seed) for run, share in zip(plans, shares, strict=True)), Score())


def lose_power(moments: int, seed: int) -> Score:
    """In runs of a size at which a store is still small enough to be read through at every moment."""
    tally = power.Tally()
    for start in range(0, moments, power.MOMENTS_AT_A_TIME):
        tally += power.attack(seed + start, min(power.MOMENTS_AT_A_TIME, moments - start))
    return Score(tally.moments, tally.units, tally.harm)


def control_power(synchronous: str) -> Callable[[int], Score]:
    def run(seed: int) -> Score:
        tally = power.control(seed, power.MOMENTS_AT_A_TIME, synchronous)
        return Score(tally.moments, tally.units, tally.harm)

    return run


CAMPAIGNS: Mapping[str, Campaign] = {
    "kill9": Campaign(200, "kills", "tokens", kill_tokens, {"answered-early": control_tokens}),
    "kill9_money": Campaign(
        100,
        "kills",
        "payments",
        kill_money,
        {
            "answered-early": lambda seed: kill_money(2, seed, campaign.EAGER),
            "believed-at-once": lambda seed: kill_money(4, seed, campaign.HASTY),
        },
    ),
    "simulated": Campaign(
        100_000,
        "crashes",
        "payments",
        simulate_all,
        {control: functools.partial(simulated(control), 10) for control in simulate.CONTROLS},
    ),
    "powerloss": Campaign(
        2_000,
        "moments",
        "units",
        lose_power,
        {f"synchronous-{mode}": control_power(mode) for mode in ("OFF", "NORMAL")},
    ),
}

# --- parts and rows --------------------------------------------------------------------------------------------------


def code_digest() -> str:
    """Of the product and of what attacks it."""
    digest = hashlib.sha256()
    for place in map(Path, _ATTACKED):
        for path in sorted(place.rglob("*")) if place.is_dir() else (place,):
            if path.suffix in {".py", ".lua", ".yaml"}:
                digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def caught(attempt: Callable[[int], Score], seed: int) -> Score:
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


def rows(name: str, planned: Campaign, parts: Sequence[Part]) -> Iterator[Row]:
    """A row is met when all of it was done; until then it can only fail. What was not run has no figure."""
    if not parts:
        yield from (Row(row, None, "harm") for row in (name, *(f"{name}_control:{each}" for each in planned.controls)))
        return
    product = sum((part.product for part in parts), Score())
    goal = f"0 of {product.seen} {planned.things} in {product.done}/{planned.whole} {planned.each}"
    met = False if product.harm else product.done >= planned.whole or None
    yield Row(name, product.harm, "harm", goal, met, product.again)
    for control in planned.controls:
        scores = [part.controls.get(control, Score()) for part in parts]
        early = sum(scores, Score())
        goal = f"some in {early.done} {planned.each}"
        yield Row(f"{name}_control:{control}", early.harm, "harm", goal, all(score.harm for score in scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", type=Shard.parse, default=Shard(1, 1), metavar="I/N")
    parser.add_argument("--only", action="append", choices=CAMPAIGNS, help="this campaign; may come more than once")
    parser.add_argument("--seed", type=int, default=None, help="of everything random in this shard")
    options = parser.parse_args()
    shard: Shard = options.shard
    seed = random.getrandbits(32) if options.seed is None else options.seed
    code, sound = code_digest(), True
    table: list[Row] = []
    for name, planned in CAMPAIGNS.items():
        found = dict(kept(name, shard, code, planned.whole))
        if name in (options.only or CAMPAIGNS) and shard.index not in found:
            share = f"{shard.share(planned.whole)} {planned.each}"
            print(f"{name}, shard {shard.index}/{shard.count}: {share}, seed {seed}", flush=True)
            part = run(planned, shard, code, seed)
            keep(name, shard, part)
            found[shard.index] = part
        sound &= shard.index not in found or found[shard.index].sound
        table += rows(name, planned, list(found.values()))
    publish("faults", table)
    sys.exit(not sound)


if __name__ == "__main__":
    main()
