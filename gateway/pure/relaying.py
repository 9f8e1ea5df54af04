"""What becomes of an event that was offered to a receiver: sent, tried again, or set aside for a person.

Two failures are kept apart. An event that a receiver was given and did not take may be at fault itself: it is counted,
and parked in the end, so that it holds up its own payment alone. A receiver that is away says nothing about the event:
nothing is counted, nothing is ever parked for it, and the relay as a whole slows down until it is back.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.pure.deliveries import MAX_RETRY_AFTER

LONGEST_DELAY = 6 * 3600.0
"""Seconds between two attempts of one event, before jitter."""
LONGEST_PAUSE = 30.0
"""Seconds that the relay waits for a receiver that is away, before jitter."""

_TOO_MANY, _GONE = 429, 410


class Taking(enum.IntEnum):
    """What a receiver did with an event; of several receivers the greatest decides."""

    TAKEN = 0
    AWAY = 1
    """It was provably not given the event, or asks for time: the event is not to blame."""
    REFUSED = 2
    """It was given the event, or may have been, and did not say that it took it."""
    GONE = 3
    """It wants no such event again."""

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Receipt:
    """`note` says why an event was not taken, without a byte of the receiver; `wait`: seconds that it asks for."""

    taking: Taking
    note: str = ""
    wait: float = 0.0


TAKEN = Receipt(Taking.TAKEN)


@dataclass(frozen=True, slots=True)
class Again:
    """To be tried again at `next_at` (Unix time), or parked (None); `attempts` that count against it so far."""

    next_at: float | None
    attempts: int


def judge(status: int, wait: float) -> Receipt:
    """What an HTTP status says; `wait` is its Retry-After in seconds, or 0.

    2xx takes the event, 410 ends it, 429 asks for time. Everything else refuses it: a redirect too, for it is not
    followed, and a 5xx, for an event that crashes its receiver answers just so.
    """
    if 200 <= status < 300:
        return TAKEN
    note = f"status {status}"
    if status == _GONE:
        return Receipt(Taking.GONE, note)
    return Receipt(Taking.AWAY if status == _TOO_MANY else Taking.REFUSED, note, wait)


def verdict(receipts: Iterable[Receipt]) -> Receipt:
    """What several receivers together did with one event: only what all have taken is sent."""
    return max(receipts, key=lambda receipt: (receipt.taking, receipt.wait))


def again(receipt: Receipt, attempts: int, most: int, now: float, jitter: float) -> Again:
    """What to do with an event that was not taken, after `attempts` that counted before this one.

    It is parked at once when its receiver is GONE, and when `most` attempts were REFUSED. `jitter` is uniform in
    [0, 1); what the receiver asks for can only lengthen the delay.
    """
    asked = min(receipt.wait, MAX_RETRY_AFTER)
    if receipt.taking is Taking.AWAY:
        return Again(now + max(asked, pause(1, jitter)), attempts)
    attempts += 1
    if receipt.taking is Taking.GONE or attempts >= most:
        return Again(None, attempts)
    return Again(now + max(asked, _doubling(1.0, attempts, LONGEST_DELAY, jitter)), attempts)


def pause(failures: int, jitter: float) -> float:
    """Seconds without new attempts after so many rounds in a row that found a receiver away; 0 after none."""
    return _doubling(0.25, failures, LONGEST_PAUSE, jitter) if failures else 0.0


def _doubling(first: float, times: int, longest: float, jitter: float) -> float:
    """`first`, doubled with each time after it, moved by up to a fifth both ways so that nobody comes in step."""
    return float(min(first * 2 ** min(times - 1, 30), longest) * (0.8 + 0.4 * jitter))
