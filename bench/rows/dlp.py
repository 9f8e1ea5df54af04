"""`dlp_*`: what it costs to look for card numbers that nobody declared, and what is found and what is not.

- `dlp_clean`: CPU of a scan of 600 bytes of JSON without a card.
- `dlp_speed`: of 1 MiB, by the slowest of the inputs: ordinary log lines, and bytes that are made to be slow. A scan
  that gives up because of `MAX_NUMBERS` counts as one of the whole.
- `dlp_lines`: of 300,000 lines without a card, those that are taken for one; void if a time or a UUID is among them, or
  if one of the planted test numbers is not found by its network.

In this process, by its own CPU time: neither a gateway nor a loader takes part.
"""

from __future__ import annotations

import base64
import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from bench.log_lines import clean, planted
from bench.report import Row, at_least, at_most
from bench.stage import Size, Stage
from gateway.pure.card_scan import Scanner, TooManyNumbers

IDS = ("dlp_clean", "dlp_speed", "dlp_lines")
LINES: Final[Mapping[Size, int]] = {"quick": 10_000, "usual": 300_000}
MIB: Final = 1 << 20
CALLS = 2000
_SEED = 6
PAYMENT: Final = b"""{"id": "pay_9rTgYw2", "request": "3f2a9c1e-77aa-4b1c-9d2e-0123456789ab", "amount": 109900,
 "currency": "EUR", "description": "two chairs, a table", "created": 1763920576124, "customer": {"id": "cus_81Hq",
 "email": "jane@shop.example", "phone": "+4930123456", "name": "Jane Doe"}, "card": {"token":
 "tok_live_2Nq7dYbWm4xUz9RkTfGh1aJc3e", "expires": "2030-12", "network": "visa"},
 "lines": [{"sku": "CH-2201", "count": 2, "price": 29900}, {"sku": "TB-0042",
 "count": 1, "price": 50100}], "address": {"street": "Am Markt 17", "zip": "10115", "city": "Berlin", "country": "DE"},
 "metadata": {"cart": "c_550912", "channel": "web"}}"""
"""A payment as services send it: a UUID, a time, a token, no card."""
_NEVER: Final = frozenset({"times", "uuids"})
_HOSTILE: Final = {
    "digits": b"4",
    "digits apart": b"4 ",
    "numbers of four digits": b"2222 ",
    "numbers that fail the check": b"4242424242424243 ",
    "numbers of nobody": b"2000000000000000,",
    "times": b"1800000000000,",
    "base64 of digits": b"MDAw",
    "nearly that": b"MD",
    "escapes": b"%34",
    "escaped escapes": b"%25",
    "JSON escapes": b"\\u0034",
    "entities": b"&#52;",
}


async def measure(stage: Stage, rounds: int) -> list[Row]:
    scanner = Scanner()
    speeds = {name: rate(scanner, data, rounds) for name, data in inputs().items()}
    return [
        at_most("dlp_clean", microseconds(scanner, PAYMENT, rounds), 12, "us CPU", f"{len(PAYMENT)} bytes"),
        *speed(speeds),
        lines(scanner, LINES[stage.size]),
    ]


def inputs() -> dict[str, bytes]:
    """1 MiB each."""
    chance = random.Random(_SEED)
    log = b"".join(text.encode() + b"\n" for kind, text in clean(20_000, _SEED) if kind in ("access", "uuids"))
    made = {"log lines": log, "base64": base64.b64encode(chance.randbytes(MIB)), "random bytes": chance.randbytes(MIB)}
    made |= _HOSTILE
    return {name: (unit * (MIB // len(unit) + 1))[:MIB] for name, unit in made.items()}


def rate(scanner: Scanner, data: bytes, rounds: int) -> float:
    """MB a second, the median of the rounds."""
    return len(data) / statistics.median(seconds(scanner, data) for _ in range(rounds)) / 1e6


def microseconds(scanner: Scanner, data: bytes, rounds: int) -> float:
    """Of one scan."""
    return statistics.median(seconds(scanner, data, CALLS) for _ in range(rounds)) / CALLS * 1e6


def seconds(scanner: Scanner, data: bytes, calls: int = 1) -> float:
    """CPU of so many scans of the whole data."""
    began = time.process_time()
    for _ in range(calls):
        with contextlib.suppress(TooManyNumbers):
            for _ in scanner.scan(data):
                pass
    return time.process_time() - began


def speed(rates: Mapping[str, float]) -> list[Row]:
    """The slowest, and the ordinary one."""
    slowest = min(rates, key=rates.__getitem__)
    return [
        at_least("dlp_speed", rates[slowest], 80, "MB/s", f"of {slowest}, the slowest of {len(rates)}"),
        Row("dlp_log_lines", rates["log lines"], "MB/s"),
    ]


def lines(scanner: Scanner, count: int) -> Row:
    """What part of clean lines is taken for a card, in percent."""
    taken = Counter(kind for kind, text in clean(count, _SEED) if next(scanner.scan(text.encode()), None) is not None)
    missed = sum(
        network not in (found.network for found in scanner.scan(text.encode())) for network, text in planted(1)
    )
    never = sum(taken[kind] for kind in _NEVER)
    part = 100 * sum(taken.values()) / count
    note = f"{count:,} lines; times and UUIDs taken for a card: {never}; planted numbers not found: {missed}"
    return at_most("dlp_lines", part if not never and not missed else None, 0.1, "% taken for a card", note)
