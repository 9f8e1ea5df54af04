"""`make faults`: 200 kills -9 under load, and the control that has to be caught, in as many shards as are asked for.

`--shard i/n` runs the i-th of n parts and leaves its tally in var/reports/faults/. The report sums the parts that were
run on the code as it is now, so that it can be made bit by bit, and in parallel. The exit code is that of this part.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.report import REPORTS, Row, publish
from tests.faults.campaign import attack, control
from tests.faults.ledger import Tally

KILLS = 200
PARTS = REPORTS / "faults"
_ATTACKED = ("gateway", "tests/faults", "tests/e2e/harness.py", "examples/demo/wire.py")


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

    def share(self, kills: int) -> int:
        """Of so many kills, those of this part."""
        return kills // self.count + (self.index <= kills % self.count)


@dataclass(frozen=True, slots=True)
class Part:
    """What one shard found: product and control."""

    code: str
    kills: int
    product: Tally
    control: Tally

    @property
    def sound(self) -> bool:
        return self.product.harm == 0 and self.control.lost > 0


def code_digest() -> str:
    """Of the product and of what attacks it."""
    digest = hashlib.sha256()
    for place in map(Path, _ATTACKED):
        for path in sorted(place.rglob("*")) if place.is_dir() else (place,):
            if path.suffix in {".py", ".lua", ".yaml"}:
                digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(kills: int, seed: int) -> tuple[Tally, Tally]:
    """The attack and its control, each on a store of its own."""
    with tempfile.TemporaryDirectory(prefix="pangate-faults-") as folder:
        product = asyncio.run(attack(Path(folder, "product"), kills, seed))
        return product, asyncio.run(control(Path(folder, "control"), seed))


def keep(shard: Shard, part: Part) -> None:
    PARTS.mkdir(parents=True, exist_ok=True)
    (PARTS / f"{shard.index}-of-{shard.count}.json").write_text(json.dumps(asdict(part), indent=1) + "\n")


def kept(shard: Shard, like: Part) -> Iterator[Part]:
    """The parts of this division that attacked the same code with as many kills in all."""
    for path in sorted(PARTS.glob(f"*-of-{shard.count}.json")):
        found = json.loads(path.read_text())
        part = Part(found["code"], found["kills"], Tally(**found["product"]), Tally(**found["control"]))
        if (part.code, part.kills) == (like.code, like.kills):
            yield part


def rows(parts: list[Part], kills: int) -> list[Row]:
    """A row is met when all kills are in; until then it only fails."""
    product = sum((part.product for part in parts), Tally())
    early = sum((part.control for part in parts), Tally())
    whole = product.kills >= kills
    goal = f"0 of {product.tokens} in {product.kills}/{kills} kills"
    met = False if product.harm else whole or None
    caught = all(part.control.lost for part in parts)
    return [
        Row("kill9", product.harm, "lost, wrong, damaged", goal, met),
        Row("kill9_control", early.lost, "lost, answered early", f"some in {early.kills} kills", caught),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", type=Shard.parse, default=Shard(1, 1), metavar="I/N")
    parser.add_argument("--kills", type=int, default=KILLS, help="of all shards together")
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    options = parser.parse_args()
    shard: Shard = options.shard
    seed = random.getrandbits(32) if options.seed is None else options.seed
    print(f"shard {shard.index}/{shard.count}: {shard.share(options.kills)} kills, seed {seed}", flush=True)
    code = code_digest()
    part = Part(code, options.kills, *run(shard.share(options.kills), seed))
    keep(shard, part)
    publish("faults", rows(list(kept(shard, part)), options.kills))
    sys.exit(not part.sound)


if __name__ == "__main__":
    main()
