"""Log lines as services write them, made up: what a search for card numbers must leave alone, and what it must find."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from gateway.pure.cards import luhn_valid

CARDS: Final = {
    "visa": ("4242424242424242", "4111111111111111", "4222222222222", "4012888888881881", "4000056655665556"),
    "mastercard": ("5555555555554444", "2223003122003222", "5105105105105100"),
    "amex": ("378282246310005", "371449635398431"),
    "diners": ("30569309025904", "36227206271667", "38520000023237"),
    "discover": ("6011111111111117", "6011000990139424", "6445644564456445"),
    "jcb": ("3566002020360505", "3530111333300000"),
    "unionpay": ("6200000000000005", "6205500000000000004"),
    "mir": ("2200000000000004",),
    "elo": ("6362970000457013",),
    "hiper": ("6370950000000005",),
    "hipercard": ("6062826786276634",),
    "verve": ("5060990580000217499",),
    "dankort": ("5019717010103742",),
    "forbrugsforeningen": ("6007220000000004",),
}
"""Published test numbers."""
ZEROS: Final = {
    network: tuple(next(made for check in "0123456789" if luhn_valid(made := first + check)) for first in begins)
    for network, begins in {
        "jcb": ("1800".ljust(14, "0"), "2131".ljust(14, "0")),
        "rupay": ("508500".ljust(15, "0"), "817200".ljust(15, "0")),
        "troy": ("9792".ljust(15, "0"),),
        "napas": ("9704".ljust(15, "0"), "9704".ljust(18, "0")),
        "uzcard": ("8600".ljust(15, "0"), "5614".ljust(15, "0")),
        "humo": ("9860".ljust(15, "0"),),
    }.items()
}
"""For ranges of which we know no published one: zeros, and the check digit that fits."""

_FRAMES: Final = ("declined: {}", '{{"note": "{}"}}', "pan={};", "PUT /cards/{} 200", "{}", "<n>{}</n>", "n{},12/30")
_KINDS: dict[str, Callable[[random.Random], str]] = {}


def clean(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """So many lines without a card, each with its kind, all kinds in turn; the same for the same seed."""
    chance = random.Random(seed)
    kinds = tuple(_KINDS.items())
    for number in range(count):
        kind, line = kinds[number % len(kinds)]
        yield kind, line(chance)


def planted(seed: int) -> Iterator[tuple[str, str]]:
    """Lines with a test number each, by network: every number in every frame, in one group and as on the card."""
    chance = random.Random(seed)
    for network, numbers in (*CARDS.items(), *ZEROS.items()):
        for number in numbers:
            for frame in _FRAMES:
                for spelling in (number, grouped(number, " "), grouped(number, "-")):
                    yield network, f"{_time(chance).isoformat()} {frame.format(spelling)}"


def grouped(number: str, separator: str) -> str:
    """As it is embossed: 4-6-5, 4-6-4, or in fours."""
    cuts = {14: (4, 10), 15: (4, 10)}.get(len(number), tuple(range(4, len(number), 4)))
    return separator.join(number[start:end] for start, end in zip((0, *cuts), (*cuts, len(number)), strict=True))


def _kind(line: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    _KINDS[line.__name__] = line
    return line


def _time(chance: random.Random) -> dt.datetime:
    """Between 2015 and 2035."""
    return dt.datetime.fromtimestamp(chance.uniform(1.42e9, 2.05e9), dt.UTC)


def _uuid(chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def _digits(chance: random.Random, width: int) -> str:
    return str(chance.randrange(10 ** (width - 1), 10**width))


@_kind
def access(chance: random.Random) -> str:
    sizes = " ".join(str(chance.randrange(10**6)) for _ in range(4))
    address = ".".join(str(chance.randrange(256)) for _ in range(4))
    return f'{address} - - [{_time(chance):%d/%b/%Y:%H:%M:%S +0000}] "GET /v1/payments/{_uuid(chance)}" 200 {sizes}'


@_kind
def uuids(chance: random.Random) -> str:
    return f"trace {_uuid(chance)} parent {_uuid(chance).hex} span {chance.getrandbits(64):016x}"


@_kind
def digests(chance: random.Random) -> str:
    return f"sha256:{chance.getrandbits(256):064x} etag {chance.getrandbits(160):040x}"


@_kind
def times(chance: random.Random) -> str:
    now = _time(chance)
    seconds = now.timestamp()
    stamps = f"{seconds * 1e3:.0f} {seconds * 1e6:.0f} {seconds * 1e9:.0f} {seconds:.6f} {seconds}"
    return f"{now.isoformat()} {now:%Y%m%d%H%M%S%f} {now:%Y%m%d %H%M%S} {now:%Y-%m-%d %H%M} {stamps}"


@_kind
def orders(chance: random.Random) -> str:
    width = chance.randrange(8, 20)
    return f'{{"orderNumber": "{_digits(chance, width)}", "invoice_id": {_digits(chance, width)}, "amount": 10.99}}'


@_kind
def more_orders(chance: random.Random) -> str:
    return (
        f"order {_digits(chance, 16)} GET /orders/{_digits(chance, 18)} ORD-{_time(chance):%Y%m%d}-{_digits(chance, 6)}"
    )


@_kind
def people(chance: random.Random) -> str:
    phone = f"+{_digits(chance, 2)} {_digits(chance, 3)} {_digits(chance, 4)} {_digits(chance, 4)}"
    return f"tel: {phone} tel=+{_digits(chance, 12)} id {_digits(chance, 9)} zip {_digits(chance, 5)}"


@_kind
def figures(chance: random.Random) -> str:
    return (
        f"p50={chance.random():.16f} sum={chance.uniform(0, 1e6):.4f} at ({chance.gauss():.14f}, {chance.gauss():.14f})"
    )


@_kind
def tokens(chance: random.Random) -> str:
    return f"Bearer {chance.randbytes(48).hex()} {_uuid(chance)} tok_live_{chance.getrandbits(96):024x}"


@_kind
def mostly_unnamed(chance: random.Random) -> str:
    """One line in four of this kind holds a number that nothing names: every fortieth of those looks like a card."""
    return f"done {_digits(chance, 16 if chance.random() < 0.25 else 11)} in {chance.randrange(10**4)} ms"
