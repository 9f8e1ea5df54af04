"""`growth_tokens`: does it cost more to find a card's token among ten million than among ten thousand?

The gateway itself writes the first vault, one row for each of `FEW` cards. The large one is a copy of it, filled by
`bench.vault`. Requests then name the known cards in turn (`deduped`: a look-up and nothing to write), which lie
as far apart in the large file as chance puts them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.backend import CARD
from bench.loader import Load
from bench.report import Row, at_most
from bench.rounds import Samples, Variant, median, play, ratio
from bench.stage import Size, Stage, payment, post
from bench.vault import fill

IDS = ("growth_tokens",)
FEW: Final[Mapping[Size, int]] = {"quick": 100, "usual": 10_000}
MANY: Final[Mapping[Size, int]] = {"quick": 10_000, "usual": 10_000_000}
MOST = 1.3
CONNECTIONS = 16
REQUESTS = 4000


async def measure(stage: Stage, rounds: int) -> list[Row]:
    few, many = FEW[stage.size], MANY[stage.size]
    small, large = stage.folder / "few.db", stage.folder / "many.db"
    request = known_cards(stage, few)
    write(stage, small, request, few)
    shutil.copyfile(small, large)
    fill(large, many)
    variants = []
    for name, store in (("few", small), ("many", large)):
        proxy = stage.pangate(name=name, store=store)
        target = replace(stage.target(proxy, "/deduped"), request=request)
        variants.append(Variant(name, proxy, target, CONNECTIONS, REQUESTS))
    return rows(play(variants, rounds), few, many)


def write(stage: Stage, store: Path, request: Callable[[int], bytes], cards: int) -> None:
    """Let a gateway write a vault of so many cards, and end it. Raises WrongAnswerError or OSError."""
    with stage.nested() as first:
        load = Load(replace(stage.target(first.pangate(store=store), "/deduped"), request=request))
        try:
            load.connect(CONNECTIONS)
            load.run(cards)
        finally:
            load.close()


def known_cards(stage: Stage, count: int) -> Callable[[int], bytes]:
    """Payments with so many cards in turn. They are made up: the range is that of the published test card."""
    authorization = f"Authorization: Bearer {stage.token()}\r\n"
    bodies = [payment().replace(CARD, card(n)) for n in range(count)]
    requests = [post("/deduped", authorization, body)(0) for body in bodies]
    return lambda n: requests[n * 7919 % count]


def card(number: int) -> bytes:
    """A card number of 16 digits with a good check digit."""
    digits = f"424242{number:09d}"
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
    return f"{digits}{-(doubled + sum(map(int, digits[-2::-2]))) % 10}".encode()


def rows(found: Mapping[str, Samples], few: int, many: int) -> list[Row]:
    note = f"{few:,} and {many:,} rows"
    return [
        at_most("growth_tokens", ratio(found, "many", "few"), MOST, "ratio", note),
        Row("tokens_few_16", median(found, "few"), "us CPU/request"),
        Row("tokens_many_16", median(found, "many"), "us CPU/request"),
    ]
